//! What a test may look at.

use crate::{
    DevBroker,
    state::{
        ConnectedClient, DelayedMessage, HalfMessage, InFlight, QueueLag, QueueOffsets,
        StoredMessage,
    },
};

impl DevBroker {
    /// The messages that a topic keeps, settled ones too, queue by queue in the order they were
    /// stored.
    #[must_use]
    pub fn messages(&self, topic: &str) -> Vec<StoredMessage> {
        self.core().with(|state, _| state.messages(topic))
    }

    /// The messages that the group's consumers hold now, on all topics.
    #[must_use]
    pub fn in_flight(&self, group: &str) -> Vec<InFlight> {
        self.core().with(|state, now| state.in_flight(now, group))
    }

    /// How many messages of the topic wait for the group, for the first time or again. Those in
    /// flight are not counted.
    #[must_use]
    pub fn lag(&self, topic: &str, group: &str) -> u64 {
        self.core().with(|state, now| state.lag(now, topic, group))
    }

    /// The same by queue, with what is in flight.
    #[must_use]
    pub fn queue_lags(&self, topic: &str, group: &str) -> Vec<QueueLag> {
        self.core()
            .with(|state, now| state.queue_lags(now, topic, group))
    }

    /// The queues of a topic, with the offsets of what they keep. Empty for an unknown topic.
    #[must_use]
    pub fn queues(&self, topic: &str) -> Vec<QueueOffsets> {
        self.core().with(|state, _| state.queues(topic))
    }

    /// The messages of a topic that wait for their time of delivery, soonest first.
    #[must_use]
    pub fn delayed_messages(&self, topic: &str) -> Vec<DelayedMessage> {
        self.core().with(|state, _| state.delayed_messages(topic))
    }

    /// The half messages of a topic whose transactions have not ended.
    #[must_use]
    pub fn half_messages(&self, topic: &str) -> Vec<HalfMessage> {
        self.core().with(|state, _| state.half_messages(topic))
    }

    /// What the group has given up: the messages of `%DLQ%<group>`.
    #[must_use]
    pub fn dead_letters(&self, group: &str) -> Vec<StoredMessage> {
        self.core().with(|state, _| state.dead_letters(group))
    }

    /// Whether a consumer group of this name was declared, or created by its first use.
    #[must_use]
    pub fn has_group(&self, name: &str) -> bool {
        self.core().with(|state, _| state.has_group(name))
    }

    /// The clients with an open telemetry stream, by id.
    #[must_use]
    pub fn connected_clients(&self) -> Vec<ConnectedClient> {
        self.core().with(|state, _| state.connected_clients())
    }
}
