//! The broker's state machine: no I/O, no clock. Time is an argument of every operation, and
//! [`State::next_event`] tells when something happens by itself.
//!
//! One file per operation: [`send`], [`transaction`], [`receive`], [`settle`], [`delay`],
//! [`clients`]. What they work
//! on: [`topic`]s with a [`log`] per queue, [`group`]s, and a [`cursor`] per topic and group.

mod clients;
mod cursor;
mod delay;
#[cfg_attr(
    not(feature = "persist"),
    allow(dead_code, reason = "facts are left, and nobody keeps them")
)]
mod facts;
mod faults;
mod filter;
mod group;
mod handle;
mod inspect;
mod limits;
mod lite;
mod log;
mod message;
mod receive;
mod refusal;
#[cfg(feature = "persist")]
mod restore;
mod retention;
mod send;
mod settle;
#[cfg(test)]
mod tests;
mod time;
mod timers;
mod topic;
mod transaction;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

#[cfg(test)]
pub(crate) use self::inspect::Census;
use self::{
    clients::Clients,
    cursor::{Cursors, Lapsed, Mode},
    delay::Delayed,
    facts::{Journal, Key, Value},
    timers::{Event, Timers},
    topic::Topic,
    transaction::Transactions,
};
pub use self::{
    clients::Subscription,
    faults::Rpc,
    group::{Backoff, DEFAULT_RETRY_MAX_TIMES, GroupConfig, dead_letter_topic},
    inspect::{
        ConnectedClient, DelayedMessage, HalfMessage, InFlight, QueueLag, QueueOffsets,
        StoredMessage,
    },
    time::Timestamp,
    topic::{TopicType, UnknownTopicType},
};
pub(crate) use self::{
    clients::{Push, Role, Signer, Terms},
    cursor::CursorId,
    facts::Fact,
    faults::{Faults, Strike},
    limits::{Limits, MAX_BATCH, MAX_LITE_TOPIC_BYTES},
    lite::sync_lite,
    log::Place,
    message::{Delivered, Draft, MESSAGE_GROUP, Stored},
    receive::{Answer, Ask, Poll},
    refusal::Refusal,
    send::Sent,
    settle::check_acks,
    transaction::{CheckTimes, End},
};
#[cfg(feature = "persist")]
pub(crate) use self::{
    facts::{Key as FactKey, Position, Taken, Value as FactValue},
    message::Origin,
};

/// Queues of a topic that does not say how many.
pub(crate) const DEFAULT_QUEUES: u32 = 4;

/// Topics, and groups, that are created as they are used: a client that invents names does not
/// fill the memory.
const MAX_NAMES: usize = 10_000;

/// Everything the broker knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Unknown topics and groups are refused rather than created.
    strict: bool,
    pub(crate) limits: Limits,
    topics: HashMap<Arc<str>, Topic>,
    groups: HashMap<Arc<str>, GroupConfig>,
    cursors: Cursors,
    timers: Timers,
    delayed: Delayed,
    transactions: Transactions,
    clients: Clients,
    pub(crate) faults: Faults,
    /// Topics on which a waiting receive should look again.
    ready: BTreeSet<Arc<str>>,
    stored_bytes: usize,
    batches: u64,
    journal: Journal,
}

impl State {
    pub(crate) fn new(strict: bool, limits: Limits) -> Self {
        Self {
            strict,
            limits,
            ..Self::default()
        }
    }

    /// Creates a topic, or changes the type of one.
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        kind: TopicType,
        queues: u32,
    ) -> Result<(), Refusal> {
        limits::check_topic(name)?;
        if let Some(topic) = self.topics.get_mut(name) {
            topic.kind = kind;
            topic.journal(&mut self.journal);
            return Ok(());
        }
        self.add_topic(name, kind, queues);
        Ok(())
    }

    fn add_topic(&mut self, name: &str, kind: TopicType, queues: u32) {
        let topic = Topic::new(name, kind, queues);
        topic.journal(&mut self.journal);
        self.topics.insert(Arc::clone(&topic.name), topic);
    }

    /// Creates a group, or changes the retry policy of one.
    pub(crate) fn create_group(&mut self, name: &str, config: GroupConfig) -> Result<(), Refusal> {
        limits::check_new_group(name)?;
        let name: Arc<str> = name.into();
        self.journal.set(
            || Key::Group(Arc::clone(&name)),
            || Value::Group(config.clone()),
        );
        self.groups.insert(name, config);
        Ok(())
    }

    /// A route: the topic, created with type MIXED if it is unknown and the broker is not strict.
    pub(crate) fn open_topic(&mut self, name: &str) -> Result<&Topic, Refusal> {
        limits::check_topic(name)?;
        if !self.topics.contains_key(name) {
            if self.strict || self.topics.len() >= MAX_NAMES {
                return Err(Refusal::topic_not_found(name));
            }
            self.create_topic(name, TopicType::Mixed, DEFAULT_QUEUES)?;
        }
        self.topics
            .get(name)
            .ok_or_else(|| Refusal::topic_not_found(name))
    }

    /// The group, created with the default settings if it is unknown and the broker not strict.
    pub(crate) fn open_group(&mut self, name: &str) -> Result<(Arc<str>, &GroupConfig), Refusal> {
        if !self.groups.contains_key(name) {
            if self.strict || self.groups.len() >= MAX_NAMES {
                return Err(Refusal::group_not_found(name));
            }
            self.create_group(name, GroupConfig::new())?;
        }
        let found = self.groups.get_key_value(name);
        let (name, config) = found.ok_or_else(|| Refusal::group_not_found(name))?;
        Ok((Arc::clone(name), config))
    }

    /// The queues that a consumer of the group polls: one for all, or each one of an ordered
    /// group.
    pub(crate) fn assignments(&mut self, topic: &str, group: &str) -> Result<Vec<i32>, Refusal> {
        let queues = self.open_topic(topic)?.queues.len();
        limits::check_group(group)?;
        let fifo = self.groups.get(group).is_some_and(|config| config.fifo);
        let all = (0..queues).filter_map(|queue| i32::try_from(queue).ok());
        Ok(if fifo {
            all.collect()
        } else {
            vec![ALL_QUEUES]
        })
    }

    fn open_cursor(&mut self, topic: &Arc<str>, group: &Arc<str>) {
        let fifo = self.groups.get(group).is_some_and(|config| config.fifo);
        if let Some(topic) = self.topics.get(topic) {
            self.cursors.open(topic, group, fifo);
        }
    }

    /// Loses all that is stored and all that was done with it; names and clients stay.
    pub(crate) fn lose_messages(&mut self) {
        for topic in self.topics.values_mut() {
            topic.clear(&mut self.journal);
        }
        self.cursors.clear(&mut self.journal);
        self.delayed.clear(&mut self.journal);
        self.transactions.clear(&mut self.journal);
        self.timers.clear();
        self.stored_bytes = 0;
    }

    /// Lets everything happen that is due at `now`.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        while let Some(event) = self.timers.pop_due(now) {
            match event {
                Event::Lapse(cursor, place) => self.lapse(now, cursor, place),
                Event::Unblock(cursor, queue) => self.unblock(now, cursor, queue),
                Event::Deliver(id) => self.deliver_delayed(now, id),
                Event::Check(id) => self.check_half(now, id),
            }
        }
    }

    /// When [`State::advance`] has something to do next.
    pub(crate) fn next_event(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// Topics that have something new for consumers since the last call.
    pub(crate) fn take_ready(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.ready)
    }

    /// Commands for clients since the last call, oldest first.
    pub(crate) fn take_pushes(&mut self) -> Vec<(Arc<str>, Push)> {
        self.clients.take_pushes()
    }

    fn lapse(&mut self, now: Timestamp, id: CursorId, place: Place) {
        let Some(cursor) = self.cursors.get_mut(id) else {
            return;
        };
        let Mode::Concurrent(mode) = &mut cursor.mode else {
            return;
        };
        let config = self.groups.get(&cursor.group);
        let max_attempts = config.map_or(1, GroupConfig::max_attempts);
        let connected = |client: &str| self.clients.is_connected(client);
        match mode.lapse(now, place, max_attempts, connected, &mut self.timers) {
            Lapsed::Nothing => {}
            Lapsed::Ready => {
                self.ready.insert(Arc::clone(&cursor.topic));
            }
            Lapsed::Exhausted(place, attempts) => {
                let group = Arc::clone(&cursor.group);
                let message = self
                    .topics
                    .get(&cursor.topic)
                    .and_then(|topic| topic.at(place));
                if let Some(message) = message.map(Arc::clone) {
                    // The real server counts the last attempt, and the move.
                    self.bury(now, &message, &group, attempts + 1);
                }
            }
        }
    }

    fn unblock(&mut self, now: Timestamp, id: CursorId, queue: u32) {
        let Some(cursor) = self.cursors.get_mut(id) else {
            return;
        };
        let Mode::Ordered(mode) = &mut cursor.mode else {
            return;
        };
        let connected = |client: &str| self.clients.is_connected(client);
        if mode.unblock(now, queue, connected, &mut self.timers) {
            self.ready.insert(Arc::clone(&cursor.topic));
        }
    }
}

/// The queue id that stands for all queues of a broker.
const ALL_QUEUES: i32 = -1;
