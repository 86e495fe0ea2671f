//! What holds a queue back while it is open: a hand, a kill switch, a rate limit.

use std::time::Duration;

use tokio::time::Instant;

use crate::{RateLimit, clock::after};

/// For how long the message that an open kill switch tries is waited for: one whose handler hangs
/// must not keep the others from being tried.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(60);

/// Whether a message may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    #[default]
    Open,
    /// None, until then.
    Shut(Instant),
    /// One, to see whether it succeeds.
    Probe,
    /// That one runs; another is tried if it has not ended by then.
    Probing(Instant),
}

/// How many may start now.
pub(super) enum Admits {
    All,
    One,
    None(Option<Instant>),
}

/// Spreads starts evenly, with a burst after idle times.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Between two starts.
    every: Duration,
    /// How far ahead of that a burst may run.
    ahead: Duration,
    /// When the next start is due, had all been evenly spread.
    due: Instant,
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(limit: RateLimit) -> Self {
        let every = limit.per / limit.starts;
        Self {
            every,
            ahead: every.saturating_mul(limit.burst - 1),
            due: Instant::now(),
        }
    }

    /// When the next may start; `None` if now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        let at = self.due.checked_sub(self.ahead)?;
        (at > now).then_some(at)
    }

    /// One that was to start did not.
    pub(super) fn give_back(&mut self) {
        self.due = self.due.checked_sub(self.every).unwrap_or(self.due);
    }

    /// One starts.
    pub(super) fn take(&mut self, now: Instant) {
        self.due = after(self.due.max(now), self.every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_even_steps() {
        let mut bucket = Bucket::new(RateLimit::per_second(10).burst(3));
        let start = bucket.due;
        let mut now = start;
        let mut at = Vec::new();
        for _ in 0..6 {
            now = bucket.wait(now).unwrap_or(now);
            at.push((now - start).as_millis());
            bucket.take(now);
        }
        assert_eq!(at, [0, 0, 0, 100, 200, 300]);
        now += Duration::from_secs(60);
        assert_eq!(bucket.wait(now), None);
    }
}
