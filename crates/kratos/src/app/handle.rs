//! How the App is watched and stopped from outside.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::AppDescription;
use crate::{AppInfo, Description, Endpoint, Health};

/// Where the App is in its life. Phases only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Resources open, servers bind.
    Starting,
    /// Every server serves.
    Ready,
    /// The stop has begun: no new work should be sent here.
    Draining,
    /// Everything is closed.
    Stopped,
}

/// Watches and stops an App; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    board: Arc<Board>,
}

/// One server of an App, as it is: from [`Handle::servers`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Its name, unique within the App.
    pub name: String,
    /// How far it is.
    pub state: ServerState,
    /// What it serves, and its live view.
    pub description: Arc<Description>,
    /// The addresses that clients can reach; none before it is bound.
    pub endpoints: Vec<Endpoint>,
    /// What it last said of its health; `None` before it serves.
    pub health: Option<Health>,
}

/// How far a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ServerState {
    /// Not bound yet.
    Starting,
    /// Bound: it waits for the other servers.
    Bound,
    /// It serves, or drains.
    Serving,
    /// It has returned, or was dropped.
    Ended,
}

struct Board {
    made: Instant,
    description: OnceLock<AppDescription>,
    stop: CancellationToken,
    phase: watch::Sender<Phase>,
    ready: watch::Sender<bool>,
    /// Counts changes of the states of servers.
    moves: watch::Sender<u64>,
    /// Guards every change, so that phase and readiness never contradict each other for long.
    now: Mutex<Now>,
}

struct Now {
    servers: Vec<ServerStatus>,
    resources: Vec<String>,
    phase_since: Instant,
}

// === impl Phase ===

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        })
    }
}

// === impl Handle ===

impl Handle {
    pub(crate) fn new(phase: Phase) -> Self {
        let made = Instant::now();
        let board = Board {
            made,
            description: OnceLock::new(),
            stop: CancellationToken::new(),
            phase: watch::Sender::new(phase),
            ready: watch::Sender::new(phase == Phase::Ready),
            moves: watch::Sender::new(0),
            now: Mutex::new(Now {
                servers: Vec::new(),
                resources: Vec::new(),
                phase_since: made,
            }),
        };
        Self {
            board: Arc::new(board),
        }
    }

    /// Asks the App to stop, as a signal does. Asking again changes nothing.
    pub fn stop(&self) {
        self.board.stop.cancel();
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.board.phase.borrow()
    }

    /// The phase and its changes.
    #[must_use]
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.board.phase.subscribe()
    }

    /// Waits until the App has come to `phase` or passed it; answers the phase then.
    pub async fn reached(&self, phase: Phase) -> Phase {
        let mut phases = self.phases();
        // The sender lives in `self`, so the wait cannot fail.
        phases
            .wait_for(|now| *now >= phase)
            .await
            .map_or(Phase::Stopped, |now| *now)
    }

    /// Whether work may be sent here: phase [`Ready`](Phase::Ready) and every server
    /// [ready](Health::is_ready).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.board.ready.borrow()
    }

    /// Readiness and its changes.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.board.ready.subscribe()
    }

    /// What each server last said of its health, by its name.
    #[must_use]
    pub fn health(&self) -> BTreeMap<String, Health> {
        let servers = &self.board.lock().servers;
        let known = |s: &ServerStatus| Some((s.name.clone(), s.health.clone()?));
        servers.iter().filter_map(known).collect()
    }

    /// Who the App is; `None` before it runs.
    #[must_use]
    pub fn info(&self) -> Option<&AppInfo> {
        self.description().map(|description| &description.info)
    }

    /// What the App consists of, as it was when it began to run; `None` before.
    #[must_use]
    pub fn description(&self) -> Option<&AppDescription> {
        self.board.description.get()
    }

    /// Every server, in the order they were added; none before the App runs.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerStatus> {
        self.board.lock().servers.clone()
    }

    /// The names of the resources, in the order they were added; none before the App runs.
    #[must_use]
    pub fn resources(&self) -> Vec<String> {
        self.board.lock().resources.clone()
    }

    /// For how long the App has been in its phase.
    #[must_use]
    pub fn phase_age(&self) -> Duration {
        self.board.lock().phase_since.elapsed()
    }

    /// How long ago the App was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.board.made.elapsed()
    }

    /// Waits until `done` holds for the servers: looks at every change of a
    /// [state](ServerStatus::state).
    pub async fn servers_reached(&self, mut done: impl FnMut(&[ServerStatus]) -> bool) {
        let mut moves = self.board.moves.subscribe();
        while !done(&self.servers()) {
            // The sender lives in `self`, so the wait cannot fail.
            let _moved = moves.changed().await;
        }
    }

    pub(super) fn stop_requested(&self) -> CancellationToken {
        self.board.stop.clone()
    }

    /// The App runs, and this is what it will serve.
    pub(super) fn begin(&self, description: AppDescription) {
        let mut now = self.board.lock();
        let resources = description.resources.iter();
        now.resources = resources.map(|(name, _)| name.clone()).collect();
        let servers = description.servers.iter();
        now.servers = servers
            .map(|(name, description)| ServerStatus {
                name: name.clone(),
                state: ServerState::Starting,
                description: Arc::new(description.clone()),
                endpoints: Vec::new(),
                health: None,
            })
            .collect();
        let _runs_once = self.board.description.set(description);
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        let mut now = self.board.lock();
        if self.phase() != phase {
            now.phase_since = Instant::now();
        }
        self.board.set_ready(phase, &now);
        self.board.phase.send_replace(phase);
    }

    pub(super) fn set_health(&self, server: &str, health: Health) {
        let mut now = self.board.lock();
        now.server(server, |server| server.health = Some(health));
        self.board.set_ready(self.phase(), &now);
    }

    pub(super) fn bound(&self, server: &str, endpoints: &[Endpoint]) {
        self.board.lock().server(server, |server| {
            server.state = ServerState::Bound;
            endpoints.clone_into(&mut server.endpoints);
        });
        self.board.moved();
    }

    pub(super) fn set_state(&self, server: &str, state: ServerState) {
        let change = |server: &mut ServerStatus| server.state = state;
        self.board.lock().server(server, change);
        self.board.moved();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("phase", &self.phase())
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

// === impl Board ===

impl Board {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) {
        self.moves.send_modify(|moves| *moves += 1);
    }

    fn set_ready(&self, phase: Phase, now: &Now) {
        let health = || now.servers.iter().filter_map(|s| s.health.as_ref());
        self.ready.send_if_modified(|ready| {
            let now = phase == Phase::Ready && health().all(Health::is_ready);
            std::mem::replace(ready, now) != now
        });
    }
}

// === impl Now ===

impl Now {
    fn server(&mut self, name: &str, change: impl FnOnce(&mut ServerStatus)) {
        if let Some(server) = self.servers.iter_mut().find(|s| s.name == name) {
            change(server);
        }
    }
}

// === impl ServerState ===

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Bound => "bound",
            Self::Serving => "serving",
            Self::Ended => "ended",
        })
    }
}
