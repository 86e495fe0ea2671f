//! Acknowledgement, a new invisible duration, and the dead-letter queue.

use std::{sync::Arc, time::Duration};

use rocketmq_proto::v2::Code;

use crate::state::{
    State, Timestamp,
    cursor::Cursor,
    group::dead_letter_topic,
    handle::Handle,
    limits::{check_group, check_invisible, check_topic},
    message::{Origin, Stored},
    refusal::Refusal,
    topic::TopicType,
};

/// A dead-letter topic has one queue, as on the real server.
const DEAD_LETTER_QUEUES: u32 = 1;

/// What must hold for a request of acknowledgements as a whole.
pub(crate) fn check_acks(topic: &str, group: &str, entries: usize) -> Result<(), Refusal> {
    check_topic(topic)?;
    check_group(group)?;
    if entries == 0 {
        let message = "ack message result is empty";
        return Err(Refusal::new(Code::InternalServerError, message));
    }
    Ok(())
}

impl State {
    /// Settles one delivery.
    pub(crate) fn ack(
        &mut self,
        now: Timestamp,
        topic: &str,
        group: &str,
        handle: &str,
    ) -> Result<(), Refusal> {
        let handle = Handle::decode(handle)?;
        if self.faults.drop_ack() {
            return Ok(());
        }
        let timers = &mut self.timers;
        let cursor = find(self.cursors.get_mut(handle.cursor), topic, group)?;
        cursor.ack(now, &handle, timers)?;
        if cursor.is_ordered() {
            // The rest of the queue may be free now.
            self.ready.insert(Arc::clone(&cursor.topic));
        }
        Ok(())
    }

    /// Ends the lease `invisible` from now, sooner or later than it would have. If the consumer
    /// means to `suspend` the message, no attempt is spent then (in an ordered group it is).
    pub(crate) fn change_invisible(
        &mut self,
        now: Timestamp,
        topic: &str,
        group: &str,
        handle: &str,
        invisible: Option<Duration>,
        suspend: bool,
    ) -> Result<String, Refusal> {
        check_topic(topic)?;
        check_group(group)?;
        let invisible = invisible.ok_or_else(|| {
            let message = "the invisibleTime is too small. min is 0";
            Refusal::new(Code::IllegalInvisibleTime, message)
        })?;
        check_invisible(invisible)?;
        let handle = Handle::decode(handle)?;
        let timers = &mut self.timers;
        let cursor = find(self.cursors.get_mut(handle.cursor), topic, group)?;
        let handle = cursor.change_invisible(now, &handle, invisible, suspend, timers)?;
        self.advance(now);
        Ok(handle.encode())
    }

    /// Moves a held message to the group's dead-letter topic.
    pub(crate) fn forward_to_dead_letters(
        &mut self,
        now: Timestamp,
        topic: &str,
        group: &str,
        handle: &str,
    ) -> Result<(), Refusal> {
        check_topic(topic)?;
        check_group(group)?;
        let handle = Handle::decode(handle)?;
        let timers = &mut self.timers;
        let cursor = find(self.cursors.get_mut(handle.cursor), topic, group)?;
        cursor.check(now, &handle)?;
        let spent = cursor.spent(&handle);
        cursor.ack(now, &handle, timers)?;
        let group = Arc::clone(&cursor.group);
        self.ready.insert(Arc::clone(&cursor.topic));
        let message = self
            .topics
            .get(topic)
            .and_then(|t| t.at(handle.place))
            .map(Arc::clone);
        if let Some(message) = message {
            let spent = spent.unwrap_or_else(|| message.spent() + 1);
            self.bury(now, &message, &group, spent);
        }
        Ok(())
    }

    /// Stores a message that is given up in the group's dead-letter topic, made on first use.
    /// `spent` attempts are counted for it.
    pub(crate) fn bury(&mut self, now: Timestamp, message: &Stored, group: &str, spent: u32) {
        let name = dead_letter_topic(group);
        if !self.topics.contains_key(name.as_str()) {
            self.add_topic(&name, TopicType::Normal, DEAD_LETTER_QUEUES);
        }
        let origin = message.dead_letter_of.clone().unwrap_or_else(|| Origin {
            topic: message.draft.topic.clone(),
            id: message.draft.id.clone(),
            spent,
        });
        let origin = Origin { spent, ..origin };
        self.append(message.dead_letter(&name), now, Some(origin));
    }
}

/// The cursor that a handle names, if it is that of the request's topic and group.
fn find<'a>(
    cursor: Option<&'a mut Cursor>,
    topic: &str,
    group: &str,
) -> Result<&'a mut Cursor, Refusal> {
    let own = |cursor: &&mut Cursor| *cursor.topic == *topic && *cursor.group == *group;
    let other_topic = |cursor: &&mut Cursor| *cursor.topic != *topic;
    if cursor.as_ref().is_some_and(other_topic) {
        let message = "the receipt handle belongs to another topic";
        return Err(Refusal::new(Code::InternalServerError, message));
    }
    cursor
        .filter(own)
        .ok_or_else(|| Refusal::handle("belongs to another group"))
}
