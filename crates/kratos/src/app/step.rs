//! One step of the lifecycle: in a task of its own, caught if it panics, given up at its time.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::{
    task::JoinError,
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{Error, Result};

/// How a step went wrong, before it is told with the name of the culprit.
#[derive(Debug)]
pub(super) enum Failed {
    Error(Error),
    Panic(String),
    TimedOut(Duration),
}

/// A step that runs in its own task, dropped with the future that waits for it.
pub(super) type Task<T> = AbortOnDropHandle<Result<T, Failed>>;

/// Runs `step` until `by`. Dropping this future aborts the step.
pub(super) async fn run<T, F>(by: Instant, step: F) -> Result<T, Failed>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let begun = Instant::now();
    match timeout_at(by, spawn(step)).await {
        Ok(ended) => joined(ended),
        Err(_elapsed) => Err(Failed::TimedOut(begun.elapsed())),
    }
}

/// Starts `step` in a task of its own: one that blocks its thread must not keep the App from its
/// deadline.
pub(super) fn spawn<T, F>(step: F) -> Task<T>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(caught(step)))
}

pub(super) fn joined<T>(ended: Result<Result<T, Failed>, JoinError>) -> Result<T, Failed> {
    // Panics are caught inside; what is left is a runtime that shuts down.
    ended.unwrap_or_else(|e| Err(Failed::Panic(e.to_string())))
}

/// Runs `step` in this task; a panic becomes an error.
pub(super) async fn caught<T>(step: impl Future<Output = Result<T>>) -> Result<T, Failed> {
    match AssertUnwindSafe(step).catch_unwind().await {
        Ok(done) => done.map_err(Failed::Error),
        Err(payload) => Err(Failed::Panic(words(&*payload))),
    }
}

impl Failed {
    /// The error in the words "`what` failed", "`what` panicked", "`what` did not finish".
    pub(super) fn named(self, what: &str) -> Error {
        match self {
            Self::Error(error) => error.context(format!("{what} failed")),
            Self::Panic(words) => Error::msg(format!("{what} panicked: {words}")),
            Self::TimedOut(after) => Error::msg(format!(
                "{what} did not finish in its {:.1} s",
                after.as_secs_f64()
            )),
        }
    }
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
