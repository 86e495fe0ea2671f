//! Whether a server's own tasks get to run.

use std::time::Duration;

/// What liveness is made of: see [`Live::pulse`](crate::Live::pulse).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulse {
    /// How long ago the server's heart beat; `None` before it serves and after it has stopped.
    pub last_beat: Option<Duration>,
    /// Work that is stuck although nothing stands in its way, such as a message that is ready and a
    /// free lane that does not take it.
    pub stuck: Option<String>,
}
