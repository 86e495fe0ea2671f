//! What is kept, and what is forgotten once every group has settled it.

use std::sync::Arc;

use rocketmq_proto::v2::Code;

use crate::state::{
    State,
    facts::{Key, Value},
    message::Draft,
    refusal::Refusal,
};

impl State {
    #[cfg(any(test, feature = "persist"))]
    pub(crate) fn stored_bytes(&self) -> usize {
        self.stored_bytes
    }

    /// Drops the oldest messages of a queue that every group has settled, beyond the `keep` newest.
    pub(crate) fn forget_settled(&mut self, name: &Arc<str>, queue: u32, keep: usize) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        let Some(log) = topic.queues.get_mut(queue as usize) else {
            return;
        };
        if log.len() <= keep {
            return;
        }
        let floors = self
            .cursors
            .of_topic(name)
            .map(|cursor| cursor.floor(queue));
        let floor = floors.min().unwrap_or(u64::MAX);
        while log.len() > keep && log.first() < floor {
            let Some(message) = log.forget_first() else {
                break;
            };
            self.stored_bytes -= message.draft.size();
            self.journal
                .end(|| Key::Message(Arc::clone(name), message.place()));
        }
        let first = log.first();
        self.journal
            .set(|| Key::Log(Arc::clone(name), queue), || Value::Log(first));
    }

    /// Makes sure that `drafts` fit, if need be by forgetting all that is settled.
    pub(crate) fn make_room(&mut self, drafts: &[Draft]) -> Result<(), Refusal> {
        let more: usize = drafts.iter().map(Draft::size).sum();
        let max = self.limits.max_stored_bytes;
        if self.stored_bytes + more <= max {
            return Ok(());
        }
        let queues = |(name, topic): (&Arc<str>, &crate::state::topic::Topic)| {
            let count = u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
            (Arc::clone(name), count)
        };
        let topics: Vec<(Arc<str>, u32)> = self.topics.iter().map(queues).collect();
        for (name, count) in topics {
            (0..count).for_each(|queue| self.forget_settled(&name, queue, 0));
        }
        if self.stored_bytes + more <= max {
            return Ok(());
        }
        let message = format!("{max} bytes of messages are stored: a group must consume some");
        Err(Refusal::new(Code::TooManyRequests, message))
    }
}
