//! How much of everything there is, for tests that look for what stays.

use crate::state::{State, Timestamp, log::Log};

/// What one state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// With settings, connected or not.
    pub(crate) clients: usize,
    /// Messages that consumers hold.
    pub(crate) held: usize,
    pub(crate) timers: usize,
    pub(crate) delayed: usize,
    pub(crate) halves: usize,
    pub(crate) stored_bytes: usize,
    /// The same, counted message by message.
    pub(crate) counted_bytes: usize,
    /// Calls that wait for messages.
    pub(crate) receives: usize,
    /// Clients with a telemetry stream.
    pub(crate) streams: usize,
}

impl State {
    pub(crate) fn census(&mut self, now: Timestamp) -> Census {
        let logs = self.topics.values().flat_map(|topic| &topic.queues);
        let stored: usize = logs.flat_map(Log::iter).map(|it| it.draft.size()).sum();
        let delayed = self.delayed.waiting();
        let delayed_bytes: usize = delayed.iter().map(|(draft, _)| draft.size()).sum();
        let held = self.cursors.iter_mut().flat_map(|cursor| cursor.held());
        Census {
            held: held.filter(|held| held.deadline > now).count(),
            clients: self.clients.len(),
            timers: self.timers.len(),
            delayed: delayed.len(),
            halves: self.transactions.len(),
            stored_bytes: self.stored_bytes,
            counted_bytes: stored + delayed_bytes + self.transactions.bytes(),
            receives: 0,
            streams: 0,
        }
    }
}
