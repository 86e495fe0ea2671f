//! The mark of a message that is being handled: extended while the handler runs, cleared if it is
//! dropped.

use std::{future::Future, pin::pin, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::Instrument;

use super::Store;
use crate::{Failure, clock::after};

/// Longest time for telling the store that a message is done, or that its mark is not needed: the
/// message is settled after that, and the mark expires by itself.
const TELL_MAX: Duration = Duration::from_secs(5);

/// A mark that is ours until it expires.
pub(super) struct Held<S: Store> {
    store: S,
    mark: Option<S::Mark>,
    hold: Duration,
    /// When the mark was asked for last: by our clock it is ours for `hold` from then on.
    since: Instant,
}

/// How a handler ended under its mark.
pub(super) enum Ran<S: Store> {
    Done(Held<S>),
    Failed(Held<S>, Failure),
    /// The mark may be another's: the handler was dropped.
    Expired,
}

impl<S: Store> Held<S> {
    pub(super) fn new(store: S, mark: S::Mark, since: Instant, hold: Duration) -> Self {
        Self {
            store,
            mark: Some(mark),
            hold,
            since,
        }
    }

    /// Runs the handler while the mark is ours.
    pub(super) async fn run(
        mut self,
        handler: impl Future<Output = Result<(), Failure>>,
    ) -> Ran<S> {
        let ran = {
            let mut handler = pin!(handler);
            let mut keep = pin!(self.keep());
            tokio::select! {
                // After this process stood still the mark may be another's: that is looked at first.
                biased;
                () = &mut keep => None,
                ran = &mut handler => Some(ran),
            }
        };
        match ran {
            Some(Ok(())) => Ran::Done(self),
            Some(Err(failure)) => Ran::Failed(self, failure),
            None => {
                self.mark = None;
                Ran::Expired
            }
        }
    }

    /// Extends the mark; returns when it is lost.
    async fn keep(&mut self) {
        let every = self.hold / 3;
        let Some(mark) = &self.mark else { return };
        let mut next = after(self.since, every);
        loop {
            let end = after(self.since, self.hold);
            sleep_until(next.min(end)).await;
            let asked = Instant::now();
            match timeout_at(end, self.store.extend(mark, self.hold)).await {
                Ok(Ok(true)) => self.since = asked,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = %kratos::error_chain(&error),
                        "cannot extend the mark that a message is in flight"
                    );
                }
                Err(_elapsed) => {}
            }
            if Instant::now() >= after(self.since, self.hold) {
                return;
            }
            next = after(asked, every);
        }
    }

    /// The message was handled: what fails here costs a second run at worst, if a duplicate comes.
    pub(super) async fn done(mut self, keep: Duration) {
        let Some(mark) = self.mark.take() else { return };
        let store = self.store.clone();
        // A task of its own: the handler has run, and a call that is dropped now (its time is over,
        // its lease is lost) must not run it again.
        let told = tokio::spawn(tell_done(store, mark, keep).in_current_span());
        let _ = told.await;
    }

    /// The handler failed: the retry is new.
    pub(super) async fn clear(mut self) {
        if let Some(mark) = self.mark.take() {
            tell_clear(&self.store, mark).await;
        }
    }
}

/// The handler panicked, timed out, or was cancelled.
impl<S: Store> Drop for Held<S> {
    fn drop(&mut self) {
        let Some(mark) = self.mark.take() else { return };
        // Without a runtime, or at its end, the mark expires by itself.
        if let Ok(runtime) = Handle::try_current() {
            let store = self.store.clone();
            runtime.spawn(async move { tell_clear(&store, mark).await });
        }
    }
}

async fn tell_done<S: Store>(store: S, mark: S::Mark, keep: Duration) {
    match timeout(TELL_MAX, store.done(mark, keep)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => tracing::warn!("a message is done, but its mark had expired"),
        Ok(Err(error)) => tracing::warn!(
            error = %kratos::error_chain(&error),
            "a message is done, but it could not be marked so: a duplicate would be handled"
        ),
        Err(_elapsed) => tracing::warn!(
            "a message is done, but it could not be marked so within {TELL_MAX:?}: a duplicate \
             would be handled"
        ),
    }
}

async fn tell_clear<S: Store>(store: &S, mark: S::Mark) {
    if let Ok(Err(error)) = timeout(TELL_MAX, store.clear(mark)).await {
        tracing::warn!(
            error = %kratos::error_chain(&error),
            "cannot clear the mark that a message is in flight: the retry waits until it expires"
        );
    }
}
