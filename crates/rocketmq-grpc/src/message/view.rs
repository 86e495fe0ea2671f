//! A message as it was received.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rocketmq_proto::v2 as pb;

use crate::convert;

/// What the server adds to the properties of messages with a message group, and of those that were in
/// a transaction.
const SERVERS_OWN: [&str; 3] = [
    "__SHARDINGKEY",
    "__transactionId__",
    "TRANSACTION_CHECK_TIMES",
];

/// A received message: what its sender wrote, and what the server knows of it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MessageView {
    /// Chosen by the sender; the same for every delivery of the message.
    pub id: String,
    /// Topic that it was received from.
    pub topic: Arc<str>,
    /// Body, decompressed, its digest checked.
    pub body: Bytes,
    /// Properties that the sender set.
    pub properties: HashMap<String, String>,
    /// Tag that the sender set.
    pub tag: Option<String>,
    /// Keys that the sender set.
    pub keys: Vec<String>,
    /// Message group within which messages are ordered, on FIFO topics.
    pub group: Option<String>,
    /// Number of this delivery, from 1.
    pub attempt: u32,
    /// When the sender made it, if the sender says so.
    pub born_at: Option<SystemTime>,
    /// Host that sent it.
    pub born_host: String,
    /// When the broker stored it.
    pub stored_at: Option<SystemTime>,
    /// When a delayed message was due.
    pub deliver_at: Option<SystemTime>,
    /// Priority that the sender set, on topics of type PRIORITY.
    pub priority: Option<u32>,
    /// Lite topic that the sender set, on topics of type LITE.
    pub lite_topic: Option<String>,
    /// Broker that stores it.
    pub broker: Arc<str>,
    /// Queue on that broker.
    pub queue_id: i32,
    /// Place in that queue.
    pub queue_offset: i64,
}

impl MessageView {
    /// With an empty body; the receipt handle goes to the lease.
    pub(crate) fn from_proto(
        system: pb::SystemProperties,
        mut properties: HashMap<String, String>,
        topic: Arc<str>,
        broker: Arc<str>,
    ) -> Self {
        for name in SERVERS_OWN {
            properties.remove(name);
        }
        // Of a message that does not say, servers say that it was born in 1970.
        let born_at = system.born_timestamp.as_ref().and_then(convert::time);
        let attempt = system
            .delivery_attempt
            .and_then(|it| u32::try_from(it).ok());
        Self {
            id: system.message_id,
            topic,
            body: Bytes::new(),
            properties,
            tag: system.tag.filter(|it| !it.is_empty()),
            keys: system.keys,
            group: system.message_group,
            attempt: attempt.unwrap_or(1).max(1),
            born_at: born_at.filter(|at| *at > UNIX_EPOCH),
            born_host: system.born_host,
            stored_at: system.store_timestamp.as_ref().and_then(convert::time),
            deliver_at: system.delivery_timestamp.as_ref().and_then(convert::time),
            priority: system.priority.and_then(|it| u32::try_from(it).ok()),
            lite_topic: system.lite_topic.filter(|it| !it.is_empty()),
            broker,
            queue_id: system.queue_id,
            queue_offset: system.queue_offset.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_adds_is_no_property_of_the_senders() {
        let properties = [
            ("__SHARDINGKEY", "g"),
            ("__transactionId__", "1"),
            ("TRANSACTION_CHECK_TIMES", "2"),
            ("shop", "12"),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let system = pb::SystemProperties {
            message_group: Some("g".into()),
            ..Default::default()
        };
        let view = MessageView::from_proto(system, properties.into(), "t".into(), "b".into());
        assert_eq!(view.group.as_deref(), Some("g"));
        assert_eq!(
            Vec::from_iter(view.properties),
            [("shop".into(), "12".into())]
        );
    }

    #[test]
    fn a_message_that_does_not_say_when_it_was_born_has_no_time() {
        let born_at = |seconds| {
            let system = pb::SystemProperties {
                born_timestamp: Some(prost_types::Timestamp { seconds, nanos: 0 }),
                ..Default::default()
            };
            MessageView::from_proto(system, HashMap::new(), "t".into(), "b".into()).born_at
        };
        assert_eq!((born_at(0), born_at(-1)), (None, None));
        assert!(born_at(1).is_some());
    }
}
