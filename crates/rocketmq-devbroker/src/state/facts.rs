//! What outlives the process: facts that operations leave behind, and the state made of them again.
//!
//! A fact is the present value of one key; a later one of the same key replaces it. The facts of
//! one operation belong together. Leases, clients and faults are not among them: what was in flight
//! waits for its next attempt when the state comes back.

use std::sync::Arc;

use crate::state::{
    State, Timestamp,
    cursor::CursorId,
    group::GroupConfig,
    log::Place,
    message::{Draft, Stored},
    topic::TopicType,
};

/// What a fact is about. In the order of the variants facts can be restored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Topic(Arc<str>),
    Group(Arc<str>),
    /// A queue of a topic.
    Log(Arc<str>, u32),
    Message(Arc<str>, Place),
    Delayed(u64),
    /// A half message whose transaction has not ended.
    Half(u64),
    Cursor(CursorId),
    /// A cursor on one queue.
    Position(CursorId, u32),
    /// A message that was handed out and is not settled.
    Delivery(CursorId, Place),
}

/// What it is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Topic {
        kind: TopicType,
        queues: u32,
    },
    Group(GroupConfig),
    /// The first offset that is kept.
    Log(u64),
    Message(Arc<Stored>),
    Delayed(Box<Draft>, Timestamp),
    Half {
        draft: Box<Draft>,
        prepared_at: Timestamp,
        checks: u32,
    },
    Cursor {
        topic: Arc<str>,
        group: Arc<str>,
        fifo: bool,
    },
    Position(Position),
    /// Deliveries so far.
    Delivery(u32),
}

/// How far a group is in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The next offset to deliver for the first time; for an ordered group the first one that is
    /// not settled.
    pub(crate) next: u64,
    /// The batch that an ordered group has taken.
    pub(crate) batch: Vec<Taken>,
}

/// A message of an ordered group's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) offset: u64,
    pub(crate) acked: bool,
    pub(crate) delivered: u32,
}

/// The value of a key from now on, or its end.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) key: Key,
    pub(crate) value: Option<Value>,
}

/// Facts since they were last taken; none are kept while nobody wants them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(super) wanted: bool,
    facts: Vec<Fact>,
}

impl Journal {
    /// The key has this value from now on.
    pub(crate) fn set(&mut self, key: impl FnOnce() -> Key, value: impl FnOnce() -> Value) {
        if self.wanted {
            let (key, value) = (key(), Some(value()));
            self.facts.push(Fact { key, value });
        }
    }

    /// The key is no more.
    pub(crate) fn end(&mut self, key: impl FnOnce() -> Key) {
        if self.wanted {
            let (key, value) = (key(), None);
            self.facts.push(Fact { key, value });
        }
    }
}

impl State {
    /// Takes the facts that are new since the last call: none, unless the state was restored.
    pub(crate) fn take_facts(&mut self) -> Vec<Fact> {
        self.cursors.journal(&mut self.journal);
        std::mem::take(&mut self.journal.facts)
    }
}
