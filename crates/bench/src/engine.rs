//! A server of a scenario, and rounds of messages through it.

use kratos::{
    AppInfo, BoundServer as _, Server as _, Shutdown, ShutdownTrigger, StartContext,
    telemetry::Telemetry,
};
use kratos_broker::Server;
use tokio::{
    runtime::Runtime,
    time::{Duration, Instant},
};

use crate::{Latch, Null, ROUND, Scenario};

/// How long the server may take to start.
const START_MAX: Duration = Duration::from_secs(10);

/// A server that runs, on a runtime of one thread: the same order of work in every run.
#[derive(Debug)]
pub struct Engine {
    runtime: Runtime,
    latch: &'static Latch,
    driver: Null,
    _serving: ShutdownTrigger,
    _telemetry: Option<Telemetry>,
}

impl Engine {
    /// Starts the server of a scenario, and sets up telemetry if the scenario has it: once per
    /// process, for a subscriber is that of the whole process.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start(scenario: Scenario) -> kratos::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| kratos::Error::msg("no runtime").with_source(error))?;
        let telemetry = scenario.telemetry()?;
        let (latch, driver) = (Latch::leaked(), scenario.driver());
        let server = Server::new(driver.clone()).routes(scenario.router(latch));
        let (serving, shutdown) = Shutdown::channel();
        runtime.block_on(async {
            let info = AppInfo::new("bench", "0");
            let cx = StartContext::detached(info, Instant::now() + START_MAX);
            let bound = server.bind(cx).await?;
            tokio::spawn(bound.serve(shutdown));
            // Lanes and intake reach the point where they wait.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, kratos::Error>(())
        })?;
        Ok(Self {
            runtime,
            latch,
            driver,
            _serving: serving,
            _telemetry: telemetry,
        })
    }

    /// Makes a round of messages available, which is not measured.
    pub fn fill(&self) {
        self.latch.expect(ROUND);
        self.driver.fill();
    }

    /// Handles the round.
    pub fn drain(&self) {
        drain(&self.runtime, self.latch);
    }

    /// A round that no tool counts.
    pub fn warm_up(&self) {
        self.fill();
        self.runtime.block_on(self.latch.done());
    }
}

/// What is measured, and nothing else: callgrind counts in this function only, so its name must be
/// in no other's.
#[inline(never)]
pub fn drain(runtime: &Runtime, latch: &Latch) {
    runtime.block_on(latch.done());
}
