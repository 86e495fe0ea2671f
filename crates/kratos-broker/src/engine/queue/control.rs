//! What holds a queue back: a kill switch, or a hand.

use std::sync::atomic::Ordering::Relaxed;

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

    /// Lets so many lanes end as soon as they are free.
    pub(crate) fn end_lanes(&self, lanes: usize) {
        if lanes > 0 {
            self.surplus.fetch_add(lanes, Relaxed);
            self.changed.notify_waiters();
        }
    }

    /// Lets up to so many lanes live on that were to end; answers how many.
    pub(crate) fn keep_lanes(&self, lanes: usize) -> usize {
        let keep = |surplus: usize| Some(surplus.saturating_sub(lanes));
        let before = self.surplus.fetch_update(Relaxed, Relaxed, keep);
        before.unwrap_or_else(|before| before).min(lanes)
    }

    /// Whether some lane is to end.
    #[inline]
    pub(crate) fn has_surplus(&self) -> bool {
        self.surplus.load(Relaxed) > 0
    }

    /// Whether the lane that asks is to end, and is counted as gone with that. It is free.
    pub(crate) fn is_surplus(&self) -> bool {
        if !self.has_surplus() {
            return false;
        }
        let less = |surplus: usize| surplus.checked_sub(1);
        let ends = self.surplus.fetch_update(Relaxed, Relaxed, less).is_ok();
        if ends {
            // It may have been woken for a message: another takes that.
            self.changed.notify_one();
        }
        ends
    }

    /// Whether a message may start and a lane waits all the same, which cannot be for long.
    pub(crate) fn is_idle_beside_work(&self) -> bool {
        if self.waiting.load(Relaxed) == 0 {
            return false;
        }
        let state = self.lock();
        let open = state.mode == Mode::Open && state.is_free();
        open && !state.ready.is_empty() && state.rate_wait().is_none()
    }
}
