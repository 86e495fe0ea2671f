//! A future in a span.

use std::{
    fmt,
    pin::Pin,
    task::{Context as Wakes, Poll},
};

use opentelemetry::Context;
use pin_project_lite::pin_project;
use tracing::Span;

pin_project! {
    /// The future of [`scope`](super::scope). It is dropped within its span as well.
    ///
    /// What `tracing` and OpenTelemetry have for this enter the span once more to drop a future
    /// that is done: that is a third of what they cost.
    pub struct Scoped<F> {
        span: Span,
        carried: Context,
        // Until it is done.
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                let _carried = this.carried.clone().attach();
                let _entered = this.span.enter();
                this.future.set(None);
            }
        }
    }
}

impl<F> Scoped<F> {
    pub(super) fn new(span: Span, carried: Context, future: F) -> Self {
        Self {
            span,
            carried,
            future: Some(future),
        }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Wakes<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let _carried = this.carried.clone().attach();
        let _entered = this.span.enter();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Pending; // polled after it was done
        };
        let output = std::task::ready!(future.poll(cx));
        this.future.set(None);
        Poll::Ready(output)
    }
}

impl<F> fmt::Debug for Scoped<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped")
            .field("span", &self.span)
            .finish_non_exhaustive()
    }
}
