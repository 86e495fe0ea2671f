//! What holds a queue back: a kill switch, or a hand.

use tokio::time::Instant;

use super::{Gate, Queue, slots::Mode};

/// How a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Open(Gate),
    /// By hand.
    Held,
    Draining,
}

impl Queue {
    /// Lets nothing start until then, and after that one message, to see whether it succeeds.
    pub(crate) fn shut(&self, until: Instant) {
        self.lock().gate = Gate::Shut(until);
        // Somebody must be there when the time has come.
        self.changed.notify_waiters();
        // The intake tells if others can receive nothing because of it.
        self.hungry.notify_waiters();
    }

    /// Lets another message be tried: the last one told nothing.
    pub(crate) fn probe_again(&self) {
        let mut state = self.lock();
        if matches!(state.gate, Gate::Probing(_)) {
            state.gate = Gate::Probe;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Lets all start again.
    pub(crate) fn reopen(&self) {
        self.lock().gate = Gate::Open;
        self.changed.notify_waiters();
        self.hungry.notify_waiters();
    }

    /// Lets nothing start, and nothing be received, by hand; or all again. Answers whether that
    /// is new.
    pub(crate) fn hold_all(&self, held: bool) -> bool {
        let before = std::mem::replace(&mut self.lock().held, held);
        self.changed.notify_waiters();
        self.hungry.notify_waiters();
        before != held
    }

    /// How the queue is.
    pub(crate) fn condition(&self) -> Condition {
        let state = self.lock();
        match state.mode {
            Mode::Open if state.held => Condition::Held,
            Mode::Open => Condition::Open(state.gate),
            Mode::Paused | Mode::Draining | Mode::Finishing | Mode::Closed => Condition::Draining,
        }
    }
}
