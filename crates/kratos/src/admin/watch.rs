//! Liveness: whether what must run runs, seen from a thread that is not part of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Handle;

/// How often the App's runtime shows that it runs.
const BEAT_EVERY: Duration = Duration::from_millis(500);

/// A heart beats once a second, and a loaded machine is late now and then: in less nothing is stuck.
const STUCK_AFTER_MIN: Duration = Duration::from_secs(2);

/// Watches the App's runtime and the dispatchers of its servers.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    handle: Handle,
    stuck_after: Duration,
    made: Instant,
    /// When the App's runtime ran last, in milliseconds after `made`.
    beat: Arc<AtomicU64>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Liveness {
    /// How long ago the hindmost heart beat.
    pub(super) heartbeat: Duration,
    /// Each part, and what is wrong with it.
    pub(super) parts: Vec<(String, Result<(), String>)>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(handle: Handle, stuck_after: Duration) -> Self {
        Self {
            handle,
            stuck_after: stuck_after.max(STUCK_AFTER_MIN),
            made: Instant::now(),
            beat: Arc::default(),
        }
    }

    /// Beats, on the runtime that is watched, until it is dropped.
    pub(super) async fn beat(self) {
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.beat.store(now, Relaxed);
        }
    }

    /// Takes no lock that is held for long by anybody.
    pub(super) fn look(&self) -> Liveness {
        let last = Duration::from_millis(self.beat.load(Relaxed));
        let runtime = self.made.elapsed().saturating_sub(last);
        let mut parts = vec![("runtime".to_owned(), self.judge("the runtime", runtime))];
        let mut heartbeat = runtime;
        for server in self.handle.servers() {
            let Some(live) = server.description.live_view() else {
                continue;
            };
            let pulse = live.pulse();
            let Some(last) = pulse.last_beat else {
                // It does not serve yet, or no more.
                continue;
            };
            heartbeat = heartbeat.max(last);
            let name = format!("server {}", server.name);
            let verdict = self
                .judge("its dispatcher", last)
                .and(pulse.stuck.map_or(Ok(()), Err));
            parts.push((name, verdict));
        }
        Liveness { heartbeat, parts }
    }

    fn judge(&self, what: &str, last: Duration) -> Result<(), String> {
        if last <= self.stuck_after {
            return Ok(());
        }
        Err(format!(
            "{what} has not run for {:.1} s",
            last.as_secs_f64()
        ))
    }
}

// === impl Liveness ===

impl Liveness {
    /// What is wrong; `None` if nothing.
    pub(super) fn reason(&self) -> Option<String> {
        let wrong = |(part, verdict): &(String, Result<(), String>)| {
            let why = verdict.as_ref().err()?;
            Some(format!("{part}: {why}"))
        };
        let wrong: Vec<_> = self.parts.iter().filter_map(wrong).collect();
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}
