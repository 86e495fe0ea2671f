//! Time arithmetic that takes any duration a user may write.

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
