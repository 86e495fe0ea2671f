//! What tests may see of queues, and of messages that are on their way to one.

use std::sync::Arc;

use crate::state::{State, Timestamp, log::Log, log::Place};

/// Which messages a queue keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueOffsets {
    /// The queue in the topic.
    pub queue: u32,
    /// The offset of the oldest message that is kept.
    pub min: u64,
    /// The offset that the next message gets.
    pub max: u64,
}

/// How far a group is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLag {
    /// The queue in the topic.
    pub queue: u32,
    /// Messages that wait, for the first time or again.
    pub waiting: u64,
    /// Messages that consumers hold.
    pub in_flight: u64,
}

/// A message that waits for its time of delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DelayedMessage {
    /// The id that the producer chose.
    pub id: String,
    /// The topic that it will be in.
    pub topic: String,
    /// When it is due.
    pub deliver_at: Timestamp,
}

impl State {
    pub(crate) fn queues(&self, topic: &str) -> Vec<QueueOffsets> {
        let logs = self.topics.get(topic).map(|topic| topic.queues.iter());
        (0..)
            .zip(logs.into_iter().flatten())
            .map(|(queue, log)| QueueOffsets {
                queue,
                min: log.first(),
                max: log.end(),
            })
            .collect()
    }

    /// By queue, also for a group that has not received from the topic yet.
    pub(crate) fn queue_lags(&self, now: Timestamp, topic: &str, group: &str) -> Vec<QueueLag> {
        let Some(topic) = self.topics.get(topic) else {
            return Vec::new();
        };
        let group: Arc<str> = group.into();
        let cursor = self.cursors.find(&topic.name, &group);
        let young = |log: &Log| if log.first() == 0 { log.end() } else { 0 };
        let waiting = cursor.map_or_else(
            || topic.queues.iter().map(young).collect(),
            |cursor| cursor.waiting(now, topic),
        );
        let held = cursor.map(|cursor| cursor.held()).unwrap_or_default();
        let places: Vec<Place> = held
            .into_iter()
            .filter(|held| held.deadline > now)
            .map(|held| held.place)
            .collect();
        (0..)
            .zip(waiting)
            .map(|(queue, waiting)| QueueLag {
                queue,
                waiting,
                in_flight: places.iter().filter(|place| place.queue == queue).count() as u64,
            })
            .collect()
    }

    /// Messages of the topic that wait for the group, for the first time or again.
    pub(crate) fn lag(&self, now: Timestamp, topic: &str, group: &str) -> u64 {
        let lags = self.queue_lags(now, topic, group);
        lags.iter().map(|lag| lag.waiting).sum()
    }

    /// The messages that wait for their time, soonest first.
    pub(crate) fn delayed_messages(&self, topic: &str) -> Vec<DelayedMessage> {
        let waiting = self.delayed.waiting().into_iter();
        waiting
            .filter(|(draft, _)| draft.topic == topic)
            .map(|(draft, deliver_at)| DelayedMessage {
                id: draft.id.clone(),
                topic: draft.topic.clone(),
                deliver_at,
            })
            .collect()
    }
}
