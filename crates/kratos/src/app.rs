//! The App: everything that starts together, runs together and stops together.

mod erased;
mod handle;
mod hook;
mod run;
mod step;
mod stop;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use crate::{AppInfo, Config, Description, Registrar, Resource, Result, Server, signal::Signals};

use self::{
    erased::{BoxRegistrar, BoxResource, BoxServer, OnClose},
    hook::{Hook, Hooks},
};
pub use self::{
    handle::{Handle, Phase, ServerState, ServerStatus},
    hook::{HookContext, Outcome},
};

/// Servers, resources and hooks under one lifecycle.
///
/// # Start
///
/// Signal handlers, then resources open, in order; before-start hooks; every server binds, in
/// order; all serve; phase [`Ready`](Phase::Ready); register; after-start hooks. All of it within
/// [`start_timeout`](Self::start_timeout). A failure stops what runs and is returned with the name
/// of the culprit.
///
/// # Stop
///
/// On a signal, [`Handle::stop`], a parent's end ([`stop_when`](Self::stop_when)) or a server that
/// ended, everything stops under **one** deadline, [`stop_timeout`](Self::stop_timeout): phase
/// [`Draining`](Phase::Draining); deregister; [`drain_delay`](Self::drain_delay); before-stop
/// hooks; servers stop their intake and drain; resources close in reverse order; after-stop hooks.
/// The last [`close_reserve`](Self::close_reserve) is kept for the end: when it begins, handlers
/// that still run are cancelled. Every step runs even if one before it failed or hung, each within
/// its own slice of what is left; all errors are logged and the first is returned. A second signal
/// ends the wait at once.
///
/// Drain delay and before-stop hooks belong to an App that was ready; a start that failed skips
/// them.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> kratos::Result<()> {
/// use kratos::App;
///
/// let app = App::new()
///     .name("saver-service")
///     .version(env!("CARGO_PKG_VERSION"))
///     .after_start("announce", |cx: kratos::HookContext| async move {
///         tracing::info!(id = cx.info().id(), "up");
///         cx.handle().stop();
///     })
///     .on_close("pool", || async { /* pool.close().await */ });
/// app.run().await
/// # }
/// ```
#[must_use = "an App does nothing until it is run"]
pub struct App {
    info: AppInfo,
    config: Config,
    servers: Vec<BoxServer>,
    resources: Vec<BoxResource>,
    registrars: Vec<BoxRegistrar>,
    hooks: Hooks,
    signals: Option<Signals>,
    parents: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    handle: Handle,
}

/// What an App consists of, without running it: from [`App::describe`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AppDescription {
    /// Who it is.
    pub info: AppInfo,
    /// Its servers by name, in the order they were added.
    pub servers: Vec<(String, Description)>,
    /// Its resources by name, in the order they were added.
    pub resources: Vec<(String, Description)>,
}

// === impl App ===

impl App {
    /// An App with a random id, the name `app`, and nothing to run.
    pub fn new() -> Self {
        Self {
            info: AppInfo::new("app", "0.0.0"),
            config: Config::default(),
            servers: Vec::new(),
            resources: Vec::new(),
            registrars: Vec::new(),
            hooks: Hooks::default(),
            signals: None,
            parents: Vec::new(),
            handle: Handle::new(Phase::Starting),
        }
    }

    /// Sets the instance's id; a random one by default.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.info = self.info.with_id(id);
        self
    }

    /// Sets the service's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.info = self.info.with_name(name);
        self
    }

    /// Sets the service's version, commonly `env!("CARGO_PKG_VERSION")`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.info = self.info.with_version(version);
        self
    }

    /// Adds one entry of metadata.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.info = self.info.with_metadata(key, value);
        self
    }

    /// Adds a server. Servers bind in the order they were added, then all serve at once.
    pub fn server(mut self, server: impl Server) -> Self {
        self.servers.push(erased::server(server));
        self
    }

    /// Adds a resource. Resources open in the order they were added and close in reverse, after
    /// every server has drained.
    pub fn resource(mut self, resource: impl Resource) -> Self {
        self.resources.push(erased::resource(resource));
        self
    }

    /// Adds something that needs no opening, to be closed in the place of a
    /// [`resource`](Self::resource) added here.
    pub fn on_close<F, Fut>(self, name: impl Into<String>, close: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        self.resource(OnClose::new(name.into(), close))
    }

    /// Adds a registry that the instance is registered in while the App is ready.
    pub fn registrar(mut self, registrar: impl Registrar) -> Self {
        self.registrars.push(erased::registrar(registrar));
        self
    }

    /// Adds a hook that runs when every resource is open and no server is bound.
    pub fn before_start<F, Fut>(mut self, name: impl Into<String>, hook: F) -> Self
    where
        F: FnOnce(HookContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        self.hooks.before_start.push(Hook::new(name, hook));
        self
    }

    /// Adds a hook that runs when the App is ready and registered.
    pub fn after_start<F, Fut>(mut self, name: impl Into<String>, hook: F) -> Self
    where
        F: FnOnce(HookContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        self.hooks.after_start.push(Hook::new(name, hook));
        self
    }

    /// Adds a hook that runs when the App is deregistered and its servers still take work.
    pub fn before_stop<F, Fut>(mut self, name: impl Into<String>, hook: F) -> Self
    where
        F: FnOnce(HookContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        self.hooks.before_stop.push(Hook::new(name, hook));
        self
    }

    /// Adds a hook that runs last, when every resource is closed.
    pub fn after_stop<F, Fut>(mut self, name: impl Into<String>, hook: F) -> Self
    where
        F: FnOnce(HookContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        self.hooks.after_stop.push(Hook::new(name, hook));
        self
    }

    /// Sets all times at once, as they come from a configuration file.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets how long the whole start may take; 30 s by default.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.config.start_timeout = timeout;
        self
    }

    /// Sets how long the whole stop may take; 25 s by default, under the 30 s of Kubernetes.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.config.stop_timeout = timeout;
        self
    }

    /// Sets the part at the end of the stop that is kept for handing back, flushing and closing;
    /// 3 s by default, at most a fifth of [`stop_timeout`](Self::stop_timeout).
    pub fn close_reserve(mut self, reserve: Duration) -> Self {
        self.config.close_reserve = reserve;
        self
    }

    /// Sets how long to go on serving after deregistering, while load balancers take notice; none
    /// by default, at most half of [`stop_timeout`](Self::stop_timeout).
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.config.drain_delay = delay;
        self
    }

    /// Sets where signals come from; SIGTERM and SIGINT of this process by default.
    pub fn signals(mut self, signals: Signals) -> Self {
        self.signals = Some(signals);
        self
    }

    /// Stops the App when `parent` completes, as gracefully as a signal does.
    pub fn stop_when(mut self, parent: impl Future<Output = ()> + Send + 'static) -> Self {
        self.parents.push(Box::pin(parent));
        self
    }

    /// A handle to watch and stop the App; may be taken before it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What the App consists of. Does no I/O.
    #[must_use]
    pub fn describe(&self) -> AppDescription {
        let server = |s: &BoxServer| (s.name().to_owned(), s.describe());
        let resource = |r: &BoxResource| (r.name().to_owned(), r.describe());
        AppDescription {
            info: self.info.clone(),
            servers: self.servers.iter().map(server).collect(),
            resources: self.resources.iter().map(resource).collect(),
        }
    }

    #[cfg(feature = "cli")]
    pub(crate) fn stop_timeout_now(&self) -> Duration {
        self.config.stop_timeout
    }

    /// Runs the App until it is stopped.
    ///
    /// # Errors
    ///
    /// The first thing that failed, with the name of the server, resource, registrar or hook; the
    /// others are logged. A stop that finished everything in time is no error, whatever asked for
    /// it, unless a second signal cut it short.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops servers and resources without draining or closing them.
    pub async fn run(self) -> Result<()> {
        Box::pin(run::run(self)).await
    }
}

impl Default for App {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<&str> = self.servers.iter().map(|s| s.name()).collect();
        let resources: Vec<&str> = self.resources.iter().map(|r| r.name()).collect();
        f.debug_struct("App")
            .field("info", &self.info)
            .field("config", &self.config)
            .field("servers", &servers)
            .field("resources", &resources)
            .finish_non_exhaustive()
    }
}
