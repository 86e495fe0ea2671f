//! What servers use: brokers, pools, telemetry.

use std::future::Future;

use tokio::time::Instant;

use crate::{Description, Result, StartContext};

/// Something that is opened before any server is bound and closed after all have drained.
///
/// Resources open in the order they were added and close in reverse.
pub trait Resource: Send + 'static {
    /// The name in logs and errors.
    fn name(&self) -> &str;

    /// What can be checked of it before the App runs, and its parts of documents. Does no I/O.
    fn describe(&self) -> Description {
        Description::default()
    }

    /// Connects, and checks that the other side answers.
    ///
    /// # Errors
    ///
    /// A [transient](crate::Error::is_transient) error is retried by the App, with back-off, until
    /// the start timeout; any other ends the start.
    fn open(&mut self, cx: StartContext) -> impl Future<Output = Result<()>> + Send;

    /// Flushes and closes; every clone is closed with it. Returns by the instant `by`.
    ///
    /// # Errors
    ///
    /// What could not be flushed. The App reports it and goes on closing.
    fn close(self, by: Instant) -> impl Future<Output = Result<()>> + Send;
}
