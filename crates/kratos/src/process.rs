//! What [`main`](crate::main) and the Apps in its process know of each other.
//!
//! Signals are process-wide, and so is the end of the process; this is the one global of the crate.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::signal::Signals;

static PROCESS: Mutex<Process> = Mutex::new(Process {
    signals: None,
    stops: None,
    apps: 0,
});

struct Process {
    /// Installed by `main` before the user's code runs.
    signals: Option<Signals>,
    stops: Option<watch::Sender<Stop>>,
    /// How many Apps run: with none, a signal is for `main` alone.
    apps: usize,
}

/// What `main`'s watchdog goes by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop {
    /// How long the running App takes to stop at most.
    pub(crate) timeout: Duration,
    /// When the running App will have stopped, once it does.
    pub(crate) deadline: Option<Instant>,
}

/// Held by an App while it runs.
#[derive(Debug)]
pub(crate) struct Running(());

/// Called by `main`: what Apps of this process listen to, and where they tell of their stop.
pub(crate) fn install(signals: Signals) -> watch::Receiver<Stop> {
    let (stops, receiver) = watch::channel(Stop::default());
    let mut process = lock();
    process.signals = Some(signals);
    process.stops = Some(stops);
    receiver
}

/// The signals that `main` installed; `None` without it, or after it.
pub(crate) fn signals() -> Option<Signals> {
    lock().signals.clone().filter(Signals::is_open)
}

pub(crate) fn is_app_running() -> bool {
    lock().apps > 0
}

// === impl Running ===

impl Running {
    pub(crate) fn enter(stop_timeout: Duration) -> Self {
        let mut process = lock();
        process.apps += 1;
        process.tell(|stop| stop.timeout = stop.timeout.max(stop_timeout));
        Self(())
    }

    /// Tells the watchdog by when the App will have stopped.
    #[expect(clippy::unused_self, reason = "only a running App may say so")]
    pub(crate) fn stops_by(&self, deadline: Instant) {
        lock().tell(|stop| stop.deadline = Some(deadline));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut process = lock();
        process.apps -= 1;
        if process.apps == 0 {
            // What runs after the App has a deadline only if a signal set one.
            process.tell(|stop| stop.deadline = None);
        }
    }
}

// === impl Process ===

impl Process {
    fn tell(&self, change: impl FnOnce(&mut Stop)) {
        if let Some(stops) = &self.stops {
            stops.send_modify(change);
        }
    }
}

fn lock() -> MutexGuard<'static, Process> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}
