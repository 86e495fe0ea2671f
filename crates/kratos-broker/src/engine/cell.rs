//! How the engine reaches into a lane: to cancel the message that runs there.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;

use super::ticket::Ticket;

/// Why a running attempt is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// The lease was lost: no settlement may follow.
    LeaseLost,
    /// An earlier message of its batch was lost, so this one comes again too, whatever its handler
    /// does: it is handed back.
    BatchLost,
    /// The process stops.
    Shutdown,
}

/// One per lane, for all its messages. Tokens are made only when a handler asks for one.
#[derive(Debug, Default)]
pub(crate) struct LaneCell {
    state: Mutex<State>,
    /// Set with `state.cancel`: what a poll looks at.
    flagged: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    runs: Runs,
    cancel: Option<Cancel>,
    token: Option<CancellationToken>,
}

#[derive(Debug, Default)]
enum Runs {
    #[default]
    Nothing,
    One(Ticket),
    /// The messages of a batch. Its cell is its own, so none but they know it.
    Batch,
}

// === impl LaneCell ===

impl LaneCell {
    /// The cell of one batch, which starts.
    pub(crate) fn of_batch() -> Self {
        let state = State {
            runs: Runs::Batch,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    /// A message starts on this lane.
    pub(crate) fn begin(&self, ticket: Ticket) {
        let mut state = self.lock();
        *state = State {
            runs: Runs::One(ticket),
            cancel: None,
            token: None,
        };
        self.flagged.store(false, Ordering::Relaxed);
    }

    /// The message is over. A token that was given out no longer fires.
    pub(crate) fn end(&self) {
        *self.lock() = State::default();
    }

    /// Cancels the message, and the batch that it is in, if it still runs here.
    pub(crate) fn cancel(&self, ticket: Ticket, why: Cancel) {
        {
            let mut state = self.lock();
            if !state.runs.has(ticket) || state.cancel.is_some() {
                return;
            }
            state.cancel = Some(why);
            self.flagged.store(true, Ordering::Release);
        }
        self.waker.wake();
    }

    /// Why the running message is cancelled, if it is. Wakes `waker` when that changes.
    pub(crate) fn poll_cancelled(&self, waker: &Waker) -> Option<Cancel> {
        self.waker.register(waker);
        if !self.flagged.load(Ordering::Acquire) {
            return None;
        }
        self.lock().cancel
    }

    /// Fires the token, if the handler has asked for one.
    pub(crate) fn fire(&self) {
        let token = self.lock().token.take();
        if let Some(token) = token {
            token.cancel();
        }
    }

    /// The token of a message; one that has fired if the message runs here no longer.
    pub(crate) fn token(&self, ticket: Ticket) -> CancellationToken {
        let mut state = self.lock();
        if state.runs.has(ticket) {
            return state.token.get_or_insert_default().clone();
        }
        drop(state);
        let token = CancellationToken::new();
        token.cancel();
        token
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Runs ===

impl Runs {
    fn has(&self, ticket: Ticket) -> bool {
        match self {
            Self::Nothing => false,
            Self::One(one) => *one == ticket,
            Self::Batch => true,
        }
    }
}
