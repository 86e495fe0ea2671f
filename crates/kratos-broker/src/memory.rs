//! A broker in memory: for tests of applications, and the reference of what a driver does.
//!
//! It has topics (created by their first use), groups, tags, message groups kept in order, delay,
//! visibility timeouts, attempts, dead letters and long polls, on tokio's clock: with a paused
//! clock a test of back-off takes no time. Faults can be injected.
//!
//! The dead letters of a group are in a topic, too: [`dead_letter_topic`].
//!
//! ```
//! use kratos_broker::{Message, Publisher, memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), kratos_broker::Error> {
//! let broker = memory::Broker::new();
//! let receipt = Publisher::new(broker.clone()).publish(Message::new("orders", "paid")).await?;
//! assert!(broker.dead_letters("billing").is_empty());
//! # let _ = receipt;
//! # Ok(())
//! # }
//! ```

mod consumer;
mod faults;
mod queue;
mod store;
mod units;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kratos::StartContext;
use tokio::sync::Notify;

use self::{faults::Faults, store::Store};
use crate::{
    Delivery, Error, ErrorKind, Group, Message, RecallHandle, Receipt, Replay, Result, Topic,
    driver::{Capabilities, Driver, GroupSpec, Tap},
};

pub use self::consumer::{MemoryConsumer, MemoryLease};

/// How long nothing may come before dead letters count as read: nothing is late here.
const IDLE: Duration = Duration::from_secs(1);

/// The topic of a group's dead letters: `dead-letters.<group>`.
#[must_use]
pub fn dead_letter_topic(group: &str) -> Topic {
    format!("dead-letters.{group}").into()
}

/// A broker in memory; clones are the same broker.
///
/// A group that is new to a topic starts at the oldest message that the topic retains (the newest
/// 10,000).
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    capabilities: Capabilities,
    tap: Tap,
    #[cfg(feature = "asyncapi")]
    outlets: crate::asyncapi::Outlets,
    #[cfg(feature = "test-util")]
    journal: crate::testing::Journal,
}

struct Shared {
    state: Mutex<State>,
    /// Anything that may end somebody's wait.
    changed: Notify,
}

#[derive(Default)]
struct State {
    store: Store,
    faults: Faults,
}

// === impl Broker ===

impl Broker {
    /// An empty broker.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            changed: Notify::new(),
        };
        let capabilities = Capabilities::none()
            .ordering(true)
            .delay(true)
            .recall(true)
            .broadcast(true)
            .dead_letter(true)
            .tag_filter(true);
        Self {
            shared: Arc::new(shared),
            capabilities,
            tap: Tap::default(),
            #[cfg(feature = "asyncapi")]
            outlets: crate::asyncapi::Outlets::default(),
            #[cfg(feature = "test-util")]
            journal: crate::testing::Journal::new(),
        }
    }

    /// Sets after how many attempts the broker itself dead-letters a message: 17 by default.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.lock().store.max_attempts = attempts.max(1);
        self
    }

    /// Makes a message that is handed back spend an attempt, as RocketMQ does.
    #[must_use]
    pub fn hand_back_spends_attempt(mut self) -> Self {
        self.lock().store.hand_back_spends_attempt = true;
        self.capabilities = self.capabilities.hand_back_spends_attempt(true);
        self
    }

    /// Makes what groups that consume in order ([`fifo`](crate::Subscription::fifo)) receive batches
    /// of partitions, each one unit, as RocketMQ does; topics have `partitions`, at least 1. For
    /// groups and topics that are used afterwards.
    #[must_use]
    pub fn batches_are_units(self, partitions: usize) -> Self {
        self.lock().store.unit_partitions = partitions.max(1);
        self
    }

    /// Takes abilities away, to see what a broker without them refuses.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Lets a [`TestApp`](crate::testing::TestApp) see what goes through this handle and its clones.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.tap = Tap::from(self.journal.clone());
        self
    }

    /// The dead letters of a group, oldest first, as they were at their last attempt.
    #[must_use]
    pub fn dead_letters(&self, group: &str) -> Vec<Delivery> {
        self.lock().store.dead_letters(group)
    }

    /// How many messages of a topic a group has not acknowledged: waiting, held or delayed.
    #[must_use]
    pub fn backlog(&self, topic: &str, group: &str) -> usize {
        self.lock().store.backlog(topic, group)
    }

    /// How many messages of a topic a group has received and not settled.
    #[must_use]
    pub fn held(&self, topic: &str, group: &str) -> usize {
        self.lock().store.held(topic, group)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

impl Driver for Broker {
    const SYSTEM: &'static str = "memory";

    type Consumer = MemoryConsumer;

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    #[cfg(feature = "asyncapi")]
    fn outlets(&self) -> Option<&crate::asyncapi::Outlets> {
        Some(&self.outlets)
    }

    async fn publish(&self, message: Message) -> Result<Receipt> {
        self.capabilities.check_message(Self::SYSTEM, &message)?;
        let topic = message.is_delayed().then(|| message.topic().clone());
        let sending = self.tap.sending(&message);
        let id = {
            let mut state = self.lock();
            state.faults.publish()?;
            state.store.publish(message.into_parts())
        };
        self.shared.changed.notify_waiters();
        let receipt = Receipt::new(id.clone());
        let receipt = match topic {
            Some(topic) => receipt.recallable(RecallHandle::new(topic, id.as_str())),
            None => receipt,
        };
        sending.sent(&receipt);
        Ok(receipt)
    }

    async fn recall(&self, handle: &RecallHandle) -> Result<()> {
        if !self.capabilities.can_recall() {
            return Err(Error::unsupported("this broker cannot recall messages"));
        }
        let mut state = self.lock();
        state.faults.connected()?;
        if state.store.recall(handle.topic(), handle.token()) {
            self.tap.recalled(handle);
            return Ok(());
        }
        let what = format!(
            "topic {}: no such message waits for its time",
            handle.topic()
        );
        Err(Error::new(ErrorKind::Other, what))
    }

    fn replay(&self, group: &Group, topic: Option<&Topic>) -> Option<Replay> {
        let (from, reader) = match topic {
            Some(topic) => (topic.clone(), format!("{topic}-replay")),
            None => (dead_letter_topic(group), format!("{group}-replay")),
        };
        Some(Replay::new(from, reader).idle(IDLE))
    }

    async fn consumer(&self, mut group: GroupSpec, _cx: StartContext) -> Result<MemoryConsumer> {
        self.capabilities.check_group(Self::SYSTEM, &group)?;
        self.lock().faults.connected()?;
        let member = self.tap.member(&group);
        group.group = self.lock().store.join(&group)?;
        Ok(MemoryConsumer::new(self.shared.clone(), group, member))
    }
}

#[cfg(feature = "test-util")]
impl crate::testing::Watched for Broker {
    fn journal(&self) -> crate::testing::Journal {
        self.journal.clone()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
