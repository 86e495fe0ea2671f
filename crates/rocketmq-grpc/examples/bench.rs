//! Speed against a real server; one line per run.
//!
//! ```text
//! bench send    ENDPOINTS TOPIC COUNT IN_FLIGHT
//! bench consume ENDPOINTS TOPIC COUNT GROUP
//! ```
//!
//! `consume` waits for the first message, then counts to COUNT acknowledgements confirmed.
#![allow(clippy::print_stdout, reason = "a program")]

use std::{collections::HashSet, error::Error, fs, time::Duration};

use rocketmq_grpc::{Client, Config, ConsumerConfig, Filter, Message, ProducerConfig, Settlement};
use tokio::{task::JoinSet, time::Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, endpoints, topic, count, last] = args.as_slice() else {
        return Err("usage: bench send|consume ENDPOINTS TOPIC COUNT IN_FLIGHT|GROUP".into());
    };
    let client = Client::new(Config::new(endpoints).name("bench"))?;
    let count = count.parse()?;
    match mode.as_str() {
        "send" => send(&client, topic, count, last.parse()?).await,
        "consume" => consume(&client, topic, count, last).await,
        _ => Err("the mode is send or consume".into()),
    }
}

async fn send(client: &Client, topic: &str, count: usize, in_flight: usize) -> Result<()> {
    let producer = client.producer(ProducerConfig::new().topic(topic)).await?;
    let body = bytes::Bytes::from(vec![b'x'; 1024]);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut senders = JoinSet::new();
    for n in 0..in_flight {
        let (producer, topic, body) = (producer.clone(), topic.to_owned(), body.clone());
        let share = count / in_flight + usize::from(n < count % in_flight);
        senders.spawn(async move {
            for _ in 0..share {
                producer.send(Message::new(&topic, body.clone())).await?;
            }
            Ok::<_, rocketmq_grpc::Error>(())
        });
    }
    while let Some(done) = senders.join_next().await {
        done??;
    }
    report(&format!("send, {in_flight} in flight"), count, start, cpu);
    producer
        .close(Instant::now() + Duration::from_secs(5))
        .await;
    Ok(())
}

async fn consume(client: &Client, topic: &str, count: usize, group: &str) -> Result<()> {
    const ROOM: usize = 1024;
    let config = ConsumerConfig::new(group).subscribe(topic, Filter::all());
    let consumer = client.consumer(config).await?;
    let (mut seen, mut twice, mut confirmed, mut failed, mut held) = (HashSet::new(), 0, 0, 0, 0);
    let mut start = None;
    while confirmed + failed < count + twice {
        tokio::select! {
            leases = consumer.receive(topic, ROOM - held), if held < ROOM / 2 => {
                start.get_or_insert_with(|| (Instant::now(), cpu_seconds()));
                for lease in leases? {
                    twice += usize::from(!seen.insert(lease.message().id.clone()));
                    held += 1;
                    consumer.settle(lease, Settlement::Ack);
                }
            }
            reports = consumer.settled() => for report in reports {
                held -= 1;
                if report.result.is_ok() { confirmed += 1 } else { failed += 1 }
            }
        }
    }
    let (start, cpu) = start.ok_or("nothing came")?;
    report(
        &format!("consume, {twice} twice, {failed} failed"),
        count,
        start,
        cpu,
    );
    let stopping = Instant::now();
    consumer.close(stopping + Duration::from_secs(5)).await?;
    println!("stopped in {:?}", stopping.elapsed());
    Ok(())
}

fn report(what: &str, count: usize, start: Instant, cpu: f64) {
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    let resident = proc_status("VmHWM:").unwrap_or_default() / 1024;
    println!(
        "{what}: {:.0}/s, client CPU {:.2} s per 10,000, {:.2} cores, {resident} MB resident",
        count as f64 / seconds,
        cpu / count as f64 * 1e4,
        cpu / seconds,
    );
}

/// User and system time of this process, on Linux; 0 elsewhere.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|it| it.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn proc_status(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|it| it.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
