//! The law of refusal finds a driver that ignores what it cannot do.

use std::time::Duration;

use kratos::StartContext;
use kratos_broker::{
    Delivery, Driver, Group, Message, RecallHandle, Receipt, Result, Topic,
    driver::{Capabilities, Filter, GroupSpec, TopicSpec},
    memory::{Broker, MemoryConsumer},
    testing::{Harness, refusal::what_the_driver_cannot_do_it_refuses},
};

/// A driver that says that it can do nothing, and leaves it to others to refuse that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ignores {
    Nothing,
    Delay,
    Sql,
    Recall,
}

#[derive(Clone)]
struct Careless {
    broker: Broker,
    ignores: Ignores,
}

impl Driver for Careless {
    const SYSTEM: &'static str = "careless";

    type Consumer = MemoryConsumer;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    async fn publish(&self, message: Message) -> Result<Receipt> {
        let parts = message.clone().into_parts();
        if self.ignores == Ignores::Delay && parts.deliver_at.is_some() {
            let at_once = Message::new(parts.topic, parts.body);
            return self.broker.publish(at_once).await;
        }
        self.broker.publish(message).await
    }

    async fn recall(&self, handle: &RecallHandle) -> Result<()> {
        match self.ignores {
            Ignores::Recall => Ok(()),
            _ => self.broker.recall(handle).await,
        }
    }

    async fn consumer(&self, mut group: GroupSpec, cx: StartContext) -> Result<MemoryConsumer> {
        let sql = |spec: &TopicSpec| matches!(spec.filter, Filter::Sql(_));
        if self.ignores == Ignores::Sql && group.topics.iter().any(sql) {
            for spec in &mut group.topics {
                spec.filter = Filter::All;
            }
        }
        self.broker.consumer(group, cx).await
    }
}

impl Harness for Careless {
    type Driver = Self;

    async fn driver(&self) -> Self {
        self.clone()
    }

    async fn topic(&self, hint: &str) -> Topic {
        hint.into()
    }

    async fn group(&self, hint: &str) -> Group {
        hint.into()
    }

    async fn dead_letters(&self, _: &Group) -> Vec<Delivery> {
        Vec::new()
    }

    fn invisible(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// What the law says of a driver, if it is broken.
async fn broken(ignores: Ignores) -> Option<String> {
    let broker = Broker::new().with_capabilities(Capabilities::none());
    let harness = Careless { broker, ignores };
    let law = tokio::spawn(async move { what_the_driver_cannot_do_it_refuses(&harness).await });
    let panic = law.await.err()?.into_panic();
    Some(*panic.downcast::<String>().expect("a panic with a text"))
}

#[tokio::test(start_paused = true)]
async fn the_law_of_refusal_finds_a_driver_that_ignores_what_it_cannot_do() {
    assert_eq!(broken(Ignores::Nothing).await, None);
    for (ignores, what) in [
        (Ignores::Delay, "delay"),
        (Ignores::Sql, "sql"),
        (Ignores::Recall, "recall"),
    ] {
        let told = broken(ignores).await.expect("the law is broken");
        assert_eq!(told, format!("ignored, not refused: {what}"));
    }
}
