//! What a server or resource gets when it starts, and when it is told to stop.

use std::future::Future;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{AppInfo, Handle, Phase, Result, retry::Retry};

/// Given to [`Server::bind`](crate::Server::bind) and [`Resource::open`](crate::Resource::open).
#[derive(Clone, Debug)]
pub struct StartContext {
    pub(crate) info: AppInfo,
    pub(crate) deadline: Instant,
    pub(crate) cancelled: CancellationToken,
    pub(crate) handle: Handle,
}

/// Given to [`BoundServer::serve`](crate::BoundServer::serve): when to stop, and by when.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: CancellationToken,
    now: CancellationToken,
    deadline: watch::Receiver<Option<Instant>>,
}

/// The other side of a [`Shutdown`]: the App's, or a test's.
#[derive(Debug)]
pub struct ShutdownTrigger {
    requested: CancellationToken,
    now: CancellationToken,
    deadline: watch::Sender<Option<Instant>>,
}

// === impl StartContext ===

impl StartContext {
    /// A context of its own, for running a server without an App (tests). Its handle says `Ready`
    /// for ever, and stops nothing.
    #[must_use]
    pub fn detached(info: AppInfo, deadline: Instant) -> Self {
        let handle = Handle::new(Phase::Ready);
        Self {
            info,
            deadline,
            cancelled: CancellationToken::new(),
            handle,
        }
    }

    /// Who this process is.
    #[must_use]
    pub fn info(&self) -> &AppInfo {
        &self.info
    }

    /// When the start gives up.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Completes when the start was given up, by a signal or another failure.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// The App's handle: its phase, its readiness, and a way to stop it.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Calls `attempt` until it succeeds, fails for good, or the start's deadline has come.
    ///
    /// A [transient](crate::Error::is_transient) failure is tried again with back-off and logged
    /// at most once a second.
    ///
    /// # Errors
    ///
    /// A permanent error of `attempt`, as it is. At the deadline, or when the start is given up, an
    /// error that names `what` and says for how long it was tried, with the last error as source.
    ///
    /// # Cancel safety
    ///
    /// As safe as the futures that `attempt` makes.
    pub async fn retry<T, F, Fut>(&self, what: &str, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        let mut retry = Retry::new(what, self.deadline);
        loop {
            let answer = tokio::select! {
                answer = tokio::time::timeout_at(self.deadline, attempt()) => answer.ok(),
                () = self.cancelled() => None,
            };
            match answer {
                Some(Ok(done)) => return Ok(done),
                Some(Err(error)) => retry.pause(error, &self.cancelled).await?,
                None => return Err(retry.give_up()),
            }
        }
    }
}

// === impl Shutdown ===

impl Shutdown {
    /// A shutdown and its trigger.
    #[must_use]
    pub fn channel() -> (ShutdownTrigger, Self) {
        let (requested, now) = (CancellationToken::new(), CancellationToken::new());
        let (tx, deadline) = watch::channel(None);
        let shutdown = Self {
            requested: requested.clone(),
            now: now.clone(),
            deadline,
        };
        (
            ShutdownTrigger {
                requested,
                now,
                deadline: tx,
            },
            shutdown,
        )
    }

    /// Completes when intake must stop: accept no more, receive no more, finish what runs.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Whether the stop has been requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Completes when handlers that still run must be cancelled, so that what remains of the
    /// deadline is left for handing back, flushing and closing.
    pub async fn now(&self) {
        self.now.cancelled().await;
    }

    /// Whether handlers must be cancelled.
    #[must_use]
    pub fn is_now(&self) -> bool {
        self.now.is_cancelled()
    }

    /// When `serve` must have returned; `None` until the stop is requested.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        *self.deadline.borrow()
    }
}

// === impl ShutdownTrigger ===

impl ShutdownTrigger {
    /// Asks the server to stop by `deadline`.
    pub fn request(&self, deadline: Instant) {
        self.deadline.send_replace(Some(deadline));
        self.requested.cancel();
    }

    /// Asks the server to cancel what still runs.
    pub fn force(&self) {
        self.requested.cancel();
        self.now.cancel();
    }
}
