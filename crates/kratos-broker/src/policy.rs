//! What happens after a failure: how often, and how soon, a message is tried again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// How often a message is tried, and how long to wait in between.
///
/// By default the lower of 16 attempts and the group's own limit on the broker applies. More
/// [`max_attempts`](Policy::max_attempts) than the broker gives are an error at `bind`. A message whose last attempt failed is dead-lettered.
///
/// ```
/// use std::time::Duration;
/// use kratos_broker::{Backoff, Policy};
///
/// let policy = Policy::new().max_attempts(5).backoff(Backoff::fixed(Duration::from_secs(1)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Policy {
    pub(crate) max_attempts: u32,
    /// Somebody chose `max_attempts`: the broker must give as many.
    chosen: bool,
    pub(crate) backoff: Backoff,
}

/// Exponential back-off with jitter. The jitter only adds: a retry is never early.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Backoff {
    first: Duration,
    factor: f64,
    max: Duration,
    jitter: f64,
}

// === impl Policy ===

impl Policy {
    /// 16 attempts; 1 s after the first, doubled up to 5 minutes, with up to 20 % jitter.
    pub const fn new() -> Self {
        Self {
            max_attempts: 16,
            chosen: false,
            backoff: Backoff {
                first: Duration::from_secs(1),
                factor: 2.0,
                max: Duration::from_secs(300),
                jitter: 0.2,
            },
        }
    }

    /// For messages whose order is kept, which are retried in this process while all behind them
    /// wait: 3 attempts; 0.2 s after the first, doubled up to 5 s.
    pub const fn ordered() -> Self {
        Self {
            max_attempts: 3,
            chosen: false,
            backoff: Backoff {
                first: Duration::from_millis(200),
                factor: 2.0,
                max: Duration::from_secs(5),
                jitter: 0.2,
            },
        }
    }

    /// Sets after how many attempts a message is dead-lettered; at least 1. The start fails if the
    /// broker gives the group fewer. (Not so in
    /// [`ordered_policy`](crate::Subscription::ordered_policy), whose attempts are ours alone.)
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = if attempts == 0 { 1 } else { attempts };
        self.chosen = true;
        self
    }

    /// The attempts that somebody asked for.
    pub(crate) fn chosen_attempts(&self) -> Option<u32> {
        self.chosen.then_some(self.max_attempts)
    }

    /// Sets how long to wait between attempts.
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Backoff ===

impl Backoff {
    /// Doubles from `first` up to `max`, with up to 20 % jitter.
    pub const fn exponential(first: Duration, max: Duration) -> Self {
        Self {
            first,
            factor: 2.0,
            max,
            jitter: 0.2,
        }
    }

    /// The same wait every time, without jitter.
    pub const fn fixed(wait: Duration) -> Self {
        Self {
            first: wait,
            factor: 1.0,
            max: wait,
            jitter: 0.0,
        }
    }

    /// Sets the jitter: up to this fraction of a wait is added to it; 0 to 1.
    pub const fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction.clamp(0.0, 1.0);
        self
    }

    /// How long to wait after failed attempt number `attempt`, jitter included.
    pub(crate) fn after(&self, attempt: u32) -> Duration {
        let steps = attempt.saturating_sub(1).min(64);
        let base = self.first.as_secs_f64() * self.factor.powi(steps.cast_signed());
        let base = base.min(self.max.as_secs_f64());
        Duration::try_from_secs_f64(base * (1.0 + self.jitter * random_fraction()))
            .unwrap_or(self.max)
    }
}

/// A number in 0..1, good enough to spread retries.
fn random_fraction() -> f64 {
    // Every `RandomState` has other keys: std's own source of randomness, no dependency for it.
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    // 53 bits are what a double holds.
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_maximum_and_jitter_only_adds() {
        let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(4));
        for (attempt, base) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0), (u32::MAX, 4.0)] {
            for _ in 0..50 {
                let wait = backoff.after(attempt).as_secs_f64();
                assert!(
                    (base..=base * 1.2 + 1e-6).contains(&wait),
                    "{attempt}: {wait}"
                );
            }
        }
    }

    #[test]
    fn fixed_backoff_is_exact() {
        let backoff = Backoff::fixed(Duration::from_secs(7));
        assert_eq!(backoff.after(1), Duration::from_secs(7));
        assert_eq!(backoff.after(9), Duration::from_secs(7));
    }
}
