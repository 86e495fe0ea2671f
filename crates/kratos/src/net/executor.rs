//! Where hyper runs the streams of an HTTP/2 connection.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// Runs tasks that end when the token is cancelled: hyper detaches what it spawns.
#[derive(Clone, Debug)]
pub(super) struct Executor {
    cut: CancellationToken,
}

impl Executor {
    pub(super) fn new(cut: CancellationToken) -> Self {
        Self { cut }
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let cut = self.cut.clone();
        tokio::spawn(async move { cut.run_until_cancelled(future).await });
    }
}
