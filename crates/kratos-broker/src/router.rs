//! Subscriptions, by topic and group, with their handlers.

mod batch_route;
mod plan;
mod route;

use std::fmt;

use tower_layer::{Identity, Stack};

pub use self::{batch_route::IntoBatchRoute, route::IntoRoute};
pub(crate) use self::{
    plan::{GroupPlan, TopicPlan, plan},
    route::{Lanes, Route},
};
use crate::{BatchSettings, Group, Subscription, Topic};

/// Subscriptions with their handlers: a plain value, for any driver.
///
/// `S` is the state that handlers still miss: [`with_state`](Router::with_state) supplies it. `L`
/// is the stack of layers for the subscriptions to come.
///
/// ```
/// use kratos_broker::{Bytes, Router, State};
///
/// async fn print(State(prefix): State<String>, body: Bytes) {
///     println!("{prefix}{body:?}");
/// }
///
/// let router: Router = Router::new()
///     .subscribe("orders", "billing", print)
///     .subscribe("orders", "statistics", print)
///     .with_state("> ".to_owned());
/// ```
pub struct Router<S = (), L = Identity> {
    routes: Vec<Route<S>>,
    layers: L,
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    /// A router without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self {
            routes: Vec::new(),
            layers: Identity::new(),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static, L> Router<S, L> {
    /// Adds a subscription with default settings: all messages of `topic` for `group`.
    #[must_use]
    pub fn subscribe<T>(
        self,
        topic: impl Into<Topic>,
        group: impl Into<Group>,
        handler: impl IntoRoute<T, S, L>,
    ) -> Self {
        self.subscribe_with(Subscription::new(topic, group), handler)
    }

    /// Adds a subscription with its settings.
    ///
    /// That two subscriptions clash is found when the server binds.
    #[must_use]
    pub fn subscribe_with<T>(
        mut self,
        subscription: Subscription,
        handler: impl IntoRoute<T, S, L>,
    ) -> Self {
        self.routes
            .push(handler.into_route(subscription, &self.layers));
        self
    }

    /// Adds a subscription whose handler takes a [`Batch`](crate::Batch) of messages at once;
    /// [`concurrency`](Subscription::concurrency) is how many batches are handled at once.
    ///
    /// Every message has an outcome of its own ([`BatchOutcome`](crate::BatchOutcome)), and what
    /// follows is what follows for a single message, by the subscription's policy. Beyond that:
    ///
    /// * A batch takes what is there, and waits for more only if its settings say so. So many batches
    ///   as run at once, and one more, are held by this process, up to
    ///   [`prefetch_bytes`](Subscription::prefetch_bytes).
    /// * An error, a panic, or the time limit fails all messages of the batch. The last attempt of
    ///   a message that has failed before is made in a batch by itself: no message is dead-lettered
    ///   for what another one did (unless one attempt is all it has).
    /// * A message that cannot be decoded is dead-lettered by itself; the handler does not see it.
    /// * When one lease is lost, or a stop's deadline comes, the handler is cancelled. Nothing is
    ///   settled for a message whose lease is lost; the others have not failed, and run again.
    /// * Where order is kept, a batch may hold several messages of a key, in order. Behind one that
    ///   is tried again none of its key is settled: they come again after it, in order, and none of
    ///   their attempts is spent.
    /// * A rate limit counts batches; a kill switch counts messages, so that a batch that fails as a
    ///   whole is as many failures, and while it is open it tries a batch of one.
    /// * The batch's span is a root, linked to the sender of every message.
    #[must_use]
    pub fn subscribe_batch<T>(
        mut self,
        subscription: Subscription,
        settings: BatchSettings,
        handler: impl IntoBatchRoute<T, S, L>,
    ) -> Self {
        self.routes
            .push(handler.into_batch_route(subscription, settings, &self.layers));
        self
    }

    /// Wraps the subscriptions added **after** this call, unlike axum's: those that are there
    /// already stay as they are. The layer added last is the innermost.
    ///
    /// A layer sees [`Delivery`](crate::Delivery)s and answers `()` or an error that becomes a
    /// [`Failure`](crate::Failure); tower's boxed errors do. Of a batch subscription it sees
    /// [`Deliveries`](crate::Deliveries) and answers their [`Outcomes`](crate::Outcomes): a layer for
    /// single messages does not fit there, and is added after it.
    #[must_use]
    pub fn layer<M>(self, layer: M) -> Router<S, Stack<M, L>> {
        Router {
            routes: self.routes,
            layers: Stack::new(layer, self.layers),
        }
    }

    /// Takes over the subscriptions of another router, with the layers they have there.
    #[must_use]
    pub fn merge<M>(mut self, other: Router<S, M>) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Supplies the state. The router that comes back may miss another: usually none, `()`.
    #[must_use]
    pub fn with_state<S2: Clone + Send + Sync + 'static>(self, state: S) -> Router<S2, L> {
        let routes = self
            .routes
            .into_iter()
            .map(|route| route.with_state(&state))
            .collect();
        Router {
            routes,
            layers: self.layers,
        }
    }

    /// The subscriptions, in the order they were added.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = &Subscription> {
        self.routes.iter().map(Route::subscription)
    }
}

impl<L> Router<(), L> {
    pub(crate) fn into_routes(self) -> Vec<Route<()>> {
        self.routes
    }
}

impl<S, L> fmt::Debug for Router<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscriptions = self.routes.iter().map(Route::subscription);
        f.debug_list().entries(subscriptions).finish()
    }
}
