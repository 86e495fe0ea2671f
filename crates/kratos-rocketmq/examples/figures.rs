//! What the whole stack costs on a running server: typed JSON, default settings, every message
//! acknowledged. Prints one line.
//!
//! ```text
//! ROCKETMQ_ENDPOINTS=127.0.0.1:8081 cargo run --release -p kratos-rocketmq --example figures -- send TOPIC 20000 64
//! … figures -- consume TOPIC GROUP 20000    the group must have received from the topic before
//! … figures -- idle TOPIC GROUP 10          so does this make it: it receives for 10 s
//! ```
#![allow(clippy::print_stdout)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use kratos::{App, Handle, Phase, Signals};
use kratos_broker::{Json, Message, State};
use kratos_rocketmq::{Client, Config, Server};
use serde::{Deserialize, Serialize};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(120);

type Run = JoinHandle<kratos::Result<()>>;
type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize, Serialize)]
struct Event {
    seq: u64,
    event_name: String,
    report_data: String,
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let endpoints = std::env::var("ROCKETMQ_ENDPOINTS").ok();
    let client = Client::new(Config {
        endpoints,
        ..Config::default()
    })?;
    match args[..] {
        ["send", topic, count, in_flight] => {
            send(&client, topic, count.parse()?, in_flight.parse()?).await
        }
        ["consume", topic, group, count] => consume(client, topic, group, count.parse()?).await,
        ["idle", topic, group, seconds] => idle(client, topic, group, seconds.parse()?).await,
        _ => Err(
            "send TOPIC COUNT IN_FLIGHT | consume TOPIC GROUP COUNT | idle TOPIC GROUP SECONDS"
                .into(),
        ),
    }
}

async fn send(client: &Client, topic: &str, count: u64, in_flight: usize) -> Result<(), AnyError> {
    let publisher = client.publisher();
    publisher.publish(event(topic, 0)?).await?;
    let next = Arc::new(AtomicU64::new(0));
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (publisher, next, topic) = (publisher.clone(), next.clone(), topic.to_owned());
        tasks.spawn(async move {
            loop {
                let seq = next.fetch_add(1, Relaxed);
                if seq >= count {
                    return Ok::<_, AnyError>(());
                }
                publisher.publish(event(&topic, seq)?).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    report("send", count, start.elapsed(), cpu_seconds() - cpu);
    Ok(())
}

async fn consume(client: Client, topic: &str, group: &str, count: u64) -> Result<(), AnyError> {
    async fn count_one(State(seen): State<Arc<AtomicU64>>, Json(event): Json<Event>) {
        std::hint::black_box(event);
        seen.fetch_add(1, Relaxed);
    }
    let seen = Arc::new(AtomicU64::new(0));
    let server = Server::new(client.clone())
        .subscribe(topic, group, count_one)
        .with_state(seen.clone());
    let counters = server.counters();
    let (handle, running) = start(client, server).await?;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    while counters.stats().confirmed < count {
        if start.elapsed() > PATIENCE {
            return Err(format!("{:?}", counters.stats()).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    report("consume", count, start.elapsed(), cpu_seconds() - cpu);
    handle.stop();
    running.await??;
    println!("{} handled, {:?}", seen.load(Relaxed), counters.stats());
    Ok(())
}

async fn idle(client: Client, topic: &str, group: &str, seconds: u64) -> Result<(), AnyError> {
    async fn ignore() {}
    let server = Server::new(client.clone()).subscribe(topic, group, ignore);
    let (handle, running) = start(client, server).await?;
    let cpu = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu = cpu_seconds() - cpu;
    let stopping = Instant::now();
    handle.stop();
    running.await??;
    let stop = stopping.elapsed();
    println!(
        "idle {seconds} s: cpu {cpu:.2} s, resident {} MB, stop {stop:.1?}",
        resident_mb()
    );
    Ok(())
}

/// Runs an App of this server, from the moment it is ready.
async fn start(client: Client, server: Server) -> Result<(Handle, Run), AnyError> {
    let app = App::new()
        .signals(Signals::none())
        .resource(client)
        .server(server);
    let handle = app.handle();
    let running = tokio::spawn(app.run());
    if handle.reached(Phase::Ready).await != Phase::Ready {
        running.await??;
        return Err("stopped before it was ready".into());
    }
    Ok((handle, running))
}

/// About 1 KB as JSON.
fn event(topic: &str, seq: u64) -> Result<Message, AnyError> {
    let event = Event {
        seq,
        event_name: "page_view".to_owned(),
        report_data: "x".repeat(930),
    };
    Ok(Message::json(topic, &event)?)
}

fn report(what: &str, count: u64, took: Duration, cpu: f64) {
    let messages = count as f64;
    println!(
        "{what} {count}: {:.0}/s, client cpu {:.2} s per 10,000, resident {} MB at most",
        messages / took.as_secs_f64(),
        cpu / messages * 10_000.0,
        resident_mb(),
    );
}

/// User and system time of this process; Linux counts in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kb.unwrap_or_default() / 1024
}
