//! One subscription with its handler, erased. What is erased is a lane's whole loop: one box per
//! lane instead of one per message and layer.

use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Delivery, Failure, Subscription,
    engine::lane::{self, Inbox},
    handler::{Classify, Handler, HandlerService},
};

/// Makes the lanes of one subscription.
pub(crate) trait Lanes: Send {
    /// A lane's whole loop.
    fn lane(&self, inbox: Inbox) -> BoxFuture<'static, ()>;
}

/// What [`Router::subscribe`](crate::Router::subscribe) takes: a [`Handler`] for the router's
/// state, whose service the router's layers can wrap. Implemented for every such handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message handler",
    label = "not a handler for this router's state and layers",
    note = "a handler is an async function of at most 8 arguments, each an extractor:",
    note = "  State<T>, Json<T>, Protobuf<T>, Bytes, Headers, Key, Tag, Attempt, Deadline, MessageId,",
    note = "  Cancelled, Extension<T>, Delivery, or Option<Key>, Option<Tag>, Result<T, Rejection>",
    note = "that returns () or Result<(), E> where E: HandlerError (write `impl HandlerError for E {{}}`)",
    note = "State<T> needs T to be the router's state, or T: FromRef of it; the future must be Send",
    note = "a function of Batch<T> goes to subscribe_batch; #[kratos_broker::debug_handler] names what is wrong"
)]
pub trait IntoRoute<T, S, L>: sealed::Sealed<T, S, L> {
    #[doc(hidden)]
    fn into_route(self, subscription: Subscription, layers: &L) -> Route<S>;
}

mod sealed {
    pub trait Sealed<T, S, L> {}
}

/// A subscription whose handler still misses the state `S`, or misses nothing.
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "hidden")]
pub struct Route<S> {
    subscription: Subscription,
    kind: Kind<S>,
}

enum Kind<S> {
    Pending(Box<dyn Pending<S>>),
    Ready(Box<dyn Lanes>),
}

pub(super) trait Pending<S>: Send {
    fn with_state(self: Box<Self>, state: S) -> Box<dyn Lanes>;
}

struct PendingHandler<H, T, L> {
    handler: H,
    layers: L,
    classify: Classify,
    arguments: PhantomData<fn() -> T>,
}

struct ServiceLanes<Svc> {
    service: Svc,
}

// === impl IntoRoute ===

impl<H, T, S, L> IntoRoute<T, S, L> for H
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + 'static,
    L: Layer<HandlerService<H, T, S>> + Clone + Send + 'static,
    L::Service: Service<Delivery, Response = ()> + Clone + Send + 'static,
    <L::Service as Service<Delivery>>::Error: Into<Failure>,
    <L::Service as Service<Delivery>>::Future: Send,
{
    fn into_route(self, subscription: Subscription, layers: &L) -> Route<S> {
        let pending = PendingHandler {
            handler: self,
            layers: layers.clone(),
            classify: Classify(subscription.classifiers()),
            arguments: PhantomData,
        };
        let subscription = subscription.takes(H::bodies());
        Route::pending(subscription, Box::new(pending))
    }
}

impl<H, T, S, L> sealed::Sealed<T, S, L> for H where H: Handler<T, S> {}

// === impl Route ===

impl<S> Route<S> {
    pub(super) fn pending(subscription: Subscription, pending: Box<dyn Pending<S>>) -> Self {
        Self {
            subscription,
            kind: Kind::Pending(pending),
        }
    }

    pub(crate) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    pub(crate) fn with_state<S2>(self, state: &S) -> Route<S2>
    where
        S: Clone,
    {
        let Self { subscription, kind } = self;
        let lanes = match kind {
            Kind::Pending(pending) => pending.with_state(state.clone()),
            Kind::Ready(lanes) => lanes,
        };
        Route {
            subscription,
            kind: Kind::Ready(lanes),
        }
    }
}

impl Route<()> {
    pub(crate) fn into_parts(self) -> (Subscription, Box<dyn Lanes>) {
        let lanes = match self.kind {
            Kind::Pending(pending) => pending.with_state(()),
            Kind::Ready(lanes) => lanes,
        };
        (self.subscription, lanes)
    }
}

// === impl PendingHandler ===

impl<H, T, S, L> Pending<S> for PendingHandler<H, T, L>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + 'static,
    L: Layer<HandlerService<H, T, S>> + Send,
    L::Service: Service<Delivery, Response = ()> + Clone + Send + 'static,
    <L::Service as Service<Delivery>>::Error: Into<Failure>,
    <L::Service as Service<Delivery>>::Future: Send,
{
    fn with_state(self: Box<Self>, state: S) -> Box<dyn Lanes> {
        let service = HandlerService::new(self.handler, state, self.classify);
        Box::new(ServiceLanes {
            service: self.layers.layer(service),
        })
    }
}

// === impl ServiceLanes ===

impl<Svc> Lanes for ServiceLanes<Svc>
where
    Svc: Service<Delivery, Response = ()> + Clone + Send + 'static,
    Svc::Error: Into<Failure>,
    Svc::Future: Send,
{
    fn lane(&self, inbox: Inbox) -> BoxFuture<'static, ()> {
        Box::pin(lane::run(self.service.clone(), inbox))
    }
}
