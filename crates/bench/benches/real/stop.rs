//! Stops: a process gets SIGTERM in the middle of its work, another one does the rest, and what both
//! have done is compared with what was sent.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos::App;
use kratos_broker::{Json, Router, State, Subscription};
use kratos_rocketmq::Server;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{AnyError, Bench, Event, IN_FLIGHT, floor, go_settings, ours};

const HANDLER: Duration = Duration::from_millis(50);

/// How long a process without messages is in its group before it is told to stop.
const IDLE_FOR: Duration = Duration::from_secs(5);

/// How long the others work: everybody is busy then, and most is still to do.
const BUSY_FOR: Duration = Duration::from_millis(300);

/// The official clients take up to half a minute.
const STOP_MAX: Duration = Duration::from_secs(60);

/// How long the second process may take: leases of the first one end meanwhile.
const REST_MAX: Duration = Duration::from_secs(90);

/// One line for each message that is done: `D 17`, as the peer's program writes.
type Out = Arc<Mutex<File>>;

/// Who stops, in the middle of what.
struct Case {
    who: &'static str,
    handlers: usize,
    messages: usize,
}

const CASES: &[Case] = &[
    Case::new("stack", 8, 0),
    Case::new("stack", 8, 2_000),
    Case::new("stack", 1_000, 20_000),
    Case::new("go", 8, 0),
    Case::new("go", 8, 2_000),
];

/// Handles until it is told to stop.
pub(crate) async fn run(
    address: &str,
    out: &str,
    handlers: usize,
    topic: &str,
    group: &str,
) -> Result<(), AnyError> {
    async fn handle(
        State(out): State<Out>,
        Json(event): Json<Event>,
    ) -> Result<(), kratos_broker::AnyError> {
        sleep(HANDLER).await;
        if let Ok(mut out) = out.lock() {
            writeln!(out, "D {}", event.seq)?;
        }
        Ok(())
    }
    let subscription = Subscription::new(topic, group).concurrency(handlers);
    let router = Router::new()
        .subscribe_with(subscription, handle)
        .with_state(Arc::new(Mutex::new(File::create(out)?)));
    let client = ours::client(address)?;
    let server = Server::new(client.clone()).routes(router);
    App::new().resource(client).server(server).run().await?;
    Ok(())
}

impl Bench {
    /// Stops of everybody, and what they did to the messages.
    pub(crate) async fn stop(&mut self) -> Result<(), AnyError> {
        for case in CASES {
            if case.who == "go" && self.go.is_none() {
                continue;
            }
            self.stop_case(case).await?;
        }
        Ok(())
    }

    async fn stop_case(&mut self, case: &Case) -> Result<(), AnyError> {
        let (topic, group) = self.topic().await?;
        let folder = std::env::temp_dir();
        let out = |n: usize| folder.join(format!("{topic}-{n}"));
        if case.messages > 0 {
            floor::send(&self.endpoints, &topic, case.messages, IN_FLIGHT).await?;
        }
        let mut first = self.stopping(case, &out(0), &topic, &group)?;
        if case.messages == 0 {
            sleep(IDLE_FOR).await;
        } else {
            let busy = async {
                while done(&out(0)).is_empty() {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(STOP_MAX, busy).await?;
            sleep(BUSY_FOR).await;
        }
        let before = done(&out(0)).len();
        let begin = Instant::now();
        terminate(&first)?;
        let status = timeout(STOP_MAX, first.wait()).await??;
        let took = begin.elapsed();
        let mut all = done(&out(0));
        let after = all.len() - before;
        if case.messages > 0 {
            let mut second = self.stopping(case, &out(1), &topic, &group)?;
            let begin = Instant::now();
            loop {
                let mut seen: Vec<_> = all.iter().chain(&done(&out(1))).copied().collect();
                seen.sort_unstable();
                seen.dedup();
                if seen.len() == case.messages || begin.elapsed() > REST_MAX {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            // What comes a second time comes by the end of a lease.
            sleep(Duration::from_secs(5)).await;
            second.kill().await?;
            all.extend(done(&out(1)));
        }
        let mut times: HashMap<usize, usize> = HashMap::new();
        for seq in all {
            *times.entry(seq).or_default() += 1;
        }
        println!(
            "{:6} {:5} handlers, {:6} messages: stopped in {:.2} s ({status}), {after} done in that \
             time, {} lost, {} twice",
            case.who,
            case.handlers,
            case.messages,
            took.as_secs_f64(),
            case.messages - times.len(),
            times.values().filter(|times| **times > 1).count(),
        );
        for n in 0..2 {
            let _ = fs::remove_file(out(n));
        }
        self.forget(&topic, &group).await
    }

    fn stopping(
        &self,
        case: &Case,
        out: &Path,
        topic: &str,
        group: &str,
    ) -> Result<Child, AnyError> {
        let handlers = case.handlers.to_string();
        let mut command = match (&self.go, case.who) {
            (Some(go), "go") => {
                let mut command = Command::new(go);
                command.args(["stop", "-endpoint", &self.endpoints, "-extra", "plain"]);
                command.args(["-topic", topic, "-group", group, "-threads", &handlers]);
                command.args(["-sleep", "50ms", "-out"]).arg(out);
                go_settings(&mut command);
                command
            }
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["run", "stop"]).arg(out);
                command.args([&handlers, topic, group]);
                command.env("ROCKETMQ_ENDPOINTS", &self.endpoints);
                command
            }
        };
        let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        Ok(child)
    }
}

impl Case {
    const fn new(who: &'static str, handlers: usize, messages: usize) -> Self {
        Self {
            who,
            handlers,
            messages,
        }
    }
}

/// What a process has done so far.
fn done(out: &Path) -> Vec<usize> {
    let text = fs::read_to_string(out).unwrap_or_default();
    let seq = |line: &str| line.strip_prefix("D ")?.split(' ').next()?.parse().ok();
    text.lines().filter_map(seq).collect()
}

fn terminate(child: &Child) -> Result<(), AnyError> {
    let pid = child.id().ok_or("it has ended by itself")?;
    let status = std::process::Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("kill: {status}").into())
}
