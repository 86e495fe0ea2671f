//! End to end on a running server: our floor, our client, our whole stack, and the official Go
//! client where its program is given; in turn, every run a process and a topic of its own.
//!
//! ```text
//! ROCKETMQ_ENDPOINTS=127.0.0.1:8081 ROCKETMQ_NAMESRV=127.0.0.1:9876 [GO_PEER=PROGRAM] \
//!     cargo bench -p bench --bench real [-- consume|send|latency|stop|ablations|idle]
//! ```
//!
//! Messages are JSON of 1 KB. A run counts from the first message to the last acknowledgement.
#![allow(clippy::print_stdout, missing_docs)]

mod figures;
mod floor;
mod latency;
mod ours;
mod stop;

use std::{process::Stdio, time::SystemTime};

use rocketmq_admin::{Admin, GroupSpec, TopicSpec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    process::Command,
    time::{Duration, timeout},
};

use self::{
    figures::{Figures, Latency},
    floor::Consume,
};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const TURNS: usize = 5;
const MESSAGES: usize = 20_000;
const IN_FLIGHT: usize = 64;

/// How long one run may take.
const RUN_MAX: Duration = Duration::from_secs(90);
const IDLE: Duration = Duration::from_secs(20);

/// Our receives at once, and how they are acknowledged: see `floor`.
const FLOOR: &str = "floor:4:128:4";

const CONSUMERS: &[&str] = &[FLOOR, "client", "stack", "traced", "go"];
const LATENCIES: &[&str] = &["floor", "stack", "go"];
const SENDERS: &[&str] = &["floor", "stack", "go"];
const ABLATIONS: &[&str] = &[
    "floor:1:0:0",
    "floor:2:0:0",
    "floor:4:0:0",
    "floor:4:1:64",
    "floor:4:8:16",
    "floor:4:32:4",
    "floor:1:128:4",
    "floor:2:128:4",
    FLOOR,
    "stack",
    "traced",
];

/// About 1 KB as JSON.
#[derive(Deserialize, Serialize)]
struct Event {
    seq: usize,
    ts: u64,
    event_name: String,
    report_data: String,
}

struct Bench {
    endpoints: String,
    admin: Admin,
    go: Option<String>,
    /// Of the names of topics and groups.
    prefix: String,
    made: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let endpoints = std::env::var("ROCKETMQ_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:8081".into());
    match args[..] {
        ["run", "send", who, topic] => figures::print(&run_send(&endpoints, who, topic).await?),
        ["run", "consume", who, topic, group] => {
            figures::print(&run_consume(&endpoints, who, topic, group).await?)
        }
        ["run", "e2e", who, topic, group] => {
            figures::print(&latency::run(&endpoints, who, topic, group).await?)
        }
        ["run", "stop", out, handlers, topic, group] => {
            stop::run(&endpoints, out, handlers.parse()?, topic, group).await
        }
        _ => {
            Bench::new(endpoints)?
                .run(args.first().copied().unwrap_or_default())
                .await
        }
    }
}

async fn run_send(endpoints: &str, who: &str, topic: &str) -> Result<Figures, AnyError> {
    match who {
        "floor" => floor::send(endpoints, topic, MESSAGES, IN_FLIGHT).await,
        _ => ours::send(endpoints, topic, MESSAGES, IN_FLIGHT).await,
    }
}

async fn run_consume(
    endpoints: &str,
    who: &str,
    topic: &str,
    group: &str,
) -> Result<Figures, AnyError> {
    if let Some(how) = who.strip_prefix("floor:") {
        let numbers: Vec<usize> = how.split(':').map(str::parse).collect::<Result<_, _>>()?;
        let [loops, ack_batch, acks] = numbers[..] else {
            return Err("floor:LOOPS:ACK_BATCH:ACKS".into());
        };
        let how = Consume {
            loops,
            ack_batch,
            acks,
        };
        return floor::consume(endpoints, topic, group, MESSAGES, how, |_| ()).await;
    }
    match who {
        "client" => ours::consume_bare(endpoints, topic, group, MESSAGES).await,
        _ => ours::consume(endpoints, topic, group, MESSAGES, who == "traced").await,
    }
}

fn body(seq: usize) -> Result<Vec<u8>, AnyError> {
    Ok(serde_json::to_vec(&Event::new(seq))?)
}

/// Since 1970.
fn now_nanos() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Event {
    fn new(seq: usize) -> Self {
        Self {
            seq,
            ts: now_nanos(),
            event_name: "page_view".to_owned(),
            report_data: "x".repeat(930),
        }
    }
}

impl Bench {
    fn new(endpoints: String) -> Result<Self, AnyError> {
        let namesrv = std::env::var("ROCKETMQ_NAMESRV").unwrap_or_else(|_| "127.0.0.1:9876".into());
        Ok(Self {
            endpoints,
            admin: Admin::new(namesrv.as_str())?,
            go: std::env::var("GO_PEER").ok(),
            prefix: format!("bench{}", std::process::id()),
            made: 0,
        })
    }

    async fn run(mut self, what: &str) -> Result<(), AnyError> {
        match what {
            "" => {
                self.compare("send", SENDERS).await?;
                self.compare("consume", CONSUMERS).await
            }
            "send" => self.compare("send", SENDERS).await,
            "consume" => self.compare("consume", CONSUMERS).await,
            "latency" => self.latency().await,
            "stop" => self.stop().await,
            "ablations" => self.compare("consume", ABLATIONS).await,
            "idle" => {
                let mut topics = Vec::new();
                for _ in 0..10 {
                    topics.push(self.topic().await?);
                }
                let topics: Vec<&str> = topics.iter().map(|(topic, _)| topic.as_str()).collect();
                let group = format!("{}idle", self.prefix);
                self.admin.create_group(&GroupSpec::new(&group)).await?;
                ours::idle(&self.endpoints, &topics, &group, IDLE).await
            }
            _ => Err("consume | send | latency | stop | ablations | idle".into()),
        }
    }

    /// Everybody in turn, and the table. The first turn warms the server up and does not count.
    async fn compare(&mut self, what: &str, who: &[&str]) -> Result<(), AnyError> {
        let who = self.who(who);
        let mut all = vec![Vec::new(); who.len()];
        for turn in 0..=TURNS {
            for (who, figures) in who.iter().zip(&mut all) {
                let run = self.turn(what, who).await?;
                if turn > 0 {
                    figures.push(run);
                }
            }
        }
        println!(
            "{what} {MESSAGES}: median of {TURNS} turns (least, most); load {}",
            load()
        );
        let floor = median(
            &mut all[0]
                .iter()
                .map(|run: &Figures| run.rate)
                .collect::<Vec<_>>(),
        )
        .0;
        for (who, figures) in who.iter().zip(&all) {
            let of =
                |of: fn(&Figures) -> f64| median(&mut figures.iter().map(of).collect::<Vec<_>>());
            let (rate, least, most) = of(|run| run.rate);
            let (cpu, rss) = (of(|run| run.cpu_per_10k).0, of(|run| run.rss_mb).0);
            println!(
                "{who:14} {rate:7.0}/s ({least:.0}, {most:.0})  {:4.2} of the first  \
                 {cpu:.2} CPU s per 10,000  {rss:.0} MB",
                rate / floor
            );
        }
        Ok(())
    }

    /// From a send to the handler, at a rate that nobody has trouble with.
    async fn latency(&mut self) -> Result<(), AnyError> {
        let who = self.who(LATENCIES);
        let mut all = vec![Vec::new(); who.len()];
        for turn in 0..=TURNS {
            for (who, runs) in who.iter().zip(&mut all) {
                let (topic, group) = self.topic().await?;
                let run: Latency = self.child(who, &["e2e", &topic, &group]).await?;
                if turn > 0 {
                    runs.push(run);
                }
                self.forget(&topic, &group).await?;
            }
        }
        println!(
            "send to handler at {}/s: median of {TURNS} turns (least, most), ms; load {}",
            latency::PER_SECOND,
            load()
        );
        for (who, runs) in who.iter().zip(&all) {
            let of = |of: fn(&Latency) -> f64| {
                let (middle, least, most) = median(&mut runs.iter().map(of).collect::<Vec<_>>());
                let ms = |micros: f64| micros / 1e3;
                format!("{:.2} ({:.2}, {:.2})", ms(middle), ms(least), ms(most))
            };
            println!(
                "{who:8} p50 {}  p99 {}  max {}",
                of(|run| run.p50_us),
                of(|run| run.p99_us),
                of(|run| run.max_us)
            );
        }
        Ok(())
    }

    fn who<'a>(&self, who: &[&'a str]) -> Vec<&'a str> {
        let there = |it: &&&str| **it != "go" || self.go.is_some();
        who.iter().filter(there).copied().collect()
    }

    async fn turn(&mut self, what: &str, who: &str) -> Result<Figures, AnyError> {
        let (topic, group) = self.topic().await?;
        let figures = if what == "send" {
            self.child(who, &["send", &topic]).await
        } else {
            floor::send(&self.endpoints, &topic, MESSAGES, IN_FLIGHT).await?;
            self.child(who, &["consume", &topic, &group]).await
        };
        self.forget(&topic, &group).await?;
        figures
    }

    async fn forget(&self, topic: &str, group: &str) -> Result<(), AnyError> {
        self.admin.delete_topic(topic).await?;
        self.admin.delete_group(group).await?;
        Ok(())
    }

    async fn child<T: DeserializeOwned>(&self, who: &str, args: &[&str]) -> Result<T, AnyError> {
        let mut command = match (&self.go, who) {
            (Some(go), "go") => {
                let mut command = Command::new(go);
                command.args([args[0], "-endpoint", &self.endpoints, "-topic", args[1]]);
                command.args(["-n", &MESSAGES.to_string()]);
                command.args(["-inflight", &IN_FLIGHT.to_string()]);
                command.args(["-rate", &latency::PER_SECOND.to_string()]);
                command.args(["-secs", &latency::SECONDS.to_string()]);
                command.args(["-warm", &latency::WARM_SECONDS.to_string()]);
                command.args(["-idle", "10s", "-quick", "1", "-extra", "plain"]);
                if let Some(group) = args.get(2) {
                    command.args(["-group", group]);
                }
                go_settings(&mut command);
                command
            }
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["run", args[0], who]).args(&args[1..]);
                command.env("ROCKETMQ_ENDPOINTS", &self.endpoints);
                command
            }
        };
        let child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let output = timeout(RUN_MAX, child.wait_with_output()).await??;
        let text = String::from_utf8_lossy(&output.stdout);
        figures::read(&text).ok_or_else(|| format!("{who} {args:?} says {text:?}").into())
    }

    /// A topic and a group that nobody has used: their messages are received from the first on.
    async fn topic(&mut self) -> Result<(String, String), AnyError> {
        self.made += 1;
        let topic = format!("{}t{}", self.prefix, self.made);
        let group = format!("{}g{}", self.prefix, self.made);
        self.admin.create_topic(&TopicSpec::new(&topic)).await?;
        self.admin.create_group(&GroupSpec::new(&group)).await?;
        self.admin.wait_for_topic(&topic, RUN_MAX).await?;
        Ok((topic, group))
    }
}

/// Plaintext, and its log where it is in nobody's way.
fn go_settings(command: &mut Command) {
    command.env("rocketmq.client.enableSsl", "false");
    command.env("rocketmq.client.logRoot", std::env::temp_dir());
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg");
    load.unwrap_or_default().trim().to_owned()
}

fn median(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}
