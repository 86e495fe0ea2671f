//! One batch subscription with its handler, erased as [`route`](super::route) erases single ones.

use std::{marker::PhantomData, sync::Arc};

use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use super::route::{Lanes, Pending, Route};
use crate::{
    BatchSettings, Deliveries, Failure, Outcomes, Subscription,
    batch::{BatchHandler, BatchService},
    engine::{
        batch_lane::{self, Gathering},
        lane::Inbox,
    },
    handler::Classify,
};

/// What [`Router::subscribe_batch`](crate::Router::subscribe_batch) takes: a [`BatchHandler`] for
/// the router's state, whose service the router's layers can wrap. Implemented for every such
/// handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    label = "not a batch handler for this router's state and layers",
    note = "a batch handler is an async function whose last argument is the batch:",
    note = "  Batch<Json<T>>, Batch<Protobuf<T>>, Batch<Bytes>, Batch<Delivery>",
    note = "with at most 7 arguments before it: State<T>, Extension<T>, Deadline, Cancelled",
    note = "that returns (), Result<(), E>, BatchOutcome<E> or Result<BatchOutcome<E>, F>",
    note = "  where E, F: HandlerError (write `impl HandlerError for E {{}}`)",
    note = "State<T> needs T to be the router's state, or T: FromRef of it; the future must be Send",
    note = "a function of one message goes to subscribe; #[kratos_broker::debug_handler] names what is wrong"
)]
pub trait IntoBatchRoute<T, S, L>: sealed::Sealed<T, S, L> {
    #[doc(hidden)]
    fn into_batch_route(
        self,
        subscription: Subscription,
        settings: BatchSettings,
        layers: &L,
    ) -> Route<S>;
}

mod sealed {
    pub trait Sealed<T, S, L> {}
}

struct PendingBatch<H, T, L> {
    handler: H,
    layers: L,
    classify: Classify,
    settings: BatchSettings,
    arguments: PhantomData<fn() -> T>,
}

struct BatchLanes<Svc> {
    service: Svc,
    gathering: Arc<Gathering>,
}

// === impl IntoBatchRoute ===

impl<H, T, S, L> IntoBatchRoute<T, S, L> for H
where
    H: BatchHandler<T, S>,
    T: 'static,
    S: Clone + Send + 'static,
    L: Layer<BatchService<H, T, S>> + Clone + Send + 'static,
    L::Service: Service<Deliveries, Response = Outcomes> + Clone + Send + 'static,
    <L::Service as Service<Deliveries>>::Error: Into<Failure>,
    <L::Service as Service<Deliveries>>::Future: Send,
{
    fn into_batch_route(
        self,
        subscription: Subscription,
        settings: BatchSettings,
        layers: &L,
    ) -> Route<S> {
        let subscription = subscription
            .batches(&settings)
            .takes(H::body().into_iter().collect());
        let pending = PendingBatch {
            handler: self,
            layers: layers.clone(),
            classify: Classify(subscription.classifiers()),
            settings,
            arguments: PhantomData,
        };
        Route::pending(subscription, Box::new(pending))
    }
}

impl<H, T, S, L> sealed::Sealed<T, S, L> for H where H: BatchHandler<T, S> {}

// === impl PendingBatch ===

impl<H, T, S, L> Pending<S> for PendingBatch<H, T, L>
where
    H: BatchHandler<T, S>,
    T: 'static,
    S: Clone + Send + 'static,
    L: Layer<BatchService<H, T, S>> + Send,
    L::Service: Service<Deliveries, Response = Outcomes> + Clone + Send + 'static,
    <L::Service as Service<Deliveries>>::Error: Into<Failure>,
    <L::Service as Service<Deliveries>>::Future: Send,
{
    fn with_state(self: Box<Self>, state: S) -> Box<dyn Lanes> {
        let service = BatchService::new(self.handler, state, self.classify);
        Box::new(BatchLanes {
            service: self.layers.layer(service),
            gathering: Arc::new(Gathering::new(self.settings)),
        })
    }
}

// === impl BatchLanes ===

impl<Svc> Lanes for BatchLanes<Svc>
where
    Svc: Service<Deliveries, Response = Outcomes> + Clone + Send + 'static,
    Svc::Error: Into<Failure>,
    Svc::Future: Send,
{
    fn lane(&self, inbox: Inbox) -> BoxFuture<'static, ()> {
        let (service, gathering) = (self.service.clone(), self.gathering.clone());
        Box::pin(batch_lane::run(service, gathering, inbox))
    }
}
