//! Consumer groups: order and retry policy.

use std::time::Duration;

/// The first step of the default back-off, and how the rest follows, in seconds.
const DEFAULT_BACKOFF_SECONDS: [u64; 18] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// Retries after the first attempt that a group gets unless it says otherwise.
pub const DEFAULT_RETRY_MAX_TIMES: u32 = 16;

/// How long a failed message waits, as the server advises its consumers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Backoff {
    /// One duration per attempt; the last one serves all later attempts.
    Customized(Vec<Duration>),
    /// `initial × multiplier^(attempt − 1)`, at most `max`.
    Exponential {
        /// The wait after the first attempt.
        initial: Duration,
        /// The longest wait.
        max: Duration,
        /// What each wait is multiplied with to get the next.
        multiplier: f32,
    },
}

/// The settings of a consumer group.
///
/// ```
/// use rocketmq_devbroker::GroupConfig;
///
/// let strict_order = GroupConfig::new().fifo(true).retry_max_times(2);
/// # let _ = strict_order;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    pub(crate) fifo: bool,
    pub(crate) retry_max_times: u32,
    pub(crate) backoff: Backoff,
}

impl GroupConfig {
    /// A group without order that retries 16 times, after 1 s, 5 s, 10 s … 2 h.
    #[must_use]
    pub fn new() -> Self {
        let backoff = DEFAULT_BACKOFF_SECONDS.map(Duration::from_secs).to_vec();
        Self {
            fifo: false,
            retry_max_times: DEFAULT_RETRY_MAX_TIMES,
            backoff: Backoff::Customized(backoff),
        }
    }

    /// Whether the group consumes in order: a queue's batch blocks the queue until it is settled.
    #[must_use]
    pub fn fifo(mut self, fifo: bool) -> Self {
        self.fifo = fifo;
        self
    }

    /// How many times a message is delivered again after its first attempt, before it becomes a
    /// dead letter.
    #[must_use]
    pub fn retry_max_times(mut self, times: u32) -> Self {
        self.retry_max_times = times;
        self
    }

    /// The waits between attempts that consumers are told.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Deliveries of one message before it becomes a dead letter.
    pub(crate) fn max_attempts(&self) -> u32 {
        self.retry_max_times.saturating_add(1)
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// The topic that holds what `group` has given up.
#[must_use]
pub fn dead_letter_topic(group: &str) -> String {
    format!("%DLQ%{group}")
}
