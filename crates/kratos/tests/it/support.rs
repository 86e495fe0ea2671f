//! Servers and resources that do as they are told, and write down what is done to them.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos::{
    App, BoundServer, Endpoint, Error, Health, Instance, Registrar, Resource, Result, Server,
    Shutdown, Signals, StartContext,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// What happened, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>);

/// How a step of a scripted thing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Step {
    #[default]
    Ok,
    Fail,
    /// Fails as if it might pass.
    Transient,
    Hang,
    Panic,
    /// Takes this long.
    Take(Duration),
}

/// What a scripted server does while it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Serve {
    /// Returns when asked to stop.
    #[default]
    UntilAsked,
    /// Has work that ends this long after it was asked to stop, or is cut.
    Work(Duration),
    /// Does not look at its shutdown.
    Deaf,
    /// Returns at once.
    Returns,
    Fails,
    Panics,
}

#[derive(Debug, Default)]
pub(crate) struct ScriptedServer {
    name: String,
    events: Events,
    bind: Step,
    serve: Serve,
    health: Option<watch::Receiver<Health>>,
}

#[derive(Debug, Default)]
pub(crate) struct ScriptedResource {
    name: String,
    events: Events,
    open: Step,
    close: Step,
    opens: u32,
}

#[derive(Debug, Default)]
pub(crate) struct ScriptedRegistrar {
    pub(crate) events: Events,
    pub(crate) register: Step,
    pub(crate) deregister: Step,
}

/// An App that no real signal reaches.
pub(crate) fn app() -> App {
    App::new().name("test").signals(Signals::none())
}

/// Polls until `condition` holds; fails after 5 s.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The whole chain of an error.
pub(crate) fn chain(error: &Error) -> String {
    kratos::error_chain(error).to_string()
}

// === impl Events ===

impl Events {
    pub(crate) fn push(&self, event: impl fmt::Display) {
        self.0.lock().unwrap().push(event.to_string());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn has(&self, event: &str) -> bool {
        self.0.lock().unwrap().iter().any(|e| e == event)
    }

    pub(crate) fn position(&self, event: &str) -> usize {
        let all = self.all();
        let found = all.iter().position(|e| e == event);
        found.unwrap_or_else(|| panic!("no {event:?} in {all:?}"))
    }

    pub(crate) fn server(&self, name: &str) -> ScriptedServer {
        ScriptedServer {
            name: name.to_owned(),
            events: self.clone(),
            ..Default::default()
        }
    }

    pub(crate) fn resource(&self, name: &str) -> ScriptedResource {
        ScriptedResource {
            name: name.to_owned(),
            events: self.clone(),
            ..Default::default()
        }
    }
}

// === impl Step ===

impl Step {
    pub(crate) async fn go(self, what: &str) -> Result<()> {
        match self {
            Self::Ok => Ok(()),
            Self::Fail => Err(Error::msg(format!("{what} went wrong"))),
            Self::Transient => Err(Error::msg(format!("{what} is away")).transient()),
            Self::Hang => std::future::pending().await,
            Self::Panic => panic!("{what} blew up"),
            Self::Take(time) => {
                sleep(time).await;
                Ok(())
            }
        }
    }
}

// === impl ScriptedServer ===

impl ScriptedServer {
    pub(crate) fn bind(mut self, bind: Step) -> Self {
        self.bind = bind;
        self
    }

    pub(crate) fn serve(mut self, serve: Serve) -> Self {
        self.serve = serve;
        self
    }

    pub(crate) fn health(mut self, health: watch::Receiver<Health>) -> Self {
        self.health = Some(health);
        self
    }
}

impl Server for ScriptedServer {
    type Bound = Self;

    fn name(&self) -> &str {
        &self.name
    }

    async fn bind(self, _cx: StartContext) -> Result<Self> {
        self.events.push(format!("bind {}", self.name));
        self.bind.go(&format!("bind of {}", self.name)).await?;
        Ok(self)
    }
}

impl BoundServer for ScriptedServer {
    fn endpoints(&self) -> Vec<Endpoint> {
        vec![Endpoint::new("test", ([127, 0, 0, 1], 1).into())]
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone().unwrap_or_else(Health::always)
    }

    async fn serve(self, shutdown: Shutdown) -> Result<()> {
        let Self {
            name,
            events,
            serve,
            ..
        } = self;
        events.push(format!("serve {name}"));
        match serve {
            Serve::UntilAsked => shutdown.requested().await,
            Serve::Work(takes) => {
                shutdown.requested().await;
                events.push(format!("asked {name}"));
                tokio::select! {
                    () = sleep(takes) => {}
                    () = shutdown.now() => {
                        events.push(format!("cut {name}"));
                        return Err(Error::abandoned([format!("work of {name}")]));
                    }
                }
            }
            Serve::Deaf => std::future::pending().await,
            Serve::Returns => return Ok(()),
            Serve::Fails => return Err(Error::msg("the wire was cut")),
            Serve::Panics => panic!("the server blew up"),
        }
        events.push(format!("stopped {name}"));
        Ok(())
    }
}

// === impl ScriptedResource ===

impl ScriptedResource {
    pub(crate) fn open(mut self, open: Step) -> Self {
        self.open = open;
        self
    }

    pub(crate) fn close(mut self, close: Step) -> Self {
        self.close = close;
        self
    }

    /// Opens at the attempt `attempt`, and is away before.
    pub(crate) fn away_until(mut self, attempt: u32) -> Self {
        self.open = Step::Transient;
        self.opens = attempt;
        self
    }
}

impl Resource for ScriptedResource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&mut self, _cx: StartContext) -> Result<()> {
        self.events.push(format!("open {}", self.name));
        if self.opens == 1 {
            self.open = Step::Ok;
        }
        self.opens = self.opens.saturating_sub(1);
        self.open.go(&self.name).await
    }

    async fn close(self, by: Instant) -> Result<()> {
        assert!(by > Instant::now(), "a resource was given no time to close");
        self.events.push(format!("close {}", self.name));
        self.close.go(&format!("close of {}", self.name)).await?;
        self.events.push(format!("closed {}", self.name));
        Ok(())
    }
}

// === impl ScriptedRegistrar ===

impl Registrar for ScriptedRegistrar {
    fn name(&self) -> &str {
        "registry"
    }

    async fn register(&self, instance: &Instance) -> Result<()> {
        assert!(
            !instance.endpoints.is_empty(),
            "registered without endpoints"
        );
        self.events.push("register");
        self.register.go("the registry").await
    }

    async fn deregister(&self, _instance: &Instance) -> Result<()> {
        self.events.push("deregister");
        self.deregister.go("the registry").await
    }
}
