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
const USES_PER_LOOK: u32 = 64;

/// The time as a lane knows it. To read the clock may cost more than everything else that is done
/// for a message, so one that never waits reads it once in 32 messages, and each time it has waited.
///
/// What depends on it are looks at leases, before a handler starts and before its message is
/// settled. The keeper looks at them as well, by the clock.
#[derive(Debug)]
pub(crate) struct Recently {
    at: Instant,
    left: u32,
}

impl Recently {
    pub(crate) fn new() -> Self {
        Self {
            at: Instant::now(),
            left: USES_PER_LOOK,
        }
    }

    pub(crate) fn now(&mut self) -> Instant {
        if self.left == 0 {
            *self = Self::new();
        }
        self.left -= 1;
        self.at
    }

    /// Time has passed.
    pub(crate) fn forget(&mut self) {
        self.left = 0;
    }
}
