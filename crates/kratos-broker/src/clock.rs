//! Time arithmetic that takes any duration a user may write, and a clock that is read seldom.

use std::time::Duration;

use tokio::time::Instant;

/// What is further away than this is as good as never: about 30 years.
const NEVER: Duration = Duration::from_secs(86_400 * 365 * 30);

/// The instant `wait` after `from`; one that is practically never if there is none.
pub(crate) fn after(from: Instant, wait: Duration) -> Instant {
    from.checked_add(wait.min(NEVER)).unwrap_or(from)
}

/// The instant `wait` from now.
pub(crate) fn from_now(wait: Duration) -> Instant {
    after(Instant::now(), wait)
}

/// The instant `wait` before `at`, if there is one: undoes [`after`].
pub(crate) fn before(at: Instant, wait: Duration) -> Option<Instant> {
    at.checked_sub(wait.min(NEVER))
}

/// How many uses of [`Recently`] share one look at the clock.
const USES_PER_LOOK: u32 = 32;

/// How late it may be meanwhile: 32 handlers that compute for an eighth of a second and never wait.
const LATE_MAX: Duration = Duration::from_secs(4);

/// The time as a lane knows it. To read the clock may cost more than everything else that is done
/// for a message, so one that never waits reads it once in 32 messages or more often, and each time it has waited.
///
/// What depends on it are looks at leases, before a handler starts and before its message is
/// settled: one that ends after the horizon is not over yet, for any other the clock is asked. Those
/// end soon only if they could not be extended.
#[derive(Debug)]
pub(crate) struct Recently {
    horizon: Instant,
    left: u32,
}

impl Recently {
    pub(crate) fn new() -> Self {
        Self {
            horizon: from_now(LATE_MAX),
            left: USES_PER_LOOK,
        }
    }

    /// A time that has not come.
    #[inline]
    pub(crate) fn horizon(&mut self) -> Instant {
        if self.left == 0 {
            *self = Self::new();
        }
        self.left -= 1;
        self.horizon
    }

    /// Time has passed.
    pub(crate) fn forget(&mut self) {
        self.left = 0;
    }
}
