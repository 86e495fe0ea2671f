//! Messages that are delivered later, and their recall.

use std::collections::HashMap;

use rocketmq_proto::v2::{Code, MessageType};

use crate::state::{
    State, Timestamp,
    facts::{Journal, Key, Value},
    message::Draft,
    refusal::Refusal,
    timers::{Event, TimerKey},
    topic::Topic,
};

/// Names a delayed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DelayId(u64);

/// Messages that wait for their time.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    waiting: HashMap<DelayId, (Draft, TimerKey)>,
    serial: u64,
}

#[cfg(feature = "persist")]
impl Delayed {
    /// Numbers what comes from here on.
    pub(crate) fn begin_at(&mut self, serial: u64) {
        self.serial = serial;
    }

    pub(crate) fn restore(
        &mut self,
        id: u64,
        draft: Draft,
        at: Timestamp,
        timers: &mut crate::state::timers::Timers,
    ) {
        let id = DelayId(id);
        let timer = timers.add(at, Event::Deliver(id));
        self.waiting.insert(id, (draft, timer));
    }
}

impl Delayed {
    /// The messages that wait, soonest first, with the time of each.
    pub(crate) fn waiting(&self) -> Vec<(&Draft, Timestamp)> {
        let waiting = self.waiting.values();
        let mut waiting: Vec<_> = waiting.map(|(draft, timer)| (draft, timer.at())).collect();
        waiting.sort_by(|(a, at), (b, other)| (at, &a.id).cmp(&(other, &b.id)));
        waiting
    }

    /// Loses them all.
    pub(crate) fn clear(&mut self, journal: &mut Journal) {
        for (id, _) in self.waiting.drain() {
            journal.end(|| Key::Delayed(id.0));
        }
    }
}

const RECALL_PREFIX: &str = "delay-";

impl State {
    /// Keeps a message until `at` and returns what recalls it.
    pub(crate) fn delay(&mut self, draft: Draft, at: Timestamp) -> String {
        self.delayed.serial += 1;
        let id = DelayId(self.delayed.serial);
        let timer = self.timers.add(at, Event::Deliver(id));
        self.stored_bytes += draft.size();
        self.journal.set(
            || Key::Delayed(id.0),
            || Value::Delayed(Box::new(draft.clone()), at),
        );
        self.delayed.waiting.insert(id, (draft, timer));
        format!("{RECALL_PREFIX}{:x}", id.0)
    }

    /// Stores a delayed message whose time has come.
    pub(crate) fn deliver_delayed(&mut self, now: Timestamp, id: DelayId) {
        if let Some((draft, _)) = self.delayed.waiting.remove(&id) {
            self.stored_bytes -= draft.size();
            self.journal.end(|| Key::Delayed(id.0));
            self.append(draft, now, None);
        }
    }

    /// Takes back a delayed message before its time and returns its id.
    pub(crate) fn recall(&mut self, topic: &str, handle: &str) -> Result<String, Refusal> {
        let delays = |topic: &Topic| topic.accepts().contains(&MessageType::Delay);
        if !self.topics.get(topic).is_some_and(delays) {
            let message = format!("topic {topic} does not take delayed messages");
            return Err(Refusal::new(Code::MessagePropertyConflictWithType, message));
        }
        let number = handle.strip_prefix(RECALL_PREFIX);
        let id = number
            .and_then(|number| u64::from_str_radix(number, 16).ok())
            .map(DelayId);
        let id =
            id.ok_or_else(|| Refusal::new(Code::InternalServerError, "recall handle is invalid"))?;
        let found = self
            .delayed
            .waiting
            .get(&id)
            .is_some_and(|(draft, _)| draft.topic == topic);
        let entry = if found {
            self.delayed.waiting.remove(&id)
        } else {
            None
        };
        let Some((draft, timer)) = entry else {
            let message = "the message is delivered, recalled, or of another topic";
            return Err(Refusal::new(Code::InternalServerError, message));
        };
        self.timers.remove(timer);
        self.stored_bytes -= draft.size();
        self.journal.end(|| Key::Delayed(id.0));
        Ok(draft.id)
    }
}
