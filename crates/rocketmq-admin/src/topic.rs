//! Topics: what to create, and what is there.

mod spec;

use std::{collections::BTreeMap, fmt, time::SystemTime};

use serde::Deserialize;

use crate::{cluster::Route, lag::Queue};

pub use self::spec::TopicSpec;

pub(crate) const MESSAGE_TYPE: &str = "message.type";

/// What kind of messages a topic takes; a producer that sends another kind is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageType {
    /// Messages without order.
    Normal,
    /// Ordered within a message group.
    Fifo,
    /// Delivered after a delay or at a time.
    Delay,
    /// Visible once their transaction was committed.
    Transaction,
    /// Any of the four above; only where `enableMixedMessageType` is on, which it is not by default.
    Mixed,
    /// Delivered by priority, 5.5 and newer.
    Priority,
    /// A topic of many small ones, 5.5 and newer.
    Lite,
}

/// A topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Queues for consumers, on each broker.
    pub read_queues: u32,
    /// Queues for producers, on each broker.
    pub write_queues: u32,
    /// 4 for reading and 2 for writing, added; brokers' own topics have 1 besides.
    pub permissions: u32,
    /// Attributes, such as `message.type`.
    pub attributes: BTreeMap<String, String>,
    /// Brokers that hold the topic, in order.
    pub brokers: Vec<String>,
    /// Those of them where it is set up otherwise than on the first.
    pub different_at: Vec<String>,
}

/// A topic with its route and its queues.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicDetail {
    /// How it is set up.
    pub topic: Topic,
    /// Where the name server sends clients.
    pub route: Route,
    /// Every queue on every master broker, by broker and number.
    pub queues: Vec<QueueStats>,
}

/// What a queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Which queue.
    pub queue: Queue,
    /// Offset of the oldest message that is kept.
    pub min_offset: u64,
    /// Offset that the next message will have.
    pub max_offset: u64,
    /// When the last message was stored; none if none is kept.
    pub updated_at: Option<SystemTime>,
}

/// A topic's settings on one broker, on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireTopic {
    #[serde(default)]
    topic_name: String,
    #[serde(default)]
    read_queue_nums: u32,
    #[serde(default)]
    write_queue_nums: u32,
    #[serde(default)]
    perm: u32,
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
}

// === impl MessageType ===

impl MessageType {
    pub(crate) const ALL: [Self; 7] = [
        Self::Normal,
        Self::Fifo,
        Self::Delay,
        Self::Transaction,
        Self::Mixed,
        Self::Priority,
        Self::Lite,
    ];

    /// The server's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Fifo => "FIFO",
            Self::Delay => "DELAY",
            Self::Transaction => "TRANSACTION",
            Self::Mixed => "MIXED",
            Self::Priority => "PRIORITY",
            Self::Lite => "LITE",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let named = |it: &Self| it.as_str().eq_ignore_ascii_case(word);
        Self::ALL.into_iter().find(named)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Topic ===

impl Topic {
    /// Kind of messages that it takes; a topic that says nothing takes `Normal` ones.
    ///
    /// None if the server has a kind that this crate does not know: see `attributes`.
    #[must_use]
    pub fn message_type(&self) -> Option<MessageType> {
        match self.attributes.get(MESSAGE_TYPE) {
            Some(word) => MessageType::from_word(word),
            None => Some(MessageType::Normal),
        }
    }

    /// True for a topic that holds what a group failed to handle or gave up.
    #[must_use]
    pub fn is_of_group(&self) -> bool {
        self.name.starts_with("%RETRY%") || self.name.starts_with("%DLQ%")
    }

    /// True for a topic that the brokers use for themselves.
    #[must_use]
    pub fn is_system(&self) -> bool {
        const NAMES: [&str; 5] = [
            "TBW102",
            "SCHEDULE_TOPIC_XXXX",
            "SELF_TEST_TOPIC",
            "OFFSET_MOVED_EVENT",
            "BenchmarkTest",
        ];
        let own = |name: &str| name.starts_with("rmq_sys_") || name.starts_with("RMQ_SYS_");
        own(&self.name)
            || NAMES.contains(&self.name.as_str())
            || self.name.ends_with("_REPLY_TOPIC")
            // Every broker and every cluster has one of its name, which nothing can be said by.
            || self.permissions & 1 != 0
    }

    pub(crate) fn new(name: String, broker: String, wire: WireTopic) -> Self {
        Self {
            name,
            read_queues: wire.read_queue_nums,
            write_queues: wire.write_queue_nums,
            permissions: wire.perm,
            attributes: wire.attributes.unwrap_or_default(),
            brokers: vec![broker],
            different_at: Vec::new(),
        }
    }
}
