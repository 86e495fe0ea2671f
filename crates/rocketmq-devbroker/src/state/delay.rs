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

/// What recalls a delayed message. It says all that the answer needs, as the real server's does:
/// what is recalled already is recalled once more.
struct RecallHandle<'a> {
    id: DelayId,
    at: Timestamp,
    topic: &'a str,
    message: &'a str,
}

const RECALL_PREFIX: &str = "delay";

impl<'a> RecallHandle<'a> {
    fn encode(&self) -> String {
        let (id, at, topic) = (self.id.0, self.at.as_millis(), self.topic);
        format!("{RECALL_PREFIX}:{id:x}:{at:x}:{topic}:{}", self.message)
    }

    fn decode(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, ':');
        parts.next().filter(|prefix| *prefix == RECALL_PREFIX)?;
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        Some(Self {
            id: DelayId(number()?),
            at: Timestamp::from_millis(number()?),
            topic: parts.next()?,
            message: parts.next()?,
        })
    }
}

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
        let handle = RecallHandle {
            id,
            at,
            topic: &draft.topic,
            message: &draft.id,
        };
        let handle = handle.encode();
        self.delayed.waiting.insert(id, (draft, timer));
        handle
    }

    /// Stores a delayed message whose time has come.
    pub(crate) fn deliver_delayed(&mut self, now: Timestamp, id: DelayId) {
        if let Some((draft, _)) = self.delayed.waiting.remove(&id) {
            self.stored_bytes -= draft.size();
            self.journal.end(|| Key::Delayed(id.0));
            self.append(draft, now, None);
        }
    }

    /// Takes back a delayed message before its time and returns its id. Until then it may be done
    /// again, by a client that has lost the answer.
    pub(crate) fn recall(
        &mut self,
        now: Timestamp,
        topic: &str,
        handle: &str,
    ) -> Result<String, Refusal> {
        let delays = |topic: &Topic| topic.accepts().contains(&MessageType::Delay);
        if !self.topics.get(topic).is_some_and(delays) {
            let message = format!("topic {topic} does not take delayed messages");
            return Err(Refusal::new(Code::MessagePropertyConflictWithType, message));
        }
        let refusal = |message| Refusal::new(Code::InternalServerError, message);
        let handle =
            RecallHandle::decode(handle).ok_or_else(|| refusal("recall handle is invalid"))?;
        if handle.topic != topic {
            return Err(refusal("recall failed: the message is of another topic"));
        }
        if handle.at <= now {
            return Err(refusal("recall failed: the message is delivered"));
        }
        if let Some((draft, timer)) = self.delayed.waiting.remove(&handle.id) {
            self.timers.remove(timer);
            self.stored_bytes -= draft.size();
            self.journal.end(|| Key::Delayed(handle.id.0));
        }
        Ok(handle.message.to_owned())
    }
}
