//! The laws of every driver, on the dev broker over memory.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use kratos_broker::{
    Delivery, DeliveryParts, Group, Headers, Resolution, Topic,
    testing::{Bounds, Harness, TopicKind},
};
use kratos_rocketmq::{Client, testing};
use rocketmq_devbroker::{DevBroker, GroupConfig, StoredMessage, TopicType};

struct Dev {
    broker: DevBroker,
    names: AtomicUsize,
}

impl Dev {
    fn new() -> Self {
        let broker = DevBroker::builder()
            .strict(true)
            .min_invisible(Duration::from_secs(1))
            .transaction_check(Duration::from_secs(1), Duration::from_secs(1))
            .in_memory()
            .unwrap();
        Self {
            broker,
            names: AtomicUsize::new(0),
        }
    }

    fn name(&self, hint: &str) -> String {
        format!("{hint}-{}", self.names.fetch_add(1, Relaxed))
    }
}

impl Harness for Dev {
    type Driver = Client;

    async fn driver(&self) -> Client {
        testing::of(self.broker.clone())
    }

    async fn topic(&self, hint: &str) -> Topic {
        let name = self.name(hint);
        self.broker.create_topic(&name, TopicType::Normal).unwrap();
        name.into()
    }

    async fn special_topic(&self, kind: TopicKind, hint: &str) -> Option<Topic> {
        let kind = match kind {
            TopicKind::Ordered => TopicType::Fifo,
            TopicKind::Delayed => TopicType::Delay,
            TopicKind::Transactional => TopicType::Transaction,
            _ => return None,
        };
        let name = self.name(hint);
        self.broker.create_topic(&name, kind).unwrap();
        Some(name.into())
    }

    async fn ordered_group(&self, hint: &str) -> Group {
        let name = self.name(hint);
        let config = GroupConfig::new().fifo(true);
        self.broker.create_group(&name, config).unwrap();
        name.into()
    }

    async fn checking_driver(&self, topic: &Topic, answer: Resolution) -> Client {
        let client = testing::of(self.broker.clone());
        client.transaction_checker(topic.as_str(), move |_| std::future::ready(answer))
    }

    fn dead_letter_topic(&self, group: &Group) -> Option<Topic> {
        Some(rocketmq_devbroker::dead_letter_topic(group).into())
    }

    async fn group(&self, hint: &str) -> Group {
        let name = self.name(hint);
        self.broker.create_group(&name, GroupConfig::new()).unwrap();
        name.into()
    }

    async fn dead_letters(&self, group: &Group) -> Vec<Delivery> {
        self.broker
            .dead_letters(group)
            .into_iter()
            .map(delivery)
            .collect()
    }

    async fn stop_broker(&self) -> bool {
        self.broker.stop().await;
        true
    }

    async fn restart_broker(&self) {
        self.broker.restart().await.unwrap();
    }

    fn invisible(&self) -> Duration {
        // On a busy machine the wakers of a process were seen 3 s late.
        Duration::from_secs(5)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            redelivery_late: Duration::from_secs(1),
            prime: Duration::from_millis(300),
            per_group: 20,
            // Each costs the client, the broker and their wire some milliseconds, unoptimised.
            many: 2_000,
            backlog: 2_000,
            ..Bounds::default()
        }
    }
}

fn delivery(message: StoredMessage) -> Delivery {
    let mut parts = DeliveryParts::new(message.id, message.topic, message.body);
    parts.headers = message.properties.into_iter().collect::<Headers>();
    parts.tag = message.tag;
    parts.keys = message.keys;
    parts.into()
}

kratos_broker::conformance!(Dev::new());
