//! The laws of every driver, on a real Apache RocketMQ: `make e2e` starts one.
//!
//! `ROCKETMQ_ENDPOINTS` names the proxy, `ROCKETMQ_BROKER` the broker's own port, where topics and
//! groups are created.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kratos_broker::{
    Consumer, Delivery, Driver, Group, Settlement, Topic,
    driver::{Filter, GroupSpec, Room, Ticket, TopicSpec},
    testing::{Harness, start_context},
};
use kratos_rocketmq::{Client, Config};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

/// The server's shortest lease.
const INVISIBLE: Duration = Duration::from_secs(10);

static NAMES: AtomicUsize = AtomicUsize::new(0);

struct Real;

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} names the server: run `make e2e`"))
}

/// Unique on a server that outlives this run.
fn name(hint: &str) -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis()
        % 1_000_000_000;
    format!("law-{hint}-{since}-{}", NAMES.fetch_add(1, Relaxed))
}

async fn create(kind: &str, spec: String) {
    let admin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rocketmq/admin.py");
    let broker = env("ROCKETMQ_BROKER");
    let status = Command::new("python3")
        .arg(admin)
        .args(["--quiet", "--broker", &broker, kind, &spec])
        .status()
        .await
        .unwrap();
    assert!(status.success(), "admin.py {kind} {spec}");
}

impl Harness for Real {
    type Driver = Client;

    async fn driver(&self) -> Client {
        let endpoints = Some(env("ROCKETMQ_ENDPOINTS"));
        Client::new(Config {
            endpoints,
            ..Config::default()
        })
        .unwrap()
    }

    async fn topic(&self, hint: &str) -> Topic {
        let name = name(hint);
        create("topic", format!("{name}:NORMAL")).await;
        name.into()
    }

    async fn group(&self, hint: &str) -> Group {
        let name = name(hint);
        create("group", format!("{name}:retry=16:backoff=1s-10s")).await;
        name.into()
    }

    /// Reads the group's dead-letter topic through another group, from its start: the topic is
    /// young.
    async fn dead_letters(&self, group: &Group) -> Vec<Delivery> {
        let reader = name("dlq-reader");
        create("group", reader.clone()).await;
        let topic = Topic::from(format!("%DLQ%{group}"));
        let spec = GroupSpec::new(reader, vec![TopicSpec::new(&topic, Filter::All)], INVISIBLE);
        let Ok(consumer) = self.driver().await.consumer(spec, start_context()).await else {
            return Vec::new(); // made with the first dead letter
        };
        let mut letters = Vec::new();
        let room = Room::new(32, 1 << 20);
        while let Ok(received) =
            timeout(Duration::from_secs(5), consumer.receive(&topic, room)).await
        {
            for leased in received.unwrap() {
                letters.push(leased.delivery);
                consumer.settle(Ticket::default(), leased.lease, Settlement::Ack);
            }
        }
        consumer
            .close(Instant::now() + Duration::from_secs(5))
            .await
            .unwrap();
        letters
    }

    fn invisible(&self) -> Duration {
        INVISIBLE
    }
}

kratos_broker::conformance!(Real);
