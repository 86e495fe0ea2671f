//! How often handlers may start.

use std::time::Duration;

/// How many handlers of a subscription may start in a time, over all its lanes in this process.
///
/// Evenly spread, with a burst after idle times. Retries are starts too; a batch is one. What waits for its turn
/// keeps its lease.
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
    /// At most `starts` a second; at least 1. The burst is a tenth of it.
    pub const fn per_second(starts: u32) -> Self {
        Self::per(starts, Duration::from_secs(1))
    }

    /// At most `starts` in each `time`; at least 1. The burst is what falls into a tenth of a
    /// second.
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
}
