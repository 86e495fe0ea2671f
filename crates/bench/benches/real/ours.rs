//! Our client by itself, and our whole stack: a typed JSON handler with default settings.

use std::{collections::HashSet, hint::black_box, sync::Arc, time::Duration};

use kratos::{
    App, Handle, Phase, Signals,
    telemetry::{self, Telemetry},
};
use kratos_broker::{Json, Message, State};
use kratos_rocketmq::{Client, Config, Server};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use rocketmq_grpc::{ConsumerConfig, Filter, Settlement};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::{
    AnyError, Event,
    figures::{Clock, Figures, cpu_seconds, resident_mb},
};

/// What the bare client may hold.
const ROOM: usize = 1024;

/// How often the end of a run is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// An App that runs.
type Run = JoinHandle<kratos::Result<()>>;

/// Exports to nowhere.
#[derive(Debug)]
struct Nowhere;

pub(crate) async fn send(
    address: &str,
    topic: &str,
    count: usize,
    in_flight: usize,
) -> Result<Figures, AnyError> {
    let publisher = client(address)?.publisher();
    publisher
        .publish(Message::json(topic, &Event::new(0))?)
        .await?;
    let clock = Clock::start();
    let mut tasks = JoinSet::new();
    for n in 0..in_flight {
        let (publisher, topic) = (publisher.clone(), topic.to_owned());
        tasks.spawn(async move {
            for seq in (n..count).step_by(in_flight) {
                publisher
                    .publish(Message::json(topic.as_str(), &Event::new(seq))?)
                    .await?;
            }
            Ok::<_, AnyError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(clock.stop(count))
}

/// Typed handler, default settings, every message acknowledged.
pub(crate) async fn consume(
    address: &str,
    topic: &str,
    group: &str,
    count: usize,
    traced: bool,
) -> Result<Figures, AnyError> {
    async fn handle(State(first): State<Arc<Notify>>, Json(event): Json<Event>) {
        black_box(event);
        first.notify_one();
    }
    let telemetry = traced.then(traces_to_nowhere).transpose()?;
    let (client, first) = (client(address)?, Arc::new(Notify::new()));
    let server = Server::new(client.clone())
        .subscribe(topic, group, handle)
        .with_state(first.clone());
    let counters = server.counters();
    let app = App::new()
        .signals(Signals::none())
        .resource(client)
        .server(server);
    let handle = app.handle();
    let running = tokio::spawn(app.run());
    first.notified().await;
    let clock = Clock::start();
    while counters.stats().confirmed < count as u64 {
        sleep(LOOK_EVERY).await;
    }
    let figures = clock.stop(count);
    handle.stop();
    running.await??;
    drop(telemetry);
    Ok(figures)
}

/// Our client without the framework; bodies are not decoded.
pub(crate) async fn consume_bare(
    address: &str,
    topic: &str,
    group: &str,
    count: usize,
) -> Result<Figures, AnyError> {
    let client = rocketmq_grpc::Client::new(rocketmq_grpc::Config::new(address))?;
    let config = ConsumerConfig::new(group).subscribe(topic, Filter::all());
    let consumer = client.consumer(config).await?;
    let (mut seen, mut confirmed, mut held, mut clock) = (HashSet::new(), 0, 0, None);
    while confirmed < count {
        tokio::select! {
            leases = consumer.receive(topic, ROOM - held), if held < ROOM / 2 => {
                clock.get_or_insert_with(Clock::start);
                for lease in leases? {
                    seen.insert(lease.message().id.clone());
                    held += 1;
                    consumer.settle(lease, Settlement::Ack);
                }
            }
            reports = consumer.settled() => {
                held -= reports.len();
                confirmed += reports.iter().filter(|report| report.result.is_ok()).count();
            }
        }
    }
    Ok(clock.ok_or("nothing came")?.stop(seen.len()))
}

/// An App that waits for messages of so many topics: the part of a core that it takes, in percent.
pub(crate) async fn idle(
    address: &str,
    topics: &[&str],
    group: &str,
    time: Duration,
) -> Result<(), AnyError> {
    async fn ignore() {}
    let client = client(address)?;
    let subscribe = |server: Server, topic: &&str| server.subscribe(*topic, group, ignore);
    let server = topics.iter().fold(Server::new(client.clone()), subscribe);
    let (handle, running) = start(client, server).await?;
    let cpu = cpu_seconds();
    sleep(time).await;
    let percent = (cpu_seconds() - cpu) / time.as_secs_f64() * 100.0;
    println!(
        "idle with {} topics: {percent:.2} % of a core, {:.1} MB",
        topics.len(),
        resident_mb()
    );
    handle.stop();
    running.await??;
    Ok(())
}

/// Runs an App of this server, from the moment it is ready.
pub(crate) async fn start(client: Client, server: Server) -> Result<(Handle, Run), AnyError> {
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

pub(crate) fn client(address: &str) -> Result<Client, AnyError> {
    let endpoints = Some(address.to_owned());
    Ok(Client::new(Config {
        endpoints,
        ..Config::default()
    })?)
}

fn traces_to_nowhere() -> Result<Telemetry, AnyError> {
    let builder = Telemetry::builder(&telemetry::Config::default())?;
    Ok(builder.exporter(Nowhere).install()?)
}

impl SpanExporter for Nowhere {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}
