//! The future of one call of a handler: its own, or a rejection known at once. No box.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{Classify, Failure, HandlerError};
use crate::Rejection;

pin_project! {
    /// The future of one call of a [`Handler`](super::Handler).
    pub struct HandlerFuture<F> {
        rejected: Option<Failure>,
        #[pin]
        running: Option<F>,
        classify: Option<Classify>,
    }
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a message handler cannot return `{Self}`",
    note = "it returns () or Result<(), E> where E: HandlerError",
    note = "a handler of batches returns more, and is given to subscribe_batch"
)]
pub trait HandlerReturn: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self, classify: &Classify) -> Result<(), Failure>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
}

// === impl HandlerReturn ===

impl HandlerReturn for () {
    fn into_result(self, _: &Classify) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: HandlerError> HandlerReturn for Result<(), E> {
    fn into_result(self, classify: &Classify) -> Result<(), Failure> {
        self.map_err(|error| {
            let classified = classify.0.ask(&error as &dyn Any);
            Failure::of(&error, classified)
        })
    }
}

// === impl HandlerFuture ===

impl<F> HandlerFuture<F> {
    pub(crate) fn running(future: F, classify: Classify) -> Self {
        Self {
            rejected: None,
            running: Some(future),
            classify: Some(classify),
        }
    }

    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self {
            rejected: Some(rejection.into()),
            running: None,
            classify: None,
        }
    }
}

impl<F: Future<Output: HandlerReturn>> Future for HandlerFuture<F> {
    type Output = Result<(), Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let (Some(running), Some(classify)) = (this.running.as_pin_mut(), &this.classify) {
            return running.poll(cx).map(|output| output.into_result(classify));
        }
        match this.rejected.take() {
            Some(failure) => Poll::Ready(Err(failure)),
            None => Poll::Pending, // polled after it was done
        }
    }
}

impl<F> fmt::Debug for HandlerFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerFuture")
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}
