//! What happens after a failure: how often, and how soon, a message is tried again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// How often a message is tried, how long to wait in between, and who tries again: this process,
/// which keeps the message, or the broker, which delivers it again to any member of the group.
///
/// | messages | their policy | retries by default |
/// |---|---|---|
/// | without a key | [`policy`](crate::Subscription::policy), [`Policy::new`] | by the broker, 16 attempts |
/// | with a key, whose order is kept | [`ordered_policy`](crate::Subscription::ordered_policy), [`Policy::ordered`] | in this process, 3 attempts |
/// | of a [`fifo`](crate::Subscription::fifo) subscription | the same | in this process, always |
///
/// * **In this process** the message keeps its lease and its place: the ones behind it in its key
///   wait, nothing else does. It counts against the subscription's room meanwhile. A stop hands it
///   back.
/// * **By the broker** it costs one of the group's attempts, and its key goes on without it.
/// * [`in_process`](Policy::in_process) makes the first retries here and leaves the rest to the
///   broker.
///
/// Where the broker retries, the lower of the policy's attempts and the group's own limit applies;
/// more [`max_attempts`](Policy::max_attempts) than the broker gives are an error at `bind`. Where
/// all retries are made here, attempts are counted here, per delivery. A message whose last attempt
/// failed goes where [`DeadLetter`](crate::DeadLetter) says.
///
/// ```
/// use std::time::Duration;
/// use kratos_broker::{Backoff, Policy};
///
/// // Attempts 1 to 3 here, 4 and 5 after a delivery by the broker.
/// let policy = Policy::new()
///     .max_attempts(5)
///     .in_process(2)
///     .backoff(Backoff::exponential(Duration::from_millis(100), Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Policy {
    pub(crate) max_attempts: u32,
    /// Somebody chose `max_attempts`: the broker must give as many.
    chosen: bool,
    /// So many retries are made in this process.
    in_process: u32,
    pub(crate) backoff: Backoff,
}

/// The attempt that has just failed, as a policy counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Its number, 1 for the first.
    pub(crate) attempt: u32,
    /// There is no other.
    pub(crate) exhausted: bool,
    /// The next is made in this process.
    pub(crate) here: bool,
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
            in_process: 0,
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
            in_process: u32::MAX,
            backoff: Backoff {
                first: Duration::from_millis(200),
                factor: 2.0,
                max: Duration::from_secs(5),
                jitter: 0.2,
            },
        }
    }

    /// Sets after how many attempts a message is given up; at least 1. The start fails if the
    /// broker gives the group fewer than are to be made by it.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = if attempts == 0 { 1 } else { attempts };
        self.chosen = true;
        self
    }

    /// Sets how many retries are made in this process before the broker is asked: 0 in
    /// [`Policy::new`], all in [`Policy::ordered`]. A retry that would be due only after the lease
    /// can be [held no longer](crate::Subscription::max_hold) is the broker's. So are those of a
    /// message that comes again, unless all are made here.
    ///
    /// A message that comes again counts as one that has had its retries here: nobody can know what
    /// another process has made of it. One that nobody has seen, because its process crashed, or
    /// stopped where a hand-back spends an attempt, has therefore used up `1 + retries` attempts, and
    /// with a `max_attempts` of `retries + 2` is given up after one failure. Leave it a few more.
    pub const fn in_process(mut self, retries: u32) -> Self {
        self.in_process = retries;
        self
    }

    /// Whether the broker is never asked for a retry.
    pub(crate) const fn is_all_here(&self) -> bool {
        self.in_process.saturating_add(1) >= self.max_attempts
    }

    /// Retries in this process.
    #[cfg(feature = "asyncapi")]
    pub(crate) fn retries_here(&self) -> u32 {
        self.in_process.min(self.max_attempts.saturating_sub(1))
    }

    /// The attempts that somebody asked for and the broker must give.
    pub(crate) fn chosen_attempts(&self) -> Option<u32> {
        let chosen = self.chosen && !self.is_all_here();
        chosen.then_some(self.max_attempts.saturating_sub(self.in_process))
    }

    /// Counts a failed attempt: of a message in its delivery number `delivered` by the broker, which
    /// gives `limit` of them, after `failures` earlier failures of this delivery in this process.
    #[inline]
    pub(crate) fn tally(&self, delivered: u32, limit: Option<u32>, failures: u32) -> Tally {
        if self.is_all_here() {
            let attempt = failures.saturating_add(1);
            return Tally {
                attempt,
                exhausted: attempt >= self.max_attempts,
                here: true,
            };
        }
        // One that comes again has had its retries here.
        let before = if delivered > 1 {
            self.in_process
        } else {
            failures
        };
        let attempt = delivered.saturating_add(before);
        let here = delivered == 1 && failures < self.in_process;
        let given_up = !here && limit.is_some_and(|limit| delivered >= limit);
        Tally {
            attempt,
            exhausted: attempt >= self.max_attempts || given_up,
            here,
        }
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

    /// First and longest wait, factor, jitter.
    #[cfg(feature = "asyncapi")]
    pub(crate) fn shape(&self) -> (Duration, Duration, f64, f64) {
        (self.first, self.max, self.factor, self.jitter)
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

    /// What follows the failed attempts of deliveries by a broker that gives 4: the attempt's
    /// number, and `h`ere, `b`roker or `x`.
    fn course(policy: &Policy) -> Vec<(u32, char)> {
        let mut course = Vec::new();
        for delivered in 1..=4 {
            for failures in 0.. {
                let tally = policy.tally(delivered, Some(4), failures);
                let next = match tally {
                    Tally {
                        exhausted: true, ..
                    } => 'x',
                    Tally { here: true, .. } => 'h',
                    _ => 'b',
                };
                course.push((tally.attempt, next));
                match next {
                    'h' => {}
                    'b' => break,
                    _ => return course,
                }
            }
        }
        course
    }

    #[test]
    fn retries_are_made_here_then_by_the_broker_and_attempts_are_capped() {
        let three = Policy::new().max_attempts(3);
        assert_eq!(course(&three), [(1, 'b'), (2, 'b'), (3, 'x')]);
        let mixed = three.clone().max_attempts(5).in_process(2);
        assert_eq!(mixed.chosen_attempts(), Some(3));
        assert_eq!(
            course(&mixed),
            [(1, 'h'), (2, 'h'), (3, 'b'), (4, 'b'), (5, 'x')]
        );
        let brokers = Policy::new().in_process(1);
        assert_eq!(
            course(&brokers),
            [(1, 'h'), (2, 'b'), (3, 'b'), (4, 'b'), (5, 'x')],
            "the broker gives no more"
        );
        for all in [Policy::ordered(), three.in_process(2)] {
            assert_eq!(course(&all), [(1, 'h'), (2, 'h'), (3, 'x')]);
            assert_eq!(all.chosen_attempts(), None);
            let again = all.tally(9, Some(4), 0);
            assert_eq!((again.attempt, again.exhausted), (1, false), "ours alone");
        }
    }

    #[test]
    fn fixed_backoff_is_exact() {
        let backoff = Backoff::fixed(Duration::from_secs(7));
        assert_eq!(backoff.after(1), Duration::from_secs(7));
        assert_eq!(backoff.after(9), Duration::from_secs(7));
    }
}
