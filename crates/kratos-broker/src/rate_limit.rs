//! How often handlers may start.

use std::time::Duration;

/// How many handlers of a subscription may start in a time, over all its lanes in this process.
///
/// On average: starts are evenly spread, and after an idle time, the start of the process too, a
/// [`burst`](RateLimit::burst) comes at once. In any stretch of time there are at most the burst more
/// than the rate says; where a quota must never be exceeded choose a burst of 1. Retries are starts
/// too; a batch is one.
///
/// What waits for its turn keeps its lease, and no more is received than may start within half of
/// [`max_hold`](crate::Subscription::max_hold). A stop hands back what waits; what it must finish
/// keeps to the limit, and what would start only after the end is reported.
///
/// ```
/// use kratos_broker::{RateLimit, Subscription};
///
/// let subscription = Subscription::new("invoices", "mailer")
///     .rate_limit(RateLimit::per_second(50).burst(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RateLimit {
    pub(crate) starts: u32,
    pub(crate) per: Duration,
    pub(crate) burst: u32,
}

impl RateLimit {
    /// On average `starts` a second; at least 1. The burst is a tenth of it.
    pub const fn per_second(starts: u32) -> Self {
        Self::per(starts, Duration::from_secs(1))
    }

    /// On average `starts` in each `time`; at least 1. The burst is what falls into a tenth of a
    /// second, at least 1. The start of a server fails with a time of 0.
    pub const fn per(starts: u32, time: Duration) -> Self {
        let starts = if starts == 0 { 1 } else { starts };
        let millis = time.as_millis();
        let burst = match millis {
            0 => starts,
            _ => (starts as u128 * 100 / millis) as u32,
        };
        Self {
            starts,
            per: time,
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    /// Sets how many may start at once after an idle time; at least 1.
    pub const fn burst(mut self, starts: u32) -> Self {
        self.burst = if starts == 0 { 1 } else { starts };
        self
    }

    /// How many start in a time, at most; at least 1.
    pub(crate) fn starts_in(&self, time: Duration) -> usize {
        let every = (self.per / self.starts).as_nanos().max(1);
        let starts = (time.as_nanos() / every).saturating_add(u128::from(self.burst));
        usize::try_from(starts).unwrap_or(usize::MAX)
    }
}
