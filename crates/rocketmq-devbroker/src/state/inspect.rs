//! What tests may see of the state.

#[cfg(test)]
mod census;
mod queues;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use rocketmq_proto::v2::ClientType;

use crate::state::{
    State, Timestamp, clients::Role, clients::Subscription, cursor::Cursor,
    group::dead_letter_topic, log::Log, message::Stored,
};

#[cfg(test)]
pub(crate) use self::census::Census;
pub use self::queues::{DelayedMessage, QueueLag, QueueOffsets};

/// A message as it lies in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredMessage {
    /// The id that the producer chose.
    pub id: String,
    /// The topic that it lies in.
    pub topic: String,
    /// The tag, if any.
    pub tag: Option<String>,
    /// The keys.
    pub keys: Vec<String>,
    /// The user properties.
    pub properties: BTreeMap<String, String>,
    /// The body, as it was sent.
    pub body: Bytes,
    /// The message group, if any.
    pub message_group: Option<String>,
    /// The queue in the topic.
    pub queue: u32,
    /// The offset in the queue.
    pub offset: u64,
    /// When the broker stored it.
    pub stored_at: Timestamp,
    /// Topic and id of the message that was given up, if this is a dead letter.
    pub dead_letter_of: Option<(String, String)>,
}

/// A message that a consumer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight {
    /// The id that the producer chose.
    pub message_id: String,
    /// The topic that it lies in.
    pub topic: String,
    /// The delivery that is running, 1 for the first.
    pub attempt: u32,
    /// How much of the lease is left.
    pub remaining: Duration,
    /// The id of the client that holds it.
    pub client: String,
}

/// A client that has sent its settings and not left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectedClient {
    /// The id that it sends in the header `x-mq-client-id`.
    pub id: String,
    /// The group, if it is a consumer.
    pub group: Option<String>,
    /// The topics that it publishes to or subscribes to.
    pub topics: Vec<String>,
    /// What it subscribes to, with filters, if it is a consumer.
    pub subscriptions: Vec<Subscription>,
    /// Whether the broker calls it a push consumer.
    pub is_push_consumer: bool,
    /// The access key that its telemetry stream is signed with, if it is.
    pub access_key: Option<String>,
    /// The session token that it sends with its access key, if any. It is not checked.
    pub session_token: Option<String>,
}

/// A half message whose transaction has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HalfMessage {
    /// The id that the producer chose; it is the transaction's id, too.
    pub id: String,
    /// The topic that it will be in once it is committed.
    pub topic: String,
    /// When the broker took it.
    pub prepared_at: Timestamp,
    /// How often it was due for a check, whether or not a producer was there to be asked.
    pub checks: u32,
}

impl StoredMessage {
    fn of(message: &Stored) -> Self {
        let draft = &message.draft;
        Self {
            id: draft.id.clone(),
            topic: draft.topic.clone(),
            tag: draft.tag.clone(),
            keys: draft.keys.clone(),
            properties: draft.properties.clone(),
            body: draft.body.clone(),
            message_group: draft.message_group.clone(),
            queue: message.queue,
            offset: message.offset,
            stored_at: message.stored_at,
            dead_letter_of: message
                .dead_letter_of
                .as_ref()
                .map(|origin| (origin.topic.clone(), origin.id.clone())),
        }
    }
}

impl State {
    pub(crate) fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// All messages that a topic keeps, in the order they were stored in within each queue.
    pub(crate) fn messages(&self, topic: &str) -> Vec<StoredMessage> {
        let topic = self.topics.get(topic);
        let logs = topic.iter().flat_map(|topic| &topic.queues);
        logs.flat_map(Log::iter)
            .map(|message| StoredMessage::of(message))
            .collect()
    }

    pub(crate) fn dead_letters(&self, group: &str) -> Vec<StoredMessage> {
        self.messages(&dead_letter_topic(group))
    }

    pub(crate) fn half_messages(&self, topic: &str) -> Vec<HalfMessage> {
        let of_topic = self
            .transactions
            .pending()
            .filter(|half| half.draft.topic == topic);
        of_topic
            .map(|half| HalfMessage {
                id: half.draft.id.clone(),
                topic: half.draft.topic.clone(),
                prepared_at: half.prepared_at,
                checks: half.checks,
            })
            .collect()
    }

    pub(crate) fn in_flight(&self, now: Timestamp, group: &str) -> Vec<InFlight> {
        let of_cursor = |cursor: &Cursor| {
            let topic = self.topics.get(&cursor.topic);
            let held = cursor.held().into_iter().filter(|held| held.deadline > now);
            let held = held.filter_map(|held| {
                let message = topic?.at(held.place)?;
                Some(InFlight {
                    message_id: message.draft.id.clone(),
                    topic: message.draft.topic.clone(),
                    attempt: held.attempt,
                    remaining: held.deadline.since(now),
                    client: held.client.to_string(),
                })
            });
            held.collect::<Vec<_>>()
        };
        self.cursors.of_group(group).flat_map(of_cursor).collect()
    }

    pub(crate) fn connected_clients(&self) -> Vec<ConnectedClient> {
        let mut clients: Vec<ConnectedClient> = self
            .clients
            .connected()
            .map(|client| {
                let (group, topics, subscriptions, kind) = match &client.role {
                    Role::Producer { topics } => {
                        (None, topics.clone(), Vec::new(), ClientType::Producer)
                    }
                    Role::Consumer {
                        kind,
                        group,
                        subscriptions,
                    } => {
                        let topics = subscriptions.iter().map(|s| s.topic.clone()).collect();
                        (Some(group.clone()), topics, subscriptions.clone(), *kind)
                    }
                };
                let is_push_consumer = kind == ClientType::PushConsumer;
                ConnectedClient {
                    id: client.name.to_string(),
                    group,
                    topics,
                    subscriptions,
                    is_push_consumer,
                    access_key: client.signer.access_key.clone(),
                    session_token: client.signer.session_token.clone(),
                }
            })
            .collect();
        clients.sort_by(|a, b| a.id.cmp(&b.id));
        clients
    }

    /// Ends every lease of the group now, as if its time had run out.
    pub(crate) fn expire_leases(&mut self, now: Timestamp, group: &str) {
        let cursors = self
            .cursors
            .iter_mut()
            .filter(|cursor| *cursor.group == *group);
        for cursor in cursors {
            cursor.end_leases(now, None, &mut self.timers);
        }
        self.advance(now);
    }
}
