//! How the App is watched and stopped from outside.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Health;

/// Where the App is in its life. Phases only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Resources open, servers bind.
    Starting,
    /// Every server serves.
    Ready,
    /// The stop has begun: no new work should be sent here.
    Draining,
    /// Everything is closed.
    Stopped,
}

/// Watches and stops an App; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    board: Arc<Board>,
}

struct Board {
    stop: CancellationToken,
    phase: watch::Sender<Phase>,
    ready: watch::Sender<bool>,
    /// Guards every change, so that phase and readiness never contradict each other for long.
    health: Mutex<BTreeMap<String, Health>>,
}

// === impl Phase ===

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        })
    }
}

// === impl Handle ===

impl Handle {
    pub(crate) fn new(phase: Phase) -> Self {
        let board = Board {
            stop: CancellationToken::new(),
            phase: watch::Sender::new(phase),
            ready: watch::Sender::new(phase == Phase::Ready),
            health: Mutex::default(),
        };
        Self {
            board: Arc::new(board),
        }
    }

    /// Asks the App to stop, as a signal does. Asking again changes nothing.
    pub fn stop(&self) {
        self.board.stop.cancel();
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.board.phase.borrow()
    }

    /// The phase and its changes.
    #[must_use]
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.board.phase.subscribe()
    }

    /// Waits until the App has come to `phase` or passed it; answers the phase then.
    pub async fn reached(&self, phase: Phase) -> Phase {
        let mut phases = self.phases();
        // The sender lives in `self`, so the wait cannot fail.
        phases
            .wait_for(|now| *now >= phase)
            .await
            .map_or(Phase::Stopped, |now| *now)
    }

    /// Whether work may be sent here: phase [`Ready`](Phase::Ready) and every server
    /// [ready](Health::is_ready).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.board.ready.borrow()
    }

    /// Readiness and its changes.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.board.ready.subscribe()
    }

    /// What each server last said of its health, by its name.
    #[must_use]
    pub fn health(&self) -> BTreeMap<String, Health> {
        self.board.lock().clone()
    }

    pub(super) fn stop_requested(&self) -> CancellationToken {
        self.board.stop.clone()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        let health = self.board.lock();
        self.board.ready.send_if_modified(|ready| {
            let now = phase == Phase::Ready && health.values().all(Health::is_ready);
            std::mem::replace(ready, now) != now
        });
        self.board.phase.send_replace(phase);
    }

    pub(super) fn set_health(&self, server: &str, now: Health) {
        let mut health = self.board.lock();
        health.insert(server.to_owned(), now);
        let phase = *self.board.phase.borrow();
        self.board.ready.send_if_modified(|ready| {
            let now = phase == Phase::Ready && health.values().all(Health::is_ready);
            std::mem::replace(ready, now) != now
        });
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("phase", &self.phase())
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

// === impl Board ===

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
