//! How the engine reaches into a lane: to cancel the message that runs there.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;

use super::ticket::Ticket;
use crate::extensions::Extensions;

/// What runs where nothing does, and where a batch does, in place of a ticket's number: there are
/// fewer places than that.
const NOTHING: u64 = u64::MAX;
const BATCH: u64 = u64::MAX - 1;

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

/// One per lane, for all its messages, or one of a batch. Tokens are made only when a handler asks
/// for one, and a message that nobody cancels costs two stores.
#[derive(Debug)]
pub(crate) struct LaneCell {
    /// What runs: the number of a ticket. Written by the lane alone.
    running: AtomicU64,
    state: Mutex<State>,
    /// Set with `state.cancel`: what a poll looks at.
    flagged: AtomicBool,
    waker: AtomicWaker,
    /// The handler has waited; of the lane alone.
    waited: AtomicBool,
    /// What the server attached, for all messages.
    extensions: Arc<Extensions>,
}

/// Each with what ran when it was set: for anything else it means nothing.
#[derive(Debug, Default)]
struct State {
    cancel: Option<(u64, Cancel)>,
    token: Option<(u64, CancellationToken)>,
}

// === impl LaneCell ===

impl LaneCell {
    pub(crate) fn new(extensions: Arc<Extensions>) -> Self {
        Self {
            running: AtomicU64::new(NOTHING),
            state: Mutex::default(),
            flagged: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            waited: AtomicBool::new(false),
            extensions,
        }
    }

    /// The cell of one batch, which starts. It is its own, so none but its messages know it.
    pub(crate) fn of_batch(extensions: Arc<Extensions>) -> Self {
        Self {
            running: AtomicU64::new(BATCH),
            ..Self::new(extensions)
        }
    }

    pub(crate) fn extensions(&self) -> &Arc<Extensions> {
        &self.extensions
    }

    /// A message starts on this lane.
    #[inline]
    pub(crate) fn begin(&self, ticket: Ticket) {
        self.running.store(ticket.number(), Ordering::Release);
    }

    /// The message is over. A token that was given out no longer fires.
    #[inline]
    pub(crate) fn end(&self) {
        self.running.store(NOTHING, Ordering::Release);
    }

    /// Cancels the message, and the batch that it is in, if it still runs here.
    pub(crate) fn cancel(&self, ticket: Ticket, why: Cancel) {
        {
            let mut state = self.lock();
            let Some(running) = self.with(ticket) else {
                return;
            };
            if state.cancel.is_some_and(|(of, _)| of == running) {
                return;
            }
            state.cancel = Some((running, why));
            self.flagged.store(true, Ordering::Release);
        }
        self.waker.wake();
    }

    /// Why what runs is cancelled, if it is.
    #[inline]
    pub(crate) fn cancelled(&self) -> Option<Cancel> {
        if !self.flagged.load(Ordering::Acquire) {
            return None;
        }
        self.flagged()
    }

    #[cold]
    fn flagged(&self) -> Option<Cancel> {
        let mut state = self.lock();
        let (of, why) = state.cancel?;
        if of == self.running.load(Ordering::Acquire) {
            return Some(why);
        }
        // It was over before it heard of it.
        state.cancel = None;
        self.flagged.store(false, Ordering::Relaxed);
        None
    }

    /// As [`cancelled`](Self::cancelled), of a handler that waits; wakes `waker` when that changes.
    pub(crate) fn poll_cancelled(&self, waker: &Waker) -> Option<Cancel> {
        self.waited.store(true, Ordering::Relaxed);
        self.waker.register(waker);
        self.cancelled()
    }

    /// Whether a handler has waited since this was asked last.
    #[inline]
    pub(crate) fn has_waited(&self) -> bool {
        let waited = self.waited.load(Ordering::Relaxed);
        if waited {
            self.waited.store(false, Ordering::Relaxed);
        }
        waited
    }

    /// Fires the token, if the handler has asked for one.
    pub(crate) fn fire(&self) {
        let token = self.lock().token.take();
        if let Some((of, token)) = token
            && of == self.running.load(Ordering::Acquire)
        {
            token.cancel();
        }
    }

    /// The token of a message; one that has fired if the message runs here no longer.
    pub(crate) fn token(&self, ticket: Ticket) -> CancellationToken {
        let mut state = self.lock();
        if let Some(running) = self.with(ticket) {
            match &state.token {
                Some((of, token)) if *of == running => return token.clone(),
                _ => {
                    let token = CancellationToken::new();
                    state.token = Some((running, token.clone()));
                    return token;
                }
            }
        }
        drop(state);
        let token = CancellationToken::new();
        token.cancel();
        token
    }

    /// What runs, if this message does or is part of it.
    fn with(&self, ticket: Ticket) -> Option<u64> {
        let running = self.running.load(Ordering::Acquire);
        (running == ticket.number() || running == BATCH).then_some(running)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_for_the_message_before_means_nothing_to_the_next() {
        let cell = LaneCell::new(Arc::default());
        let (first, second) = (Ticket::new(1), Ticket::new(2));
        cell.begin(first);
        let token = cell.token(first);
        cell.cancel(first, Cancel::LeaseLost);
        assert_eq!(cell.cancelled(), Some(Cancel::LeaseLost));
        cell.end();
        cell.begin(second);
        assert_eq!(cell.cancelled(), None);
        cell.fire();
        assert!(!token.is_cancelled(), "its message was over");
        cell.cancel(first, Cancel::Shutdown);
        assert_eq!(cell.cancelled(), None);
        assert!(cell.token(first).is_cancelled(), "it runs no longer");
        cell.cancel(second, Cancel::Shutdown);
        cell.cancel(second, Cancel::LeaseLost);
        assert_eq!(cell.cancelled(), Some(Cancel::Shutdown), "the first counts");
    }

    #[test]
    fn whatever_cancels_one_of_a_batch_cancels_the_batch() {
        let cell = LaneCell::of_batch(Arc::default());
        let token = cell.token(Ticket::new(1));
        cell.cancel(Ticket::new(2), Cancel::LeaseLost);
        assert_eq!(cell.cancelled(), Some(Cancel::LeaseLost));
        cell.fire();
        assert!(token.is_cancelled());
    }
}
