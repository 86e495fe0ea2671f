//! Delays: jittered back-off for connections and requests, and the server's retry policy.

use std::time::Duration;

use rocketmq_proto::v2 as pb;
use uuid::Uuid;

use crate::convert;

/// Doubling delays from `first` to `max`, each drawn from its upper half.
///
/// The jitter keeps the clients of a restarted server from coming back at the same instant.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

/// How long the server wants a failed message to wait, by attempt.
///
/// A consumer group has such a policy on the server; [`Lease`](crate::Lease) users choose their own
/// delay with [`Settlement::RetryAfter`](crate::Settlement::RetryAfter), this one is what other
/// clients of the group use.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryDelays {
    policy: Policy,
}

#[derive(Debug, Clone, PartialEq)]
enum Policy {
    Exponential {
        initial: Duration,
        max: Duration,
        multiplier: f32,
    },
    Steps(Vec<Duration>),
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            next: first,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.next.min(self.max);
        self.next = delay.saturating_mul(2);
        jitter(delay)
    }
}

/// A random duration between half of `delay` and `delay`.
pub(crate) fn jitter(delay: Duration) -> Duration {
    let unit = (random_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    delay.mul_f64(0.5 + 0.5 * unit)
}

pub(crate) fn random_u64() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // The fixed bits of a version 4 UUID sit in different places of the halves.
    high ^ low.rotate_left(32)
}

// === impl RetryDelays ===

impl Default for RetryDelays {
    /// The delays of the Apache server's default policy: 1 s, 5 s, 10 s, 30 s, 1 min … 2 h.
    fn default() -> Self {
        let seconds = [
            1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
        ];
        Self {
            policy: Policy::Steps(seconds.map(Duration::from_secs).to_vec()),
        }
    }
}

impl RetryDelays {
    /// Delay after the failed delivery number `attempt` (the first is 1).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let delays = rocketmq_grpc::RetryDelays::default();
    /// assert_eq!(delays.after_attempt(1), Duration::from_secs(1));
    /// assert_eq!(delays.after_attempt(2), Duration::from_secs(5));
    /// assert_eq!(delays.after_attempt(1_000), Duration::from_secs(7_200));
    /// ```
    #[must_use]
    pub fn after_attempt(&self, attempt: u32) -> Duration {
        let failed = attempt.max(1) - 1;
        match &self.policy {
            Policy::Exponential {
                initial,
                max,
                multiplier,
            } => {
                let exponent = i32::try_from(failed).unwrap_or(i32::MAX);
                let seconds = initial.as_secs_f64() * f64::from(*multiplier).powi(exponent);
                // NaN and infinity end at the maximum, too.
                if seconds < max.as_secs_f64() {
                    Duration::from_secs_f64(seconds)
                } else {
                    *max
                }
            }
            Policy::Steps(steps) => {
                let last = steps.len().saturating_sub(1);
                let at = usize::try_from(failed).unwrap_or(usize::MAX).min(last);
                steps.get(at).copied().unwrap_or(Duration::from_secs(1))
            }
        }
    }

    pub(crate) fn from_proto(policy: &pb::RetryPolicy) -> Option<Self> {
        use pb::retry_policy::Strategy;
        let policy = match policy.strategy.as_ref()? {
            Strategy::ExponentialBackoff(it) => Policy::Exponential {
                initial: it.initial.as_ref().map(convert::duration)?,
                max: it.max.as_ref().map(convert::duration)?,
                multiplier: if it.multiplier >= 1.0 {
                    it.multiplier
                } else {
                    1.0
                },
            },
            Strategy::CustomizedBackoff(it) if !it.next.is_empty() => {
                Policy::Steps(it.next.iter().map(convert::duration).collect())
            }
            Strategy::CustomizedBackoff(_) => return None,
        };
        Some(Self { policy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for limit in [1, 2, 4, 8, 16, 30, 30, 30] {
            let limit = Duration::from_secs(limit);
            let delay = backoff.next_delay();
            assert!(
                delay >= limit / 2 && delay <= limit,
                "{delay:?} of {limit:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }

    #[test]
    fn exponential_policy_is_capped_and_survives_odd_numbers() {
        let seconds = |s| prost_types::Duration {
            seconds: s,
            nanos: 0,
        };
        let policy = |multiplier| pb::RetryPolicy {
            max_attempts: 3,
            strategy: Some(pb::retry_policy::Strategy::ExponentialBackoff(
                pb::ExponentialBackoff {
                    initial: Some(seconds(1)),
                    max: Some(seconds(10)),
                    multiplier,
                },
            )),
        };
        let delays = RetryDelays::from_proto(&policy(2.0)).unwrap();
        let got: Vec<_> = [0, 1, 2, 4, 5, u32::MAX]
            .map(|n| delays.after_attempt(n).as_secs())
            .into();
        assert_eq!(got, [1, 1, 2, 8, 10, 10]);
        let odd = RetryDelays::from_proto(&policy(f32::NAN)).unwrap();
        assert_eq!(odd.after_attempt(7), Duration::from_secs(1));
    }

    #[test]
    fn empty_customized_policy_is_refused() {
        let policy = pb::RetryPolicy {
            max_attempts: 1,
            strategy: Some(pb::retry_policy::Strategy::CustomizedBackoff(
                Default::default(),
            )),
        };
        assert_eq!(RetryDelays::from_proto(&policy), None);
    }
}
