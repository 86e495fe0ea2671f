//! Topics: a name, a type and queues.

use std::{fmt, str::FromStr, sync::Arc};

use rocketmq_proto::v2::MessageType;

use crate::state::{
    Timestamp,
    facts::{Journal, Key, Value},
    log::{Log, Place},
    message::{Draft, Origin, Stored},
};

/// Which messages a topic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TopicType {
    /// Messages without order or delay.
    Normal,
    /// Messages with a message group, in order within it.
    Fifo,
    /// Messages with a delivery time.
    Delay,
    /// Half messages that a transaction commits.
    Transaction,
    /// Messages with a priority; higher ones come first.
    Priority,
    /// Messages with a lite topic. They can be sent; lite consumers are refused.
    Lite,
    /// All kinds; what a topic gets that nobody declared.
    Mixed,
}

impl TopicType {
    const ALL: [(&'static str, Self); 7] = [
        ("NORMAL", Self::Normal),
        ("FIFO", Self::Fifo),
        ("DELAY", Self::Delay),
        ("TRANSACTION", Self::Transaction),
        ("PRIORITY", Self::Priority),
        ("LITE", Self::Lite),
        ("MIXED", Self::Mixed),
    ];

    /// The message types that a route advertises for this topic.
    pub(crate) fn accepts(self) -> &'static [MessageType] {
        use MessageType::{Delay, Fifo, Lite, Normal, Priority, Transaction};
        match self {
            Self::Normal => &[Normal],
            Self::Fifo => &[Fifo],
            Self::Delay => &[Delay],
            Self::Transaction => &[Transaction],
            Self::Priority => &[Priority],
            Self::Lite => &[Lite],
            Self::Mixed => &[Normal, Fifo, Delay, Transaction],
        }
    }

    /// Whether a message of this type may be sent. A mixed topic takes what its route does not tell,
    /// too.
    pub(crate) fn takes(self, kind: MessageType) -> bool {
        self == Self::Mixed || self.accepts().contains(&kind)
    }
}

impl fmt::Display for TopicType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(_, kind)| kind == self)
            .map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// A topic type that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTopicType(String);

impl fmt::Display for UnknownTopicType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = TopicType::ALL.iter().map(|(name, _)| *name).collect();
        write!(
            f,
            "unknown topic type {:?}: expected one of {}",
            self.0,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownTopicType {}

impl FromStr for TopicType {
    type Err = UnknownTopicType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        known
            .map(|(_, kind)| *kind)
            .ok_or_else(|| UnknownTopicType(text.to_owned()))
    }
}

/// A topic and its messages.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) kind: TopicType,
    pub(crate) queues: Vec<Log>,
    next_queue: usize,
}

impl Topic {
    pub(crate) fn new(name: &str, kind: TopicType, queues: u32) -> Self {
        let queues = (0..queues.max(1)).map(|_| Log::default()).collect();
        Self {
            name: name.into(),
            kind,
            queues,
            next_queue: 0,
        }
    }

    pub(crate) fn journal(&self, journal: &mut Journal) {
        let queues = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        let kind = self.kind;
        journal.set(
            || Key::Topic(Arc::clone(&self.name)),
            || Value::Topic { kind, queues },
        );
    }

    /// Loses all messages.
    pub(crate) fn clear(&mut self, journal: &mut Journal) {
        for (queue, log) in (0..).zip(&mut self.queues) {
            for message in log.iter() {
                journal.end(|| Key::Message(Arc::clone(&self.name), message.place()));
            }
            *log = Log::default();
            journal.set(|| Key::Log(Arc::clone(&self.name), queue), || Value::Log(0));
        }
    }

    pub(crate) fn accepts(&self) -> &'static [MessageType] {
        self.kind.accepts()
    }

    /// As many as the ids on the wire can name.
    pub(crate) fn queue_count(&self) -> i32 {
        i32::try_from(self.queues.len()).unwrap_or(i32::MAX)
    }

    /// The queue of the next message: by hash for an ordered one, by priority, else in turn.
    pub(crate) fn choose_queue(&mut self, draft: &Draft) -> u32 {
        let count = self.queues.len();
        let index = if let Some(group) = &draft.message_group {
            usize::try_from(stable_hash(group) % count as u64).unwrap_or_default()
        } else if self.kind == TopicType::Priority {
            // A queue per priority; those beyond the last share it.
            let priority = draft.priority.unwrap_or_default();
            usize::try_from(priority).unwrap_or_default().min(count - 1)
        } else {
            self.next_queue = (self.next_queue + 1) % count;
            self.next_queue
        };
        u32::try_from(index).unwrap_or_default()
    }

    /// Stores a message.
    pub(crate) fn append(
        &mut self,
        draft: Draft,
        queue: u32,
        now: Timestamp,
        dead_letter_of: Option<Origin>,
    ) -> Arc<Stored> {
        let index = (queue as usize).min(self.queues.len() - 1);
        let log = &mut self.queues[index];
        let offset = log.end();
        let stored = Stored::new(draft, queue, offset, now);
        let stored = Arc::new(stored.with_origin(dead_letter_of));
        log.push(Arc::clone(&stored));
        stored
    }

    /// The order in which queues are looked at when it is the turn of `first`.
    pub(crate) fn order(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let (count, priority) = (self.queues.len(), self.kind == TopicType::Priority);
        (0..count).map(move |turn| {
            if priority {
                count - 1 - turn
            } else {
                (first + turn) % count
            }
        })
    }

    pub(crate) fn at(&self, place: Place) -> Option<&Arc<Stored>> {
        self.queues.get(place.queue as usize)?.at(place.offset)
    }
}

/// FNV-1a: the same queue for the same group in every run.
fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
