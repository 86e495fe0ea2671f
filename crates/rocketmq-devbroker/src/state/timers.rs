//! What happens later, ordered by time.

use std::collections::BTreeMap;

use crate::state::{Timestamp, cursor::CursorId, delay::DelayId, log::Place, transaction::HalfId};

/// Something that is due at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The lease of a message ends, or its time to be seen again has come.
    Lapse(CursorId, Place),
    /// A queue of an ordered group may be free again.
    Unblock(CursorId, u32),
    /// A delayed message is due.
    Deliver(DelayId),
    /// A half message is due for a check.
    Check(HalfId),
}

/// Names one entry, so that it can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey(Timestamp, u64);

impl TimerKey {
    /// When the event is due.
    pub(crate) fn at(self) -> Timestamp {
        self.0
    }
}

/// The events to come. Holds at most one per lease, ordered queue, delayed message and half
/// message.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    events: BTreeMap<TimerKey, Event>,
    serial: u64,
}

impl Timers {
    pub(crate) fn add(&mut self, at: Timestamp, event: Event) -> TimerKey {
        self.serial += 1;
        let key = TimerKey(at, self.serial);
        self.events.insert(key, event);
        key
    }

    pub(crate) fn clear(&mut self) {
        self.events.clear();
    }

    pub(crate) fn remove(&mut self, key: TimerKey) {
        self.events.remove(&key);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// When the next event is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.events.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes the next event that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Event> {
        let entry = self.events.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
