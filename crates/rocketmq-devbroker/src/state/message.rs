//! A message on its way in (`Draft`), at rest (`Stored`), and on its way out (`Delivered`).

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use md5::{Digest as _, Md5};
use rocketmq_proto::v2::{Encoding, MessageType};

use crate::state::{Timestamp, limits::Limits, log::Place, refusal::Refusal};

/// What a producer sent.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) topic: String,
    pub(crate) id: String,
    pub(crate) tag: Option<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    pub(crate) encoding: Encoding,
    /// The type that the producer wrote; what counts is [`Draft::kind`].
    pub(crate) declared: MessageType,
    pub(crate) born_at: Timestamp,
    pub(crate) born_host: String,
    pub(crate) message_group: Option<String>,
    pub(crate) deliver_at: Option<Timestamp>,
    pub(crate) trace_context: Option<String>,
    pub(crate) priority: Option<i32>,
    pub(crate) lite_topic: Option<String>,
    /// Before the first check of a transaction; negative stands for the server's own time.
    pub(crate) recovery_seconds: Option<i64>,
}

/// A message in a queue.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) draft: Draft,
    pub(crate) kind: MessageType,
    /// Upper-case hex of the MD5 of the body as it was sent.
    pub(crate) md5: String,
    pub(crate) queue: u32,
    pub(crate) offset: u64,
    pub(crate) stored_at: Timestamp,
    /// The message that was given up, if this is a dead letter.
    pub(crate) dead_letter_of: Option<Origin>,
}

/// The message that a dead letter was.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) topic: String,
    pub(crate) id: String,
    /// Attempts that are spent: a dead letter goes on from there.
    pub(crate) spent: u32,
}

/// A message handed to a consumer.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) message: Arc<Stored>,
    pub(crate) handle: String,
    /// 1 for the first delivery.
    pub(crate) attempt: u32,
}

impl Draft {
    /// The type that the server sees: what the message carries, whatever the producer wrote.
    pub(crate) fn kind(&self) -> MessageType {
        if self.declared == MessageType::Transaction {
            MessageType::Transaction
        } else if self.deliver_at.is_some() {
            MessageType::Delay
        } else if self.message_group.is_some() || self.properties.contains_key(MESSAGE_GROUP) {
            MessageType::Fifo
        } else if self.lite_topic.is_some() {
            MessageType::Lite
        } else if self.priority.is_some() {
            MessageType::Priority
        } else {
            MessageType::Normal
        }
    }

    /// What the real server makes of a message when it stores it: keys are separated by blanks,
    /// and a property has a name and a value.
    fn into_stored(mut self) -> Self {
        let keys = self.keys.iter().flat_map(|key| key.split(' '));
        self.keys = keys
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect();
        self.properties
            .retain(|name, value| !name.is_empty() && !value.is_empty());
        self
    }

    /// Bytes that the message holds in memory, near enough for a limit.
    pub(crate) fn size(&self) -> usize {
        let properties: usize = self.properties.iter().map(|(k, v)| k.len() + v.len()).sum();
        let keys: usize = self.keys.iter().map(String::len).sum();
        // Those that have no limit of their own.
        let trace_context = self.trace_context.as_ref().map_or(0, String::len);
        let texts = self.id.len() + self.born_host.len() + trace_context;
        self.body.len() + properties + keys + texts + OVERHEAD_BYTES
    }

    pub(crate) fn check(&self, limits: &Limits, now: Timestamp) -> Result<(), Refusal> {
        limits.check_draft(self, now)
    }
}

/// The property in which the real server keeps the message group.
pub(crate) const MESSAGE_GROUP: &str = "__SHARDINGKEY";

/// What a message costs besides its body and its longer texts.
const OVERHEAD_BYTES: usize = 512;

impl Stored {
    pub(crate) fn place(&self) -> Place {
        Place {
            queue: self.queue,
            offset: self.offset,
        }
    }

    pub(crate) fn new(draft: Draft, queue: u32, offset: u64, now: Timestamp) -> Self {
        let draft = draft.into_stored();
        Self {
            kind: draft.kind(),
            md5: md5_hex(&draft.body),
            draft,
            queue,
            offset,
            stored_at: now,
            dead_letter_of: None,
        }
    }

    pub(crate) fn is_dead_letter(&self) -> bool {
        self.dead_letter_of.is_some()
    }

    /// Attempts that were spent before the message came to this topic.
    pub(crate) fn spent(&self) -> u32 {
        self.dead_letter_of
            .as_ref()
            .map_or(0, |origin| origin.spent)
    }

    /// The same message as one that was given up: of type DELAY, as the real server moves it.
    pub(crate) fn with_origin(self, origin: Option<Origin>) -> Self {
        Self {
            kind: origin.as_ref().map_or(self.kind, |_| MessageType::Delay),
            dead_letter_of: origin,
            ..self
        }
    }

    /// The draft of a dead letter: the same message under another topic.
    pub(crate) fn dead_letter(&self, topic: &str) -> Draft {
        Draft {
            topic: topic.to_owned(),
            declared: MessageType::Normal,
            ..self.draft.clone()
        }
    }
}

fn md5_hex(body: &[u8]) -> String {
    use std::fmt::Write as _;

    Md5::digest(body)
        .iter()
        .fold(String::with_capacity(32), |mut hex, byte| {
            let _ = write!(hex, "{byte:02X}");
            hex
        })
}
