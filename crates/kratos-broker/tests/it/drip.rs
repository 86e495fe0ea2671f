//! A driver whose answers come in pieces, as over a network.
use crate::support::{Log, publish_numbers, secs, subscription, until};
use kratos::StartContext;
use kratos_broker::{
    Attempt, Driver, Message, Receipt, Result, Router, Server, Topic,
    driver::{Capabilities, Consumer, GroupSpec, Leased, Room, Settled, Settlement, Ticket},
    memory::{Broker, MemoryConsumer},
    testing::Started,
};
use std::{collections::VecDeque, sync::Mutex, time::Duration};
use tokio::time::{Instant, sleep};

#[derive(Clone, Debug)]
struct Drip(Broker);
struct Tap {
    inner: MemoryConsumer,
    arrived: Mutex<VecDeque<Leased<<MemoryConsumer as Consumer>::Lease>>>,
}

impl Driver for Drip {
    const SYSTEM: &'static str = "drip";
    type Consumer = Tap;
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn publish(&self, message: Message) -> Result<Receipt> {
        Driver::publish(&self.0, message).await
    }
    async fn consumer(&self, group: GroupSpec, cx: StartContext) -> Result<Tap> {
        Ok(Tap {
            inner: self.0.consumer(group, cx).await?,
            arrived: Mutex::default(),
        })
    }
}
impl Consumer for Tap {
    type Lease = <MemoryConsumer as Consumer>::Lease;
    async fn receive(&self, topic: &Topic, room: Room) -> Result<Vec<Leased<Self::Lease>>> {
        if self.arrived.lock().unwrap().is_empty() {
            let all = self.inner.receive(topic, room).await?; // asked for no more than the room
            self.arrived.lock().unwrap().extend(all);
        }
        Ok(self
            .arrived
            .lock()
            .unwrap()
            .pop_front()
            .into_iter()
            .collect())
    }
    fn settle(&self, ticket: Ticket, lease: Self::Lease, how: Settlement) {
        self.inner.settle(ticket, lease, how)
    }
    async fn settled(&self) -> Vec<Settled> {
        self.inner.settled().await
    }
    async fn extend(&self, lease: &mut Self::Lease, by: Duration) -> Result<Instant> {
        self.inner.extend(lease, by).await
    }
    async fn stop_receiving(&self) {
        self.inner.stop_receiving().await
    }
    async fn close(self, by: Instant) -> Result<()> {
        self.inner.close(by).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_is_fetched_before_its_lease_ends() {
    let broker = Broker::new();
    let attempts = Log::default();
    let handler = {
        let attempts = attempts.clone();
        move |Attempt(attempt): Attempt| {
            let attempts = attempts.clone();
            async move {
                sleep(secs(5)).await;
                attempts.add(attempt)
            }
        }
    };
    let subscription = subscription().concurrency(1).invisible_duration(secs(10));
    publish_numbers(&broker, 33).await;
    let router = Router::new().subscribe_with(subscription, handler);
    let started = Started::start(Server::new(Drip(broker.clone())).routes(router)).await;
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(
        attempts.all(),
        [1; 33],
        "none came twice because it lay in the driver"
    );
    started.stop(secs(10)).await.unwrap();
}
