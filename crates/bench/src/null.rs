//! A driver that costs next to nothing: its messages are made before they are received, and it
//! confirms settlements by counting them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kratos::StartContext;
use kratos_broker::{
    Delivery, DeliveryParts, Driver, Error, ErrorKind, Message, Receipt, Result, Settlement, Topic,
    driver::{self, Capabilities, GroupSpec, Leased, Room, Settled, Ticket},
};
use tokio::{sync::Notify, time::Instant};

use crate::{BODY, KEYS};

/// Messages of one receive: what RocketMQ gives out at once.
const BATCH: usize = 32;

/// For how long leases last: longer than any round.
const LEASE: Duration = Duration::from_secs(3600);

/// The driver, and the broker behind it. It keeps every message that it gives out, so neither the
/// making nor the freeing of messages is in what an engine costs.
#[derive(Clone, Debug, Default)]
pub struct Null {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    made: Mutex<Vec<Delivery>>,
    batches: Mutex<VecDeque<Vec<Leased<()>>>>,
    filled: Notify,
    stopped: Notify,
}

/// The consumer of the one group.
#[derive(Debug)]
pub struct Consumer {
    inner: Arc<Inner>,
    settled: Mutex<Vec<Settled>>,
    some: Notify,
}

// === impl Null ===

impl Null {
    /// A driver whose rounds have so many messages, keyed or not, with a `traceparent` or without.
    #[must_use]
    pub fn new(messages: usize, keyed: bool, traceparent: Option<&'static str>) -> Self {
        let null = Self::default();
        let topic = Topic::from("orders");
        let made = (0..messages).map(|n| {
            let mut parts = DeliveryParts::new(format!("{n:032}"), &topic, BODY);
            parts.group = keyed.then(|| format!("customer-{:02}", n % KEYS));
            if let Some(traceparent) = traceparent {
                parts.headers.insert("traceparent", traceparent);
            }
            Delivery::from(parts)
        });
        lock(&null.inner.made).extend(made);
        null
    }

    /// Makes a round of messages available.
    pub fn fill(&self) {
        let expires_at = Instant::now() + LEASE;
        let made = lock(&self.inner.made);
        let batches = made.chunks(BATCH).map(|batch| {
            let leased = |delivery: &Delivery| Leased {
                delivery: delivery.clone(),
                lease: (),
                expires_at,
                place: None,
            };
            batch.iter().map(leased).collect()
        });
        lock(&self.inner.batches).extend(batches);
        self.inner.filled.notify_one();
    }
}

impl Inner {
    fn take(&self, most: usize) -> Option<Vec<Leased<()>>> {
        let mut batches = lock(&self.batches);
        let mut batch = batches.pop_front()?;
        if batch.len() > most {
            batches.push_front(batch.split_off(most));
        }
        Some(batch)
    }
}

impl Driver for Null {
    const SYSTEM: &'static str = "null";

    type Consumer = Consumer;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none().ordering(true).dead_letter(true)
    }

    async fn publish(&self, _: Message) -> Result<Receipt> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "the null driver sends nothing",
        ))
    }

    async fn consumer(&self, _: GroupSpec, _: StartContext) -> Result<Consumer> {
        Ok(Consumer {
            inner: self.inner.clone(),
            settled: Mutex::default(),
            some: Notify::new(),
        })
    }
}

// === impl Consumer ===

impl Consumer {
    fn take(&self) -> Option<Vec<Settled>> {
        let mut settled = lock(&self.settled);
        // As many are likely to be next: a vector that grows is nothing of the engine's.
        let next = || Vec::with_capacity(settled.len());
        let next = (!settled.is_empty()).then(next)?;
        Some(std::mem::replace(&mut *settled, next))
    }
}

impl driver::Consumer for Consumer {
    type Lease = ();

    async fn receive(&self, _: &Topic, room: Room) -> Result<Vec<Leased<()>>> {
        loop {
            if let Some(batch) = self.inner.take(room.messages) {
                return Ok(batch);
            }
            tokio::select! {
                () = self.inner.filled.notified() => {}
                () = self.inner.stopped.notified() => {
                    self.inner.stopped.notify_one();
                    return Ok(Vec::new());
                }
            }
        }
    }

    fn settle(&self, ticket: Ticket, (): (), _: Settlement) {
        let mut settled = lock(&self.settled);
        let first = settled.is_empty();
        settled.push(Settled {
            ticket,
            result: Ok(()),
        });
        drop(settled);
        if first {
            self.some.notify_one();
        }
    }

    async fn settled(&self) -> Vec<Settled> {
        loop {
            let settled = self.take();
            if let Some(settled) = settled {
                return settled;
            }
            self.some.notified().await;
        }
    }

    async fn extend(&self, (): &mut (), by: Duration) -> Result<Instant> {
        Ok(Instant::now() + by)
    }

    async fn stop_receiving(&self) {
        self.inner.stopped.notify_one();
    }

    async fn close(self, _: Instant) -> Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
