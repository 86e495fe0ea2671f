//! The one place where time is read: tokio's clock, so that tests may pause it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::state::Timestamp;

/// Turns tokio's monotonic time into timestamps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    epoch: Timestamp,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let epoch = Timestamp::default().plus(since_epoch.unwrap_or_default());
        Self {
            origin: Instant::now(),
            epoch,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.epoch.plus(self.origin.elapsed())
    }

    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        let after: Duration = at.since(self.epoch);
        self.origin
            .checked_add(after)
            .unwrap_or_else(|| self.origin + FAR)
    }
}

/// As good as never, and far from overflow.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
