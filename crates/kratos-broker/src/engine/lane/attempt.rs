//! One call of a service, cut off when it must be; whatever panics in it is a failure.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::{
    Disposition, Failure,
    engine::cell::{Cancel, LaneCell},
};

pin_project! {
    /// Calls a service and waits for it, for a cancellation, or for the time limit.
    ///
    /// Written by hand, so that it is made where it is polled and never moved: it is the largest
    /// thing there is for a message.
    pub(crate) struct Attempt<'a, Svc, Req>
    where
        Svc: Service<Req>,
    {
        service: &'a mut Svc,
        // Until the service has it.
        request: Option<Req>,
        #[pin]
        called: Option<Svc::Future>,
        cell: &'a LaneCell,
        time_limit: Option<Instant>,
        // Made when the handler waits.
        #[pin]
        limit: Option<Sleep>,
    }
}

/// How an attempt ended that is not done, and whether something panicked.
pub(crate) struct NotDone {
    pub(crate) why: Why,
    pub(crate) panicked: bool,
}

/// Why an attempt is not done.
pub(crate) enum Why {
    Failed(Failure),
    Cancelled(Cancel),
}

/// In a box, so that what is done is the smallest thing to answer.
pub(crate) type Attempted<R> = Result<R, Box<NotDone>>;

impl<'a, Svc, Req> Attempt<'a, Svc, Req>
where
    Svc: Service<Req>,
    Svc::Error: Into<Failure>,
{
    #[inline]
    pub(crate) fn new(
        service: &'a mut Svc,
        request: Req,
        cell: &'a LaneCell,
        time_limit: Option<Instant>,
    ) -> Self {
        Self {
            service,
            request: Some(request),
            called: None,
            cell,
            time_limit,
            limit: None,
        }
    }

    /// What the service has not got yet.
    #[inline]
    pub(crate) fn request(&self) -> Option<&Req> {
        self.request.as_ref()
    }

    fn step(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Attempted<Svc::Response>> {
        let ended = std::task::ready!(self.as_mut().look(cx));
        // The drop of the handler's future, which may panic too.
        self.project().called.set(None);
        Poll::Ready(ended)
    }

    fn look(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Attempted<Svc::Response>> {
        let mut this = self.project();
        if let Some(why) = this.cell.cancelled() {
            return Poll::Ready(cancelled(this.cell, why));
        }
        if this.request.is_some()
            && let Poll::Ready(ready) = this.service.poll_ready(cx)
        {
            match (ready, this.request.take()) {
                (Ok(()), request) => this.called.set(request.map(|it| this.service.call(it))),
                (Err(error), _) => return Poll::Ready(failed(error.into())),
            }
        }
        if let Some(called) = this.called.as_mut().as_pin_mut()
            && let Poll::Ready(result) = called.poll(cx)
        {
            return Poll::Ready(result.or_else(|error| failed(error.into())));
        }
        // Only a handler that waits needs to be woken.
        if let Some(why) = this.cell.poll_cancelled(cx.waker()) {
            return Poll::Ready(cancelled(this.cell, why));
        }
        let Some(at) = *this.time_limit else {
            return Poll::Pending;
        };
        if this.limit.is_none() {
            this.limit.set(Some(sleep_until(at)));
        }
        if let Some(limit) = this.limit.as_pin_mut()
            && limit.poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        this.cell.fire();
        let failure = Failure::typed(Disposition::Retry, "timeout", "handler timed out");
        Poll::Ready(failed(failure))
    }
}

impl<Svc, Req> Future for Attempt<'_, Svc, Req>
where
    Svc: Service<Req>,
    Svc::Error: Into<Failure>,
{
    type Output = Attempted<Svc::Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let panic = match catch_unwind(AssertUnwindSafe(|| self.as_mut().step(cx))) {
            Ok(ended) => return ended,
            Err(panic) => panic,
        };
        // What is left of it may panic once more, which tells no more.
        let mut this = self.project();
        let _ = catch_unwind(AssertUnwindSafe(|| this.called.set(None)));
        Poll::Ready(Err(Box::new(NotDone {
            why: Why::Failed(panic_failure(&*panic)),
            panicked: true,
        })))
    }
}

/// The token fires before the handler's future is dropped. After a handler that returned, what it
/// spawned goes on.
#[cold]
fn cancelled<R>(cell: &LaneCell, why: Cancel) -> Attempted<R> {
    cell.fire();
    Err(Box::new(NotDone {
        why: Why::Cancelled(why),
        panicked: false,
    }))
}

#[cold]
fn failed<R>(failure: Failure) -> Attempted<R> {
    Err(Box::new(NotDone {
        why: Why::Failed(failure),
        panicked: false,
    }))
}

fn panic_failure(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!("handler panicked: {}", words.unwrap_or("no message"));
    Failure::typed(Disposition::Retry, "panic", message)
}
