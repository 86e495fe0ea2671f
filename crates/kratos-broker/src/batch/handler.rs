//! Batch handlers: plain async functions of extractors and a batch.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Batch, BatchItem, BatchOutcome, Deliveries, FromBatch, Outcomes};
use crate::{BodyType, Failure, FromDelivery, HandlerError, handler::Classify};

/// A plain async function of up to seven extractors ([`FromBatch`]) and, last, a [`Batch`].
///
/// Implemented for functions and closures; it cannot be implemented elsewhere. The function
/// returns
///
/// * `Result<(), E>` with `E:` [`HandlerError`]: all messages succeeded, or all failed alike;
/// * [`BatchOutcome`]: each by itself;
/// * `Result<BatchOutcome<E>, F>`: each by itself, or all failed alike;
/// * `()`: all succeeded.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler for state `{S}`",
    label = "not a batch handler",
    note = "its last argument is Batch<T>; it returns (), Result<(), E>, BatchOutcome<E>, or a Result of that"
)]
pub trait BatchHandler<T, S>: sealed::Handler<T> + Clone + Send + Sync + 'static {
    #[doc(hidden)]
    type Future: Future<Output = Result<Outcomes, Failure>> + Send;

    #[doc(hidden)]
    fn call(&self, batch: &Deliveries, state: &S, classify: &Classify) -> Self::Future;

    /// What it makes of a body.
    #[doc(hidden)]
    fn body() -> Option<BodyType>;
}

/// What a batch handler may return.
#[diagnostic::on_unimplemented(
    message = "a batch handler cannot return `{Self}`",
    note = "it returns (), Result<(), E>, BatchOutcome<E> or Result<BatchOutcome<E>, F>",
    note = "where E and F are errors with a policy: `impl HandlerError for E {{}}`"
)]
pub trait BatchReturn: sealed::Return {
    #[doc(hidden)]
    fn into_outcomes(self, count: usize, classify: &Classify) -> Result<Outcomes, Failure>;
}

mod sealed {
    pub trait Handler<T> {}

    pub trait Return {}
}

pin_project! {
    /// The future of one call of a [`BatchHandler`].
    pub struct BatchFuture<F> {
        known: Option<Result<Outcomes, Failure>>,
        #[pin]
        running: Option<F>,
        classify: Option<Classify>,
        count: usize,
    }
}

/// The innermost service of a batch subscription: calls the handler with the router's state.
pub struct BatchService<H, T, S> {
    handler: H,
    state: S,
    classify: Classify,
    arguments: PhantomData<fn() -> T>,
}

// === impl BatchHandler ===

macro_rules! handler {
    ($($arg:ident)*) => {
        impl<F, Fut, S, B, $($arg,)*> BatchHandler<($($arg,)* Batch<B>,), S> for F
        where
            F: Fn($($arg,)* Batch<B>) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send,
            Fut::Output: BatchReturn,
            B: FromDelivery<S>,
            $($arg: FromBatch<S>,)*
        {
            type Future = BatchFuture<Fut>;

            #[allow(non_snake_case, reason = "the names of types serve for values")]
            fn call(&self, batch: &Deliveries, state: &S, classify: &Classify) -> Self::Future {
                let items = decode(batch, state);
                if items.is_empty() {
                    return BatchFuture::known(Ok(Outcomes::ok()));
                }
                $(
                    let $arg = match $arg::from_batch(batch, state) {
                        Ok(value) => value,
                        Err(rejection) => return BatchFuture::known(Err(rejection.into())),
                    };
                )*
                let count = items.len();
                let running = self($($arg,)* Batch::from(items));
                BatchFuture::running(running, count, classify.clone())
            }

            fn body() -> Option<BodyType> {
                B::body()
            }
        }

        impl<F, Fut, B, $($arg,)*> sealed::Handler<($($arg,)* Batch<B>,)> for F
        where
            F: Fn($($arg,)* Batch<B>) -> Fut,
        {
        }
    };
}

handler!();
handler!(A1);
handler!(A1 A2);
handler!(A1 A2 A3);
handler!(A1 A2 A3 A4);
handler!(A1 A2 A3 A4 A5);
handler!(A1 A2 A3 A4 A5 A6);
handler!(A1 A2 A3 A4 A5 A6 A7);

/// Makes the items of a batch; what is rejected is noted, and not among them.
fn decode<B: FromDelivery<S>, S>(batch: &Deliveries, state: &S) -> Vec<BatchItem<B>> {
    let mut items = Vec::with_capacity(batch.len());
    let mut rejected = Vec::new();
    for (index, delivery) in batch.iter().enumerate() {
        match B::from_delivery(delivery, state) {
            Ok(body) => items.push(BatchItem {
                body,
                delivery: delivery.clone(),
            }),
            Err(rejection) => rejected.push((index, rejection.into())),
        }
    }
    let noted = batch.rejected();
    *noted.lock().unwrap_or_else(PoisonError::into_inner) = rejected;
    items
}

// === impl BatchReturn ===

impl BatchReturn for () {
    fn into_outcomes(self, _: usize, _: &Classify) -> Result<Outcomes, Failure> {
        Ok(Outcomes::ok())
    }
}

impl<E: HandlerError> BatchReturn for Result<(), E> {
    fn into_outcomes(self, _: usize, classify: &Classify) -> Result<Outcomes, Failure> {
        self.map(|()| Outcomes::ok())
            .map_err(|error| failure(&error, classify))
    }
}

impl<E: HandlerError> BatchReturn for BatchOutcome<E> {
    fn into_outcomes(self, count: usize, classify: &Classify) -> Result<Outcomes, Failure> {
        self.into_outcomes(count, classify)
    }
}

impl<E: HandlerError, F: HandlerError> BatchReturn for Result<BatchOutcome<E>, F> {
    fn into_outcomes(self, count: usize, classify: &Classify) -> Result<Outcomes, Failure> {
        match self {
            Ok(outcome) => outcome.into_outcomes(count, classify),
            Err(error) => Err(failure(&error, classify)),
        }
    }
}

impl sealed::Return for () {}
impl<E> sealed::Return for Result<(), E> {}
impl<E> sealed::Return for BatchOutcome<E> {}
impl<E, F> sealed::Return for Result<BatchOutcome<E>, F> {}

fn failure<E: HandlerError>(error: &E, classify: &Classify) -> Failure {
    Failure::of(error, classify.0.ask(error as &dyn Any))
}

// === impl BatchFuture ===

impl<F> BatchFuture<F> {
    fn running(future: F, count: usize, classify: Classify) -> Self {
        Self {
            known: None,
            running: Some(future),
            classify: Some(classify),
            count,
        }
    }

    fn known(result: Result<Outcomes, Failure>) -> Self {
        Self {
            known: Some(result),
            running: None,
            classify: None,
            count: 0,
        }
    }
}

impl<F: Future<Output: BatchReturn>> Future for BatchFuture<F> {
    type Output = Result<Outcomes, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let (Some(running), Some(classify)) = (this.running.as_pin_mut(), &this.classify) {
            let count = *this.count;
            return running
                .poll(cx)
                .map(|output| output.into_outcomes(count, classify));
        }
        match this.known.take() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending, // polled after it was done
        }
    }
}

impl<F> fmt::Debug for BatchFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchFuture").finish_non_exhaustive()
    }
}

// === impl BatchService ===

impl<H, T, S> BatchService<H, T, S> {
    pub(crate) fn new(handler: H, state: S, classify: Classify) -> Self {
        Self {
            handler,
            state,
            classify,
            arguments: PhantomData,
        }
    }
}

impl<H: BatchHandler<T, S>, T, S> Service<Deliveries> for BatchService<H, T, S> {
    type Response = Outcomes;
    type Error = Failure;
    type Future = H::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Deliveries) -> H::Future {
        self.handler.call(&batch, &self.state, &self.classify)
    }
}

impl<H: Clone, T, S: Clone> Clone for BatchService<H, T, S> {
    fn clone(&self) -> Self {
        Self::new(
            self.handler.clone(),
            self.state.clone(),
            self.classify.clone(),
        )
    }
}

impl<H, T, S> fmt::Debug for BatchService<H, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchService")
            .field("handler", &std::any::type_name::<H>())
            .finish_non_exhaustive()
    }
}
