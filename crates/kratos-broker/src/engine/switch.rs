//! The kill switch of one subscription: counts outcomes, shuts the queue, tries one message.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{counters::Counters, health::HealthBoard, queue::Queue};
use crate::{Failure, KillSwitch, clock::after};

/// A failure that the switch is told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed<'a> {
    pub(crate) failure: &'a Failure,
    /// It was the one message that an open switch tries.
    pub(crate) probe: bool,
    /// All attempts of the message failed one after another in this process, so many, and no
    /// attempt is left.
    pub(crate) used_up: Option<u32>,
}

/// Shared by the lanes of a subscription.
pub(crate) struct Switch {
    settings: KillSwitch,
    /// The subscription, for logs.
    name: String,
    queue: Arc<Queue>,
    health: Arc<HealthBoard>,
    counters: Counters,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    in_a_row: u32,
    /// The last outcomes, `true` for a failure; only with a ratio.
    recent: VecDeque<bool>,
    failed_recently: usize,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Instant,
    pause: Duration,
    why: &'static str,
}

// === impl Switch ===

impl Switch {
    pub(crate) fn new(
        settings: KillSwitch,
        name: String,
        queue: Arc<Queue>,
        health: Arc<HealthBoard>,
        counters: Counters,
    ) -> Self {
        Self {
            settings,
            name,
            queue,
            health,
            counters,
            state: Mutex::default(),
        }
    }

    /// An attempt succeeded. While the switch is open only the probe's counts: the others began
    /// before.
    pub(crate) fn succeeded(&self, probe: bool) {
        let mut state = self.lock();
        let Some(open) = state.open else {
            state.in_a_row = 0;
            self.remember(&mut state, false);
            return;
        };
        if !probe {
            return;
        }
        *state = State::default();
        self.queue.reopen();
        self.health.recovered(&self.name);
        drop(state);
        let open_for = open.since.elapsed();
        tracing::info!(subscription = %self.name, ?open_for, "kill switch closed");
    }

    /// An attempt failed. Answers whether the switch is open: then the failure does not count for
    /// its message.
    pub(crate) fn failed(&self, failed: Failed<'_>) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(open) = &mut state.open {
            if failed.probe {
                let longer = open.pause.saturating_mul(2);
                open.pause = longer.min(self.settings.max_pause);
                self.queue.shut(after(now, open.pause));
                let pause = open.pause;
                drop(state);
                tracing::warn!(
                    subscription = %self.name, error = %failed.failure, ?pause,
                    "kill switch stays open, the message that was tried failed",
                );
            }
            return true;
        }
        state.in_a_row = state.in_a_row.saturating_add(1);
        self.remember(&mut state, true);
        let Some(why) = self.verdict(&state, failed.used_up) else {
            return false;
        };
        let pause = self.settings.pause;
        state.open = Some(Open {
            since: now,
            pause,
            why,
        });
        self.queue.shut(after(now, pause));
        let reason = format!(
            "subscription {}: kill switch open ({why}), last error: {}",
            self.name, failed.failure
        );
        self.health
            .troubled(&self.name, reason, self.settings.unready);
        drop(state);
        self.counters.switch_opened();
        tracing::error!(
            subscription = %self.name, why, error = %failed.failure, ?pause,
            "kill switch open, nothing starts",
        );
        true
    }

    /// The message that was tried neither succeeded nor failed: another is tried at once.
    pub(crate) fn inconclusive(&self) {
        if self.lock().open.is_some() {
            self.queue.probe_again();
        }
    }

    /// Since when the switch is open, and why; `None` if it is closed.
    pub(crate) fn opened(&self) -> Option<(Instant, &'static str)> {
        self.lock().open.map(|open| (open.since, open.why))
    }

    fn verdict(&self, state: &State, used_up: Option<u32>) -> Option<&'static str> {
        if state.in_a_row >= self.settings.in_a_row {
            return Some("too many failures in a row");
        }
        if let Some((fraction, outcomes)) = self.settings.ratio
            && state.recent.len() == outcomes
            && state.failed_recently as f64 >= fraction * outcomes as f64
        {
            return Some("too large a part of the last attempts failed");
        }
        let alone = used_up.is_some_and(|attempts| state.in_a_row >= attempts);
        alone.then_some("a message used up its attempts and nothing succeeded meanwhile")
    }

    fn remember(&self, state: &mut State, failed: bool) {
        let Some((_, outcomes)) = self.settings.ratio else {
            return;
        };
        if state.recent.len() == outcomes {
            let oldest = state.recent.pop_front();
            state.failed_recently -= usize::from(oldest == Some(true));
        }
        state.recent.push_back(failed);
        state.failed_recently += usize::from(failed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
