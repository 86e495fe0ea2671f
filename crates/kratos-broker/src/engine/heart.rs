//! The heart of a server: a task that looks at every subscription once a second, so that others can
//! see whether the server's tasks get to run.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kratos::Pulse;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::control::Controls;

/// How often it beats.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// So many beats in a row with a message that is ready, a lane that is free and no progress are no
/// coincidence.
pub(crate) const STUCK_BEATS: u32 = 10;

/// When the heart beat last, and what it saw. Its lock is held for no longer than that takes to
/// write down, and no other is taken under it.
#[derive(Debug, Default)]
pub(crate) struct Heart(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<Instant>,
    stuck: Option<String>,
}

/// Beats until it is dropped.
pub(crate) async fn run(controls: Controls) {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Takes the locks of queues and tables: whoever holds one for ever stops the heart.
        let stuck = controls.look();
        controls.heart().beat(stuck);
    }
}

// === impl Heart ===

impl Heart {
    pub(crate) fn pulse(&self) -> Pulse {
        let seen = self.lock();
        let mut pulse = Pulse::default();
        pulse.last_beat = seen.last.map(|at| at.elapsed());
        pulse.stuck.clone_from(&seen.stuck);
        pulse
    }

    /// The server has stopped: nobody waits for the next beat.
    pub(crate) fn stop(&self) {
        *self.lock() = Seen::default();
    }

    fn beat(&self, stuck: Option<String>) {
        let mut seen = self.lock();
        seen.last = Some(Instant::now());
        let was = std::mem::replace(&mut seen.stuck, stuck.clone());
        drop(seen);
        if let (None, Some(reason)) = (was, stuck) {
            tracing::error!(reason, "the dispatcher is stuck");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
