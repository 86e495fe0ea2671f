//! The consumer server: a router on a driver, run by the App.

mod check;

use std::{fmt, sync::Arc};

use kratos::{BoundServer, Description, Entry, Health, Shutdown, StartContext};
use tokio::sync::watch;
use tower_layer::{Identity, Stack};

use crate::{
    BatchSettings, Controls, Counters, Group, IntoBatchRoute, IntoRoute, Publisher, Router,
    Subscription, Topic,
    driver::Driver,
    engine::{
        Running,
        health::HealthBoard,
        running::{Broken, Shared},
    },
    extensions::Extensions,
    router::{GroupPlan, Route, plan},
};

/// Consumes messages: subscriptions by topic and group, on a driver.
///
/// One consumer is made per group, with all its topics.
///
/// ```
/// use kratos_broker::{Bytes, Server, State, memory};
///
/// async fn save(State(store): State<String>, body: Bytes) {}
///
/// let server = Server::new(memory::Broker::new())
///     .subscribe("orders", "billing", save)
///     .with_state("store".to_owned());
/// # fn is_server(_: impl kratos::Server) {}
/// # is_server(server);
/// ```
pub struct Server<D, S = (), L = Identity> {
    driver: D,
    name: String,
    router: Router<S, L>,
    extensions: Extensions,
    counters: Counters,
    controls: Controls,
}

/// A [`Server`] whose consumers have joined their groups.
pub struct Bound<D: Driver> {
    groups: Vec<(GroupPlan, D::Consumer)>,
    shared: Shared,
}

// === impl Server ===

impl<D: Driver, S: Clone + Send + Sync + 'static> Server<D, S> {
    /// A server without subscriptions. Does no I/O.
    #[must_use]
    pub fn new(driver: D) -> Self {
        Self {
            driver,
            name: D::SYSTEM.to_owned(),
            router: Router::new(),
            extensions: Extensions::default(),
            counters: Counters::default(),
            controls: Controls::default(),
        }
    }
}

impl<D: Driver, S: Clone + Send + Sync + 'static, L> Server<D, S, L> {
    /// Sets the name in logs and errors; the driver's system by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a subscription: [`Router::subscribe`].
    #[must_use]
    pub fn subscribe<T>(
        self,
        topic: impl Into<Topic>,
        group: impl Into<Group>,
        handler: impl IntoRoute<T, S, L>,
    ) -> Self {
        self.map(|router| router.subscribe(topic, group, handler))
    }

    /// Adds a subscription with its settings: [`Router::subscribe_with`].
    #[must_use]
    pub fn subscribe_with<T>(
        self,
        subscription: Subscription,
        handler: impl IntoRoute<T, S, L>,
    ) -> Self {
        self.map(|router| router.subscribe_with(subscription, handler))
    }

    /// Adds a subscription whose handler takes several messages at once:
    /// [`Router::subscribe_batch`].
    #[must_use]
    pub fn subscribe_batch<T>(
        self,
        subscription: Subscription,
        settings: BatchSettings,
        handler: impl IntoBatchRoute<T, S, L>,
    ) -> Self {
        self.map(|router| router.subscribe_batch(subscription, settings, handler))
    }

    /// Wraps the subscriptions added after this call: [`Router::layer`].
    #[must_use]
    pub fn layer<M>(self, layer: M) -> Server<D, S, Stack<M, L>> {
        self.map(|router| router.layer(layer))
    }

    /// Takes over the subscriptions of a router: [`Router::merge`].
    #[must_use]
    pub fn routes<M>(self, router: Router<S, M>) -> Self {
        self.map(|own| own.merge(router))
    }

    /// Supplies the state that handlers miss: [`Router::with_state`].
    #[must_use]
    pub fn with_state<S2: Clone + Send + Sync + 'static>(self, state: S) -> Server<D, S2, L> {
        self.map(|router| router.with_state(state))
    }

    /// Attaches a value that handlers take as [`Extension`](crate::Extension).
    #[must_use]
    pub fn extension<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// What the server does, in numbers, while it runs and after.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Its subscriptions while it runs: how they are, and a hand to pause them.
    #[must_use]
    pub fn controls(&self) -> Controls {
        self.controls.clone()
    }

    fn map<S2, L2>(self, f: impl FnOnce(Router<S, L>) -> Router<S2, L2>) -> Server<D, S2, L2> {
        let Self {
            driver,
            name,
            router,
            extensions,
            counters,
            controls,
        } = self;
        Server {
            driver,
            name,
            router: f(router),
            extensions,
            counters,
            controls,
        }
    }
}

impl<D: Driver, L: Send + 'static> kratos::Server for Server<D, (), L> {
    type Bound = Bound<D>;

    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> Description {
        let name =
            |s: &Subscription| format!("{} in group {}, filter {}", s.topic, s.group, s.filter);
        let described = Description::new("messages");
        #[cfg(feature = "asyncapi")]
        let described = described.document(kratos::Document::new(
            "asyncapi",
            crate::asyncapi::document(&self.driver, &self.name, self.router.subscriptions()),
        ));
        let described = self
            .router
            .subscriptions()
            .map(name)
            .fold(described, |all, name| {
                all.entry(Entry::new("subscription", name))
            })
            .live(Arc::new(self.controls.clone()));
        let subscriptions = self.router.subscriptions().cloned();
        check::checks(&self.driver, subscriptions)
            .into_iter()
            .fold(described, Description::check)
    }

    async fn bind(self, cx: StartContext) -> kratos::Result<Bound<D>> {
        let Self {
            driver,
            name,
            router,
            mut extensions,
            counters,
            controls,
        } = self;
        let capabilities = driver.capabilities();
        let routes = router.into_routes().into_iter().map(Route::into_parts);
        let plans = plan(routes, D::SYSTEM, capabilities)?;
        extensions.insert(cx.info().clone());
        let mut groups = Vec::with_capacity(plans.len());
        for plan in plans {
            let spec = plan.spec();
            let what = format!("join group {} on {}", plan.group, D::SYSTEM);
            let join = || {
                let joined = driver.consumer(spec.clone(), cx.clone());
                async move { joined.await.map_err(kratos::Error::from) }
            };
            let consumer = cx.retry(&what, join).await?;
            plan.check_attempts(D::SYSTEM, &consumer)?;
            groups.push((plan, consumer));
        }
        let address = driver.server().map(|(host, port)| (host.to_owned(), port));
        let publisher = Arc::new(Publisher::new(driver));
        let shared = Shared {
            server: name.into(),
            system: D::SYSTEM,
            address,
            capabilities,
            extensions: Arc::new(extensions),
            counters,
            health: Arc::new(HealthBoard::new()),
            controls,
            reader: publisher.clone(),
            post: publisher,
        };
        Ok(Bound { groups, shared })
    }
}

impl<D: fmt::Debug, S, L> fmt::Debug for Server<D, S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("driver", &self.driver)
            .field("name", &self.name)
            .field("subscriptions", &self.router)
            .finish_non_exhaustive()
    }
}

// === impl Bound ===

impl<D: Driver> BoundServer for Bound<D> {
    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn serve(self, shutdown: Shutdown) -> kratos::Result<()> {
        let mut running = Running::start(self.groups, &self.shared);
        let broken = tokio::select! {
            () = shutdown.requested() => None,
            broken = running.broken() => Some(broken),
        };
        let fatal = running.fatal.clone();
        let unfinished = running.drain(&shutdown).await;
        let crashed = || match broken {
            Some(Broken::Crashed(source)) => {
                let error = kratos::Error::msg("a task of the consumer ended by itself");
                Some(match source {
                    Some(source) => error.with_source(source),
                    None => error,
                })
            }
            Some(Broken::Fatal) | None => None,
        };
        let failure = fatal.take().or_else(crashed);
        if unfinished.is_empty() {
            return failure.map_or(Ok(()), Err);
        }
        let abandoned = kratos::Error::abandoned(unfinished.iter().map(ToString::to_string));
        Err(match failure {
            // Whatever broke it, these are somebody's work.
            Some(failure) => abandoned.context(kratos::error_chain(&failure).to_string()),
            None => abandoned,
        })
    }
}

impl<D: Driver> fmt::Debug for Bound<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}
