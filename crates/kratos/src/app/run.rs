//! The start of an App, and its life until something asks it to stop.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    App, Handle, HookContext, Phase, ServerState,
    erased::{Bound, BoxRegistrar, BoxResource, BoxServer},
    hook::Hook,
    step::{self, Failed},
    stop,
};
use crate::{
    AppInfo, Config, Error, Health, Instance, Result, Shutdown, ShutdownTrigger, StartContext,
    process, retry::Retry, signal::Signals,
};

/// A registrar must answer in this time, at start and at the stop.
const REGISTRAR_TIMEOUT: Duration = Duration::from_secs(10);

/// What an App has started so far: what its stop has to end.
pub(super) struct Started {
    pub(super) info: AppInfo,
    pub(super) config: Config,
    pub(super) handle: Handle,
    pub(super) signals: Signals,
    pub(super) resources: Vec<BoxResource>,
    pub(super) registrars: Vec<BoxRegistrar>,
    pub(super) servers: Serving,
    pub(super) before_stop: Vec<Hook>,
    pub(super) after_stop: Vec<Hook>,
    pub(super) was_ready: bool,
    pub(super) process: process::Running,
}

/// The servers that serve: one task each, ended when this is dropped.
pub(super) struct Serving {
    pub(super) tasks: JoinSet<(String, Result<(), Failed>)>,
    pub(super) names: BTreeSet<String>,
    pub(super) trigger: ShutdownTrigger,
    shutdown: Shutdown,
    health: JoinSet<()>,
}

/// What is still to be started.
struct ToStart {
    resources: Vec<BoxResource>,
    servers: Vec<BoxServer>,
    registrars: Vec<BoxRegistrar>,
    before_start: Vec<Hook>,
    after_start: Vec<Hook>,
}

pub(super) async fn run(app: App) -> Result<()> {
    let description = app.describe();
    let App {
        info,
        config,
        servers,
        resources,
        registrars,
        hooks,
        signals,
        parents,
        handle,
    } = app;
    let _stopped = StoppedOnDrop(handle.clone());
    config.check()?;
    unique(servers.iter().map(|server| server.name()))?;
    handle.begin(description);
    #[cfg(feature = "trace")]
    let _observed = crate::metrics::observe(handle.clone());
    let process = process::Running::enter(config.stop_timeout);
    let signals = match signals.or_else(process::signals) {
        Some(signals) => signals,
        None => Signals::process()?,
    };
    let mut started = Started {
        info,
        config,
        handle: handle.clone(),
        signals: signals.clone(),
        resources: Vec::new(),
        registrars: Vec::new(),
        servers: Serving::new(),
        before_stop: hooks.before_stop,
        after_stop: hooks.after_stop,
        was_ready: false,
        process,
    };
    let to_start = ToStart {
        resources,
        servers,
        registrars,
        before_start: hooks.before_start,
        after_start: hooks.after_start,
    };
    let mut asked = Box::pin(asked(signals, handle, parents));
    let failure = tokio::select! {
        biased;
        why = &mut asked => {
            info!(reason = why, "stopping before the start was done");
            None
        }
        result = started.start(to_start) => match result {
            Ok(()) => tokio::select! {
                biased;
                why = &mut asked => {
                    info!(reason = why, "stopping");
                    None
                }
                error = started.servers.ended() => Some(error),
            },
            Err(error) => Some(error),
        },
    };
    stop::stop(started, failure).await
}

/// Why the App is to stop, once something says so.
async fn asked(
    signals: Signals,
    handle: Handle,
    parents: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
) -> &'static str {
    let mut parents: FuturesUnordered<_> = parents
        .into_iter()
        .map(|parent| parent.map(|()| "its parent ended"))
        .collect();
    tokio::select! {
        () = signals.reached(1) => "signal",
        () = handle.stop_requested().cancelled_owned() => "asked to by its handle",
        Some(why) = parents.next() => why,
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::msg(format!(
                "two servers are named `{name}`: give one of them another name"
            )));
        }
    }
    Ok(())
}

/// Whoever waits for the phase `Stopped` must not wait for ever, however `run` ends.
struct StoppedOnDrop(Handle);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        self.0.set_phase(Phase::Stopped);
    }
}

/// A server has returned, or its task was aborted.
struct EndedOnDrop(String, Handle);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.1.set_state(&self.0, ServerState::Ended);
    }
}

// === impl Started ===

impl Started {
    /// Starts everything, in order. What was started is in `self`, however this ends.
    async fn start(&mut self, to_start: ToStart) -> Result<()> {
        let deadline = Instant::now() + self.config.start_timeout;
        let cancelled = CancellationToken::new();
        let _cancel = cancelled.clone().drop_guard();
        let cx = StartContext {
            info: self.info.clone(),
            deadline,
            cancelled,
            handle: self.handle.clone(),
        };
        info!(
            name = self.info.name(),
            version = self.info.version(),
            id = self.info.id(),
            phase = %Phase::Starting,
            "starting"
        );
        for resource in to_start.resources {
            let resource = open(resource, &cx).await?;
            self.resources.push(resource);
        }
        self.run_hooks("before-start hook", to_start.before_start, deadline)
            .await?;
        let bound = self.bind(to_start.servers, &cx).await?;
        for (name, server) in bound {
            self.servers.serve(name, server, &self.handle);
        }
        self.was_ready = true;
        self.handle.set_phase(Phase::Ready);
        info!(phase = %Phase::Ready, "serving");
        self.announce(to_start.registrars, to_start.after_start, deadline)
            .await
    }

    async fn bind(
        &mut self,
        servers: Vec<BoxServer>,
        cx: &StartContext,
    ) -> Result<Vec<(String, Bound)>> {
        let mut bound = Vec::with_capacity(servers.len());
        let mut endpoints = Vec::new();
        for server in servers {
            let name = server.name().to_owned();
            let described = server.describe();
            for entry in described.entries() {
                info!(server = name, "{entry}");
            }
            let step = step::run(cx.deadline, server.bind(cx.clone())).await;
            let server = step.map_err(|e| e.named(&format!("server `{name}`: bind")))?;
            for endpoint in &server.endpoints {
                info!(server = name, %endpoint, "listening");
            }
            self.handle.bound(&name, &server.endpoints);
            // Who looks after the process knows where that is; clients have no business there.
            if described.kind() != "admin" {
                endpoints.extend_from_slice(&server.endpoints);
            }
            bound.push((name, server));
        }
        self.info.set_endpoints(endpoints);
        Ok(bound)
    }

    /// Registers and runs the after-start hooks, unless a server ends meanwhile.
    async fn announce(
        &mut self,
        registrars: Vec<BoxRegistrar>,
        hooks: Vec<Hook>,
        deadline: Instant,
    ) -> Result<()> {
        let instance = Instance::from(&self.info);
        for registrar in registrars {
            // Before the attempt: one that is cut off may have reached the registry.
            self.registrars.push(registrar.clone());
            let name = registrar.name();
            let by = deadline.min(Instant::now() + REGISTRAR_TIMEOUT);
            let register = step::run(by, registrar.register(instance.clone()));
            tokio::select! {
                registered = register => {
                    registered.map_err(|e| e.named(&format!("registrar `{name}`: register")))?;
                }
                error = self.servers.ended() => return Err(error),
            }
            info!(registrar = name, "registered");
        }
        for hook in hooks {
            let cx = self.hook_context(deadline);
            let what = format!("after-start hook `{}`", hook.name);
            tokio::select! {
                done = step::run(deadline, hook.call(cx)) => done.map_err(|e| e.named(&what))?,
                error = self.servers.ended() => return Err(error),
            }
        }
        Ok(())
    }

    async fn run_hooks(&mut self, kind: &str, hooks: Vec<Hook>, deadline: Instant) -> Result<()> {
        for hook in hooks {
            let what = format!("{kind} `{}`", hook.name);
            let cx = self.hook_context(deadline);
            step::run(deadline, hook.call(cx))
                .await
                .map_err(|e| e.named(&what))?;
        }
        Ok(())
    }

    pub(super) fn hook_context(&self, deadline: Instant) -> HookContext {
        HookContext {
            info: self.info.clone(),
            deadline,
            handle: self.handle.clone(),
        }
    }
}

/// Opens a resource, again and again where the fault may pass.
async fn open(resource: BoxResource, cx: &StartContext) -> Result<BoxResource> {
    let name = resource.name().to_owned();
    let cx = cx.clone();
    let deadline = cx.deadline;
    let what = format!("resource `{name}`: open");
    let opening = async move {
        let mut resource = resource;
        let mut retry = Retry::new(&what, deadline);
        loop {
            match timeout_at(deadline, resource.open(cx.clone())).await {
                Ok(Ok(())) => return Ok(resource),
                Ok(Err(error)) => retry.pause(error, &cx.cancelled).await?,
                Err(_elapsed) => return Err(retry.give_up()),
            }
        }
    };
    // The task ends itself at the deadline, with the better message; one that blocks does not.
    let by = deadline + Duration::from_millis(100);
    step::run(by, opening)
        .await
        .map_err(|e| e.named(&format!("resource `{name}`: open")))
}

// === impl Serving ===

impl Serving {
    fn new() -> Self {
        let (trigger, shutdown) = Shutdown::channel();
        Self {
            tasks: JoinSet::new(),
            names: BTreeSet::new(),
            trigger,
            shutdown,
            health: JoinSet::new(),
        }
    }

    fn serve(&mut self, name: String, server: Bound, handle: &Handle) {
        let mut health = server.health;
        handle.set_health(&name, health.borrow_and_update().clone());
        handle.set_state(&name, ServerState::Serving);
        let (watched, ended) = (name.clone(), EndedOnDrop(name.clone(), handle.clone()));
        let handle = handle.clone();
        self.health.spawn(async move {
            while health.changed().await.is_ok() {
                let now = health.borrow_and_update().clone();
                log_health(&watched, &now);
                handle.set_health(&watched, now);
            }
        });
        self.names.insert(name.clone());
        let (serve, shutdown) = (server.serve, self.shutdown.clone());
        self.tasks.spawn(async move {
            let _ended = ended;
            let ended = step::caught(async move { serve(shutdown).await }).await;
            (name, ended)
        });
    }

    /// Completes when a server ends, which none should before the stop.
    pub(super) async fn ended(&mut self) -> Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((name, ended))) => {
                    self.names.remove(&name);
                    return match ended {
                        Ok(()) => {
                            Error::msg(format!("server `{name}` ended before it was asked to"))
                        }
                        Err(failed) => failed.named(&format!("server `{name}`")),
                    };
                }
                // Aborted, which only the stop does.
                Some(Err(_aborted)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

fn log_health(server: &str, health: &Health) {
    match health {
        Health::Serving => info!(server, "healthy again"),
        Health::Degraded(why) => tracing::warn!(server, %why, "degraded"),
        Health::NotServing(why) => tracing::error!(server, %why, "cannot serve"),
    }
}
