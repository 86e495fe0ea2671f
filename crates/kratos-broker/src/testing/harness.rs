//! What a driver's tests supply.

use std::time::Duration;

use crate::{Delivery, Driver, Group, Resolution, Topic};

/// What the kit needs to know about a broker to test its driver.
pub trait Harness: Send + Sync + 'static {
    /// The driver under test.
    type Driver: Driver;

    /// A driver of its own (its own connections) on the broker.
    fn driver(&self) -> impl Future<Output = Self::Driver> + Send;

    /// Creates a topic that nobody used before. `hint` may become a part of its name.
    fn topic(&self, hint: &str) -> impl Future<Output = Topic> + Send;

    /// Creates a topic of a kind, where topics have kinds; `None` if this broker has not got that
    /// one, and the laws about it are not tried here.
    fn special_topic(
        &self,
        kind: TopicKind,
        hint: &str,
    ) -> impl Future<Output = Option<Topic>> + Send {
        let _ = kind;
        async { Some(self.topic(hint).await) }
    }

    /// Creates a group that nobody used before. The broker gives a message at least 4 attempts.
    fn group(&self, hint: &str) -> impl Future<Output = Group> + Send;

    /// Creates a group that consumes in order.
    fn ordered_group(&self, hint: &str) -> impl Future<Output = Group> + Send {
        self.group(hint)
    }

    /// A driver that answers `answer` when the broker asks about transactions of `topic`.
    fn checking_driver(
        &self,
        topic: &Topic,
        answer: Resolution,
    ) -> impl Future<Output = Self::Driver> + Send {
        let _ = (topic, answer);
        self.driver()
    }

    /// Whether transactions may be tried here.
    fn transactions(&self) -> bool {
        true
    }

    /// The topic of a group's dead letters, if they are in one.
    fn dead_letter_topic(&self, group: &Group) -> Option<Topic> {
        let _ = group;
        None
    }

    /// The dead letters of a group.
    fn dead_letters(&self, group: &Group) -> impl Future<Output = Vec<Delivery>> + Send;

    /// Takes the broker away: connections are cut, nothing answers until
    /// [`restart_broker`](Harness::restart_broker). Answers whether that can be done here; if not,
    /// the laws about outages are not tried. Asked only by laws, on a harness of their own.
    fn stop_broker(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }

    /// Brings the broker back, with everything it had.
    fn restart_broker(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The shortest invisible duration that the broker takes and the machine can keep.
    fn invisible(&self) -> Duration;

    /// How long things may take on this broker.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }
}

/// What a topic is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicKind {
    /// Message groups in order.
    Ordered,
    /// Messages that come later.
    Delayed,
    /// Messages with priorities.
    Prioritised,
    /// Messages of transactions.
    Transactional,
}

/// How long things may take on a broker: upper bounds of the laws' waits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From a publish to the handler, for the largest law (5,000 messages).
    pub deliver: Duration,
    /// By how much a redelivery may be later than asked for.
    pub redelivery_late: Duration,
    /// For how long a first receive must be under way until the broker counts from there.
    pub prime: Duration,
    /// An idle server stops within this.
    pub idle_stop: Duration,
    /// How many messages each of 64 message groups gets in the laws of order.
    pub per_group: usize,
    /// How many messages go through a restart, or through publishers that end; half of that where a
    /// subscriber comes and goes.
    pub many: usize,
    /// How large a backlog is in the law of bounded memory.
    pub backlog: usize,
    /// How often a server is stopped under load.
    pub stops: usize,
}

impl Default for Bounds {
    /// Right for a broker on this machine that revives messages up to 4 s late.
    fn default() -> Self {
        Self {
            deliver: Duration::from_secs(60),
            redelivery_late: Duration::from_secs(6),
            prime: Duration::from_secs(3),
            idle_stop: Duration::from_secs(1),
            per_group: 1_000,
            many: 10_000,
            backlog: 100_000,
            stops: 50,
        }
    }
}
