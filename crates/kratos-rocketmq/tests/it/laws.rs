//! The laws of every driver, on the dev broker over memory.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use kratos_broker::{
    Delivery, DeliveryParts, Group, Headers, Topic,
    testing::{Bounds, Harness},
};
use kratos_rocketmq::Client;
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
        Client::of(self.broker.clone())
    }

    async fn topic(&self, hint: &str) -> Topic {
        let name = self.name(hint);
        self.broker.create_topic(&name, TopicType::Normal).unwrap();
        name.into()
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

    fn invisible(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            redelivery_late: Duration::from_secs(1),
            prime: Duration::from_millis(300),
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
