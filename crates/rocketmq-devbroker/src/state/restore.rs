//! The state made of the facts that an earlier one has left.

use std::sync::Arc;

use crate::state::{
    State, Timestamp,
    facts::{Key, Value},
    log::Log,
    topic::Topic,
};

/// Room for what one state numbers.
const SERIAL_BITS: u32 = 40;

/// A fact that does not fit those before it.
#[derive(Debug)]
pub(crate) struct Misfit(pub(crate) Key);

impl State {
    /// Makes the state of the facts of an earlier one, in the order of their keys, and keeps facts
    /// from now on. `start` is greater every time: what this state numbers is not mixed up with
    /// what the one before it has numbered.
    pub(crate) fn restore(
        &mut self,
        now: Timestamp,
        start: u32,
        facts: impl IntoIterator<Item = (Key, Value)>,
    ) -> Result<(), Misfit> {
        self.journal.wanted = true;
        let serial = u64::from(start) << SERIAL_BITS;
        self.batches = serial;
        self.delayed.begin_at(serial);
        self.transactions.begin_at(serial);
        self.cursors.begin_at(serial);
        for (key, value) in facts {
            self.restore_fact(now, &key, value).ok_or(Misfit(key))?;
        }
        Ok(())
    }

    fn restore_fact(&mut self, now: Timestamp, key: &Key, value: Value) -> Option<()> {
        match (key, value) {
            (Key::Topic(name), Value::Topic { kind, queues }) => {
                let topic = Topic::new(name, kind, queues);
                self.topics.insert(Arc::clone(&topic.name), topic);
            }
            (Key::Group(name), Value::Group(config)) => {
                self.groups.insert(Arc::clone(name), config);
            }
            (Key::Log(topic, queue), Value::Log(first)) => {
                self.log_mut(topic, *queue)?.begin_at(first);
            }
            (Key::Message(topic, place), Value::Message(message)) => {
                let bytes = message.draft.size();
                let log = self.log_mut(topic, place.queue)?;
                if log.end() != place.offset {
                    return None;
                }
                log.push(message);
                self.stored_bytes += bytes;
            }
            (Key::Delayed(id), Value::Delayed(draft, at)) => {
                self.stored_bytes += draft.size();
                self.delayed.restore(*id, *draft, at, &mut self.timers);
            }
            (
                Key::Half(id),
                Value::Half {
                    draft,
                    prepared_at,
                    checks,
                },
            ) => {
                self.restore_half(now, *id, *draft, prepared_at, checks);
            }
            (Key::Cursor(id), Value::Cursor { topic, group, fifo }) => {
                let topic = self.topics.get(&topic)?;
                let (group, _) = self.groups.get_key_value(&group)?;
                self.cursors.restore(*id, topic, group, fifo)?;
            }
            (Key::Position(id, queue), Value::Position(position)) => {
                let cursor = self.cursors.get_mut(*id)?;
                cursor.restore_position(*queue, position, &mut self.timers)?;
            }
            (Key::Delivery(id, place), Value::Delivery(attempts)) => {
                self.cursors
                    .get_mut(*id)?
                    .restore_delivery(*place, attempts)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn log_mut(&mut self, topic: &Arc<str>, queue: u32) -> Option<&mut Log> {
        self.topics.get_mut(topic)?.queues.get_mut(queue as usize)
    }
}
