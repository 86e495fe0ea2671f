//! The laws of every driver, on a real Apache RocketMQ: `make e2e` starts one.
//!
//! `ROCKETMQ_ENDPOINTS` names the proxy, `ROCKETMQ_NAMESRV` the name server, by which topics and
//! groups are created.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod away;
mod checks;
mod dead_letters;
mod lag;
mod outbox;
mod relay;
#[path = "../it/reports.rs"]
mod reports;
mod trace;

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kratos_broker::{
    Consumer, Delivery, Driver, Group, Resolution, Settlement, Topic,
    driver::{Filter, GroupSpec, Room, Ticket, TopicSpec},
    testing::{Bounds, Harness, TopicKind, start_context},
};
use kratos_rocketmq::{Client, Config};
use rocketmq_admin::{Admin, GroupSpec as AdminGroup, TopicSpec as AdminTopic};
use tokio::time::{Instant, timeout};

use self::relay::{Relay, Way};

/// The server's shortest lease.
const INVISIBLE: Duration = Duration::from_secs(10);

/// What is late on a busy machine must not be sent twice.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

static NAMES: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Real {
    /// The way to the server, and how it is taken away.
    relay: Option<(Relay, Way)>,
}

impl Real {
    /// With a way of its own to the server, for the laws of a broker that goes away. Broadcasts
    /// cannot be tried there.
    async fn behind_a_relay(away: Way) -> Self {
        let relay = Relay::to(env("ROCKETMQ_ENDPOINTS")).await.unwrap();
        Self {
            relay: Some((relay, away)),
        }
    }
}

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

fn admin() -> Admin {
    Admin::new(env("ROCKETMQ_NAMESRV")).unwrap()
}

impl Harness for Real {
    type Driver = Client;

    async fn driver(&self) -> Client {
        if let Some((relay, _)) = &self.relay {
            let addr = relay.addr();
            let config = rocketmq_grpc::Config::new(addr.to_string())
                .rewrite_addresses(move |_, _| (addr.ip().to_string(), addr.port()))
                .request_timeout(REQUEST_TIMEOUT);
            return Client::around(rocketmq_grpc::Client::new(config).unwrap());
        }
        let endpoints = Some(env("ROCKETMQ_ENDPOINTS"));
        Client::new(Config {
            endpoints,
            admin: Some(env("ROCKETMQ_NAMESRV")),
            request_timeout: REQUEST_TIMEOUT,
            ..Config::default()
        })
        .unwrap()
    }

    async fn topic(&self, hint: &str) -> Topic {
        let name = name(hint);
        admin().create_topic(&AdminTopic::new(&name)).await.unwrap();
        name.into()
    }

    async fn special_topic(&self, kind: TopicKind, hint: &str) -> Option<Topic> {
        let kind = match kind {
            TopicKind::Ordered => "FIFO:queues=4",
            TopicKind::Delayed => "DELAY",
            TopicKind::Prioritised => "PRIORITY",
            TopicKind::Transactional => "TRANSACTION",
            _ => return None,
        };
        let name = name(hint);
        let spec: AdminTopic = format!("{name}:{kind}").parse().unwrap();
        admin().create_topic(&spec).await.unwrap();
        Some(name.into())
    }

    async fn ordered_group(&self, hint: &str) -> Group {
        let name = name(hint);
        let spec = AdminGroup::new(&name).orderly(true);
        admin().create_group(&spec).await.unwrap();
        name.into()
    }

    async fn checking_driver(&self, topic: &Topic, answer: Resolution) -> Client {
        let checker = move |_| std::future::ready(answer);
        let client = self.driver().await;
        client.transaction_checker(topic.as_str(), checker)
    }

    /// One committed transaction keeps a thread of the server busy for ever after: tried only where
    /// the server is ours.
    fn transactions(&self) -> bool {
        std::env::var_os("ROCKETMQ_TRANSACTIONS").is_some()
    }

    fn dead_letter_topic(&self, group: &Group) -> Option<Topic> {
        Some(format!("%DLQ%{group}").into())
    }

    async fn group(&self, hint: &str) -> Group {
        let name = name(hint);
        let spec = AdminGroup::new(&name).backoff(Duration::from_secs(1), Duration::from_secs(10));
        admin().create_group(&spec).await.unwrap();
        name.into()
    }

    /// Reads the group's dead-letter topic through another group, from its start: the topic is
    /// young.
    async fn dead_letters(&self, group: &Group) -> Vec<Delivery> {
        let reader = name("dlq-reader");
        admin()
            .create_group(&AdminGroup::new(&reader))
            .await
            .unwrap();
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

    async fn stop_broker(&self) -> bool {
        if let Some((relay, away)) = &self.relay {
            relay.set(*away);
        }
        self.relay.is_some()
    }

    async fn restart_broker(&self) {
        if let Some((relay, _)) = &self.relay {
            relay.set(Way::Open);
        }
    }

    fn invisible(&self) -> Duration {
        INVISIBLE
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            // Everything at once, on two cores that the server shares.
            redelivery_late: Duration::from_secs(20),
            deliver: Duration::from_secs(120),
            per_group: 100,
            backlog: 10_000,
            ..Bounds::default()
        }
    }
}

kratos_broker::conformance!(Real::default());
