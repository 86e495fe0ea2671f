//! The admin server: what is going on in this process, for people, probes and Prometheus.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the operations page |
//! | `/documents` | AsyncAPI and OpenAPI, to be read; `/asyncapi.json`, `/openapi.json` |
//! | `/livez`, `/readyz`, `/startupz` | 200 or 503; `?verbose` says why |
//! | `/metrics` | Prometheus text |
//! | `/status`, `/subscriptions` | what the page shows, as JSON |
//! | `/dead-letters/{id}` | the dead letters of a subscription; only with [`Config::actions`], since a broker may count it as a delivery |
//! | `/config` | the loaded configuration, its secrets masked |
//! | `/log-level` | the log's filter |
//! | POST `/subscriptions/{id}/pause`, `resume`, `concurrency`; POST `/dead-letters/{id}/replay`; PUT `/log-level` | what [`Config::actions`] allows |
//!
//! It listens on an address of its own, on loopback unless configured otherwise: whoever reaches it
//! needs no password. On loopback it answers only requests whose `host` is an IP address or
//! `localhost`, so that no web site in a browser on this machine can make itself its neighbour; what
//! changes something takes `application/json` alone, and not from the pages of others. It has **a thread and a runtime of its own**, so that it answers when the
//! App's runtime is blocked, which is what `/livez` is there to tell.
//!
//! Unlike other servers it answers from its bind on, since it takes no work: added first, it shows
//! a start that takes its time. It serves until every other server has drained.
//!
//! **`/livez`** is false when the App's runtime, or the dispatcher of a consumer, has not run for
//! [`Config::stuck_after`], or when a dispatcher lets messages lie though it could handle them. A
//! restart helps then. It stays true while a broker is away: no restart brings that back.
//! **`/readyz`** is [`Handle::is_ready`](crate::Handle::is_ready): false from the first moment of a
//! stop, long before connections are refused. A subscription that the broker has assigned nothing to
//! is told by `?verbose` and does not count: one member more than there are queues is no fault, the
//! others work, and an orchestrator that waited for it would wait for ever.

mod answer;
mod config;
mod guard;
mod look;
mod operate;
mod probe;
mod routes;
mod status;
mod thread;
mod watch;

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

pub use self::config::Config;
use self::{look::Looks, routes::Admin, thread::Thread, watch::Watch};
use crate::{
    BoundServer, Description, Endpoint, Entry, Result, ServerState, ServerStatus, Shutdown,
    StartContext,
};

/// The kind of this server: others of it are not waited for at the stop.
const KIND: &str = "admin";

/// What is kept of the stop's time for the end of this server.
const END_RESERVE: Duration = Duration::from_millis(300);

/// An admin server that has not started.
///
/// ```
/// use kratos::{App, admin};
///
/// let app = App::new().server(admin::Server::new(admin::Config::default()));
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until an App runs it"]
pub struct Server {
    name: String,
    config: Config,
}

/// An [admin server](Server) that answers.
#[derive(Debug)]
pub struct Bound {
    thread: Thread,
    handle: crate::Handle,
    /// Shows that the App's runtime runs.
    _pulse: AbortOnDropHandle<()>,
}

// === impl Server ===

impl Server {
    /// An admin server.
    pub fn new(config: Config) -> Self {
        Self {
            name: "admin".to_owned(),
            config,
        }
    }

    /// Sets the name in logs and errors, `admin` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl crate::Server for Server {
    type Bound = Bound;

    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> Description {
        let described = Description::new(KIND);
        if self.config.actions {
            described.entry(Entry::new("option", "actions"))
        } else {
            described
        }
    }

    async fn bind(self, cx: StartContext) -> Result<Bound> {
        let watch = Watch::new(cx.handle().clone(), self.config.stuck_after);
        let pulse = tokio::spawn(watch.clone().beat());
        let admin = Admin {
            info: cx.info().clone(),
            handle: cx.handle().clone(),
            watch,
            looks: Looks::new(),
            actions: self.config.actions,
            loopback: self.config.addr.ip().is_loopback(),
            app: tokio::runtime::Handle::current(),
        };
        let thread = Thread::start(self.config.addr, admin.router()).await?;
        Ok(Bound {
            thread,
            handle: cx.handle().clone(),
            _pulse: AbortOnDropHandle::new(pulse),
        })
    }
}

// === impl Bound ===

impl BoundServer for Bound {
    fn endpoints(&self) -> Vec<Endpoint> {
        vec![Endpoint::new("http", self.thread.addr())]
    }

    /// Serves until every other server has ended, at the latest until the stop's deadline.
    async fn serve(mut self, shutdown: Shutdown) -> Result<()> {
        let over = |server: &ServerStatus| {
            server.state == ServerState::Ended || server.description.kind() == KIND
        };
        tokio::select! {
            () = shutdown.requested() => {}
            ended = self.thread.ended() => return ended,
        }
        loop {
            // A second signal brings the deadline forward, and tells by `now`.
            let deadline = shutdown.deadline().unwrap_or_else(Instant::now);
            tokio::select! {
                () = self.handle.servers_reached(|all| all.iter().all(over)) => break,
                () = sleep_until(deadline.checked_sub(END_RESERVE).unwrap_or(deadline)) => break,
                () = shutdown.now(), if !shutdown.is_now() => {}
            }
        }
        self.thread.stop().await;
        Ok(())
    }
}
