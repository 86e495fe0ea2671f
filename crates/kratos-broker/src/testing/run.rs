//! Running a server without an App.

use std::time::Duration;

use kratos::{AppInfo, BoundServer, Health, Shutdown, ShutdownTrigger, StartContext};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// How long a test's server may take to bind.
const START_MAX: Duration = Duration::from_secs(30);

/// How long a law may take: they have bounds of their own, this is for what they forgot.
const LAW_MAX: Duration = Duration::from_secs(600);

/// A server that serves in a task of its own.
#[derive(Debug)]
pub struct Started {
    trigger: ShutdownTrigger,
    task: JoinHandle<kratos::Result<()>>,
    health: watch::Receiver<Health>,
}

impl Started {
    /// Binds a server, and serves it in a task.
    ///
    /// # Panics
    ///
    /// The server cannot be bound.
    pub async fn start(server: impl kratos::Server) -> Self {
        let bound = server
            .bind(start_context())
            .await
            .expect("the server binds");
        let (trigger, shutdown) = Shutdown::channel();
        let health = bound.health();
        let task = tokio::spawn(bound.serve(shutdown));
        Self {
            trigger,
            task,
            health,
        }
    }

    /// How the server is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Asks the server to stop within `by`, and waits for its answer.
    ///
    /// # Errors
    ///
    /// What `serve` returned.
    ///
    /// # Panics
    ///
    /// The server did not end within `by` and a second, or panicked.
    pub async fn stop(self, by: Duration) -> kratos::Result<()> {
        self.request(by);
        self.ended(by + Duration::from_secs(1)).await
    }

    /// Asks the server to stop within `by`.
    pub fn request(&self, by: Duration) {
        self.trigger.request(Instant::now() + by);
    }

    /// Ends the server without a word to anybody, as a crash does; returns when it is gone.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Asks the server to cancel its handlers.
    pub fn force(&self) {
        self.trigger.force();
    }

    /// Waits for the server to end.
    ///
    /// # Errors
    ///
    /// What `serve` returned.
    ///
    /// # Panics
    ///
    /// The server did not end in time, or panicked.
    pub async fn ended(self, within: Duration) -> kratos::Result<()> {
        let ended = tokio::time::timeout(within, self.task).await;
        ended
            .expect("the server ends in time")
            .expect("the server does not panic")
    }
}

/// A context for servers and consumers that run without an App.
#[must_use]
pub fn start_context() -> StartContext {
    StartContext::detached(AppInfo::new("conformance", "0"), Instant::now() + START_MAX)
}

/// Runs a law on a runtime of its own.
///
/// # Panics
///
/// The law is broken, or has not ended after ten minutes.
pub fn block_on(law: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let ended = runtime.block_on(async { tokio::time::timeout(LAW_MAX, law).await });
    assert!(ended.is_ok(), "the law has not ended within {LAW_MAX:?}");
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// It does not hold within `within`.
pub async fn eventually(what: &str, within: Duration, condition: impl Fn() -> bool) {
    let until = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < until, "not within {within:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
