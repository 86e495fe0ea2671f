//! How large a batch may be, and how long it waits.

use std::time::Duration;

/// Most messages of a batch.
const MESSAGES_MAX: usize = 10_000;

/// Longest wait for a batch to fill.
const LINGER_MAX: Duration = Duration::from_secs(60);

/// How large a batch may be, and how long it waits to become so.
///
/// ```
/// use std::time::Duration;
/// use kratos_broker::BatchSettings;
///
/// let settings = BatchSettings::new(500).max_bytes(1024 * 1024).linger(Duration::from_millis(50));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct BatchSettings {
    pub(crate) max_messages: usize,
    pub(crate) max_bytes: usize,
    pub(crate) linger: Duration,
}

impl BatchSettings {
    /// At most this many messages, 1 to 10,000, and 4 MiB of bodies; what is there, without waiting
    /// for more.
    ///
    /// A trace's span has a link for each message; OpenTelemetry keeps 128 by default.
    pub fn new(max_messages: usize) -> Self {
        Self {
            max_messages: max_messages.clamp(1, MESSAGES_MAX),
            max_bytes: 4 * 1024 * 1024,
            linger: Duration::ZERO,
        }
    }

    /// Sets how many bytes the bodies of a batch may have together. A larger message comes by
    /// itself.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes.max(1);
        self
    }

    /// Sets how long a batch that is not full waits for more after its first message: not at all
    /// by default, 60 s at most. A stop ends the wait.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger.min(LINGER_MAX);
        self
    }
}
