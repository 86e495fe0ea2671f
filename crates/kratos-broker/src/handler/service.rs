//! A handler with its state, as the tower service that layers wrap.

use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{Classify, Failure, Handler};
use crate::Delivery;

/// The innermost service of a subscription: calls the handler with the router's state.
pub struct HandlerService<H, T, S> {
    handler: H,
    state: S,
    classify: Classify,
    arguments: PhantomData<fn() -> T>,
}

impl<H, T, S> HandlerService<H, T, S> {
    pub(crate) fn new(handler: H, state: S, classify: Classify) -> Self {
        Self {
            handler,
            state,
            classify,
            arguments: PhantomData,
        }
    }
}

impl<H: Handler<T, S>, T, S> Service<Delivery> for HandlerService<H, T, S> {
    type Response = ();
    type Error = Failure;
    type Future = H::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> H::Future {
        self.handler.call(&delivery, &self.state, &self.classify)
    }
}

impl<H: Clone, T, S: Clone> Clone for HandlerService<H, T, S> {
    fn clone(&self) -> Self {
        Self::new(
            self.handler.clone(),
            self.state.clone(),
            self.classify.clone(),
        )
    }
}

impl<H, T, S> fmt::Debug for HandlerService<H, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerService")
            .field("handler", &std::any::type_name::<H>())
            .finish_non_exhaustive()
    }
}
