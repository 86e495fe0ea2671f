//! How far a group has come.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::json;

/// A queue of a topic on a broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Queue {
    /// Topic.
    pub topic: String,
    /// Name of the broker.
    pub broker: String,
    /// Number on that broker.
    pub id: u32,
}

/// How far a group has come in its topics, with those that hold its retries.
///
/// For a consumer over gRPC (or POP) the servers count differently by kind of group:
///
/// * without order, a message counts as consumed **once it was handed out**: what a consumer holds is
///   neither lag nor to be seen anywhere. When its lease lapses or it is handed back, it becomes lag
///   of the topic `%RETRY%<group>_<topic>`, which is listed here as well.
/// * with order, it counts as consumed once it and all before it were **acknowledged**: what a
///   consumer holds is lag.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// Every queue, by topic, broker and number.
    pub queues: Vec<QueueLag>,
}

/// How far a group has come in one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLag {
    /// Which queue.
    pub queue: Queue,
    /// Offset that the next message to be stored will have.
    pub broker_offset: u64,
    /// Offset of the next message for the group: see [`Lag`] for what counts.
    pub consumer_offset: u64,
    /// When the last message before that was stored; none if there is none.
    pub consumed_until: Option<SystemTime>,
}

/// Offsets by queue, on the wire.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: Deserialize<'de>")]
pub(crate) struct OffsetTable<T> {
    #[serde(default = "BTreeMap::new")]
    pub(crate) offset_table: BTreeMap<Queue, T>,
}

/// Minus one stands for "unknown" in places, so everything is signed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireLag {
    broker_offset: i64,
    consumer_offset: i64,
    #[serde(default)]
    last_timestamp: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireStats {
    pub(crate) min_offset: i64,
    pub(crate) max_offset: i64,
    #[serde(default)]
    pub(crate) last_update_timestamp: i64,
}

// === impl Lag ===

impl Lag {
    /// Messages that were stored and not consumed, of all queues.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.queues.iter().map(QueueLag::lag).sum()
    }

    /// The same by topic; a topic that holds retries has a line of its own.
    #[must_use]
    pub fn by_topic(&self) -> BTreeMap<&str, u64> {
        let mut topics = BTreeMap::new();
        for it in &self.queues {
            *topics.entry(it.queue.topic.as_str()).or_default() += it.lag();
        }
        topics
    }
}

impl QueueLag {
    /// Messages that were stored and not consumed.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.broker_offset.saturating_sub(self.consumer_offset)
    }

    pub(crate) fn new(queue: Queue, wire: &WireLag) -> Self {
        Self {
            queue,
            broker_offset: offset(wire.broker_offset),
            consumer_offset: offset(wire.consumer_offset),
            consumed_until: time(wire.last_timestamp),
        }
    }
}

// === impl Queue ===

impl<'de> Deserialize<'de> for Queue {
    /// From the key of a map, which was an object: see the module `json`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Key {
            topic: String,
            broker_name: String,
            queue_id: u32,
        }
        let text = String::deserialize(deserializer)?;
        let key: Key = json::from_str(&text).map_err(D::Error::custom)?;
        Ok(Self {
            topic: key.topic,
            broker: key.broker_name,
            id: key.queue_id,
        })
    }
}

pub(crate) fn offset(wire: i64) -> u64 {
    u64::try_from(wire).unwrap_or(0)
}

pub(crate) fn time(millis: i64) -> Option<SystemTime> {
    let millis = u64::try_from(millis).ok().filter(|it| *it > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}
