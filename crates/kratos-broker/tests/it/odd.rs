//! A driver that is slow or odd where the memory broker is quick: for the engine's stop.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kratos::StartContext;
use kratos_broker::{
    Consumer, Driver, Message, Receipt, Result, Router, Settlement, Topic,
    driver::{Capabilities, GroupSpec, Leased, Room, Settled, Ticket},
    memory::{Broker, MemoryConsumer, MemoryLease},
    testing::Started,
};
use tokio::time::{Instant, sleep};

use crate::support::{publish, secs, server, subscription, until};

/// The memory broker with another driver.
#[derive(Clone)]
pub(crate) struct Odd {
    pub(crate) broker: Broker,
    /// How long a group's driver goes on receiving after it was told to stop.
    pub(crate) slow_stop: fn(&str) -> Duration,
    /// Fetches many and returns them one by one, as a driver with an inbox does.
    pub(crate) one_by_one: bool,
    /// Never answers a settlement of this group.
    pub(crate) mute: fn(&str) -> bool,
}

pub(crate) struct OddConsumer {
    inner: MemoryConsumer,
    inbox: Mutex<VecDeque<Leased<MemoryLease>>>,
    one_by_one: bool,
    slow_stop: Duration,
    mute: bool,
    stopped: AtomicBool,
}

impl Odd {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self {
            broker: broker.clone(),
            slow_stop: |_| Duration::ZERO,
            one_by_one: false,
            mute: |_| false,
        }
    }
}

impl Driver for Odd {
    const SYSTEM: &'static str = "odd";

    type Consumer = OddConsumer;

    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    async fn publish(&self, message: Message) -> Result<Receipt> {
        self.broker.publish(message).await
    }

    async fn consumer(&self, group: GroupSpec, cx: StartContext) -> Result<OddConsumer> {
        let (slow_stop, mute) = ((self.slow_stop)(&group.group), (self.mute)(&group.group));
        Ok(OddConsumer {
            inner: self.broker.consumer(group, cx).await?,
            inbox: Mutex::default(),
            one_by_one: self.one_by_one,
            slow_stop,
            mute,
            stopped: AtomicBool::new(false),
        })
    }
}

impl Consumer for OddConsumer {
    type Lease = MemoryLease;

    fn attempts_limit(&self) -> Option<u32> {
        self.inner.attempts_limit()
    }

    async fn receive(&self, topic: &Topic, room: Room) -> Result<Vec<Leased<MemoryLease>>> {
        if !self.one_by_one {
            return self.inner.receive(topic, room).await;
        }
        if let Some(leased) = self.inbox.lock().unwrap().pop_front() {
            return Ok(vec![leased]);
        }
        if self.stopped.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let received = self.inner.receive(topic, room).await?;
        let mut inbox = self.inbox.lock().unwrap();
        inbox.extend(received);
        Ok(inbox.pop_front().into_iter().collect())
    }

    fn settle(&self, ticket: Ticket, lease: MemoryLease, how: Settlement) {
        if !self.mute {
            self.inner.settle(ticket, lease, how);
        }
    }

    async fn settled(&self) -> Vec<Settled> {
        self.inner.settled().await
    }

    async fn extend(&self, lease: &mut MemoryLease, by: Duration) -> Result<Instant> {
        self.inner.extend(lease, by).await
    }

    async fn stop_receiving(&self) {
        sleep(self.slow_stop).await;
        self.stopped.store(true, Ordering::Release);
        self.inner.stop_receiving().await;
    }

    async fn close(self, by: Instant) -> Result<()> {
        self.inner.close(by).await
    }
}

#[tokio::test(start_paused = true)]
async fn no_limits_are_no_overflow() {
    let broker = Broker::new();
    let of = |tag: &str| {
        subscription()
            .tags([tag])
            .prefetch(usize::MAX)
            .prefetch_bytes(usize::MAX)
    };
    let router = Router::new()
        .subscribe_with(of("a"), || async {})
        .subscribe_with(of("b"), || async {});
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "x").tag("a")).await;
    until("it is done", || broker.backlog("t", "g") == 0).await;
    started.stop(secs(5)).await.unwrap();
}
