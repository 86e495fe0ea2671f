//! The stop of an App: every step runs, each within its slice of one deadline.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use super::{
    Phase,
    run::Started,
    step::{self, Failed},
};
use crate::{Config, Error, Instance, Result, error_chain, signal::Signals};

/// After a second signal everything left has this long.
const FORCED: Duration = Duration::from_secs(1);

/// How long after its own deadline a server is dropped, if it has not returned.
const LAST_RESORT: Duration = Duration::from_millis(500);

/// Stops what was started. `failure` is why, if it was one.
pub(super) async fn stop(mut app: Started, failure: Option<Error>) -> Result<()> {
    let mut report = Report::default();
    if let Some(failure) = failure {
        report.add(failure);
    }
    let begun = Instant::now();
    let mut clock = Clock::new(begun, &app.config, app.signals.clone());
    app.process.stops_by(clock.end);
    app.handle.set_phase(Phase::Draining);
    info!(phase = %Phase::Draining, timeout_s = app.config.stop_timeout.as_secs_f64(), "draining");

    deregister(&mut app, &mut clock, &mut report).await;
    if app.was_ready && !app.servers.tasks.is_empty() {
        clock.pause(app.config.drain_delay).await;
    }
    if app.was_ready {
        before_stop(&mut app, &mut clock, &mut report).await;
    }
    drain(&mut app, &mut clock, &mut report).await;
    close(&mut app, &mut clock, &mut report).await;
    after_stop(&mut app, &mut clock, &mut report).await;

    if clock.forced {
        report.add(Error::msg("a second signal cut the stop short"));
    }
    app.handle.set_phase(Phase::Stopped);
    let seconds = begun.elapsed().as_secs_f64();
    info!(phase = %Phase::Stopped, seconds, errors = report.count, "stopped");
    report.result()
}

async fn deregister(app: &mut Started, clock: &mut Clock, report: &mut Report) {
    let instance = Instance::from(&app.info);
    let by = clock.slice();
    let registrars = std::mem::take(&mut app.registrars);
    for (left, registrar) in countdown(registrars) {
        let name = registrar.name();
        let by = share(by, left);
        let step = registrar.deregister(instance.clone());
        report.check(clock.run(by, left, step).await, || {
            format!("registrar `{name}`: deregister")
        });
    }
}

async fn before_stop(app: &mut Started, clock: &mut Clock, report: &mut Report) {
    let by = clock.slice();
    let hooks = std::mem::take(&mut app.before_stop);
    for (left, hook) in countdown(hooks) {
        let by = share(by, left);
        let what = format!("before-stop hook `{}`", hook.name);
        let step = hook.call(app.hook_context(by));
        report.check(clock.run(by, left, step).await, || what);
    }
}

/// Intake stops, handlers finish; from `now_at` on they are cancelled.
async fn drain(app: &mut Started, clock: &mut Clock, report: &mut Report) {
    let servers = &mut app.servers;
    servers.trigger.request(clock.serve_by);
    if clock.forced {
        servers.trigger.force();
    }
    let mut told = clock.forced;
    while !servers.tasks.is_empty() {
        let (now_at, drop_at) = (clock.now_at, clock.drop_at());
        tokio::select! {
            Some(joined) = servers.tasks.join_next() => {
                // An error is an abort, which nothing but the end of this function does.
                let Ok((name, ended)) = joined else { continue };
                servers.names.remove(&name);
                if ended.is_ok() {
                    info!(server = name, "drained");
                }
                report.check(ended, || format!("server `{name}`"));
            }
            () = clock.signals.reached(2), if !clock.forced => {
                clock.force();
                servers.trigger.request(clock.serve_by);
                servers.trigger.force();
                told = true;
            }
            () = sleep_until(now_at), if !told => {
                servers.trigger.force();
                told = true;
            }
            () = sleep_until(drop_at) => break,
        }
    }
    for name in std::mem::take(&mut servers.names) {
        report.add(Error::msg(format!(
            "server `{name}` did not return by its deadline: dropped"
        )));
    }
    servers.tasks.abort_all();
    clock.close_from_now();
}

async fn close(app: &mut Started, clock: &mut Clock, report: &mut Report) {
    let mut resources = std::mem::take(&mut app.resources);
    resources.reverse();
    // The after-stop hooks count as one more: they must not find their time used up.
    for (left, resource) in countdown(resources) {
        let name = resource.name().to_owned();
        let by = share(clock.end, left + 1);
        let closed = clock.run(by, left + 1, resource.close(by)).await;
        if closed.is_ok() {
            info!(resource = name, "closed");
        }
        report.check(closed, || format!("resource `{name}`: close"));
    }
}

async fn after_stop(app: &mut Started, clock: &mut Clock, report: &mut Report) {
    let hooks = std::mem::take(&mut app.after_stop);
    for (left, hook) in countdown(hooks) {
        let by = share(clock.end, left);
        let what = format!("after-stop hook `{}`", hook.name);
        let step = hook.call(app.hook_context(by));
        report.check(clock.run(by, left, step).await, || what);
    }
}

/// Each item with how many are left, itself included.
fn countdown<T>(items: Vec<T>) -> impl Iterator<Item = (u32, T)> {
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
    (1..=count).rev().zip(items)
}

/// The end of the next of `left` steps that have until `by`: equal parts of what is left.
fn share(by: Instant, left: u32) -> Instant {
    let now = Instant::now();
    now + by.saturating_duration_since(now) / left.max(1)
}

/// The one deadline, and what it is divided into.
///
/// ```text
/// begun            now_at    serve_by        end
///   | handlers finish | servers | resources, |
///   |                 | finish  | hooks      |
///                     '-- close_reserve -----'
/// ```
struct Clock {
    now_at: Instant,
    serve_by: Instant,
    end: Instant,
    /// The longest that deregistering, and the before-stop hooks, may take.
    slice: Duration,
    forced: bool,
    signals: Signals,
}

// === impl Clock ===

impl Clock {
    fn new(begun: Instant, config: &Config, signals: Signals) -> Self {
        let end = begun + config.stop_timeout;
        let slice = config.stop_timeout / 5;
        let reserve = config.close_reserve.min(slice);
        Self {
            now_at: end - reserve,
            serve_by: end - reserve / 2,
            end,
            slice,
            forced: false,
            signals,
        }
    }

    /// A second signal came: what is left has [`FORCED`].
    fn force(&mut self) {
        let now = Instant::now();
        info!("a second signal: stopping now");
        self.forced = true;
        self.end = self.end.min(now + FORCED);
        self.now_at = now;
        self.serve_by = now + self.end.saturating_duration_since(now) / 2;
        self.slice = FORCED / 10;
    }

    fn slice(&self) -> Instant {
        self.end.min(Instant::now() + self.slice)
    }

    fn drop_at(&self) -> Instant {
        if self.forced {
            self.serve_by
        } else {
            self.serve_by + LAST_RESORT
        }
    }

    /// Servers that were dropped late must not use up the time of the resources.
    fn close_from_now(&mut self) {
        let now = Instant::now();
        let promised = self.end.saturating_duration_since(self.serve_by);
        self.end = self.end.max(now + promised);
    }

    async fn pause(&mut self, delay: Duration) {
        if self.forced || delay.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.signals.reached(2) => self.force(),
        }
    }

    /// Runs one of `left` steps until `by`; a second signal shortens it.
    async fn run(
        &mut self,
        mut by: Instant,
        left: u32,
        step: BoxFuture<'static, Result<()>>,
    ) -> Result<(), Failed> {
        let begun = Instant::now();
        let mut task = step::spawn(step);
        loop {
            tokio::select! {
                ended = &mut task => return step::joined(ended),
                () = sleep_until(by) => return Err(Failed::TimedOut(begun.elapsed())),
                () = self.signals.reached(2), if !self.forced => {
                    self.force();
                    by = by.min(share(self.end, left + 1));
                }
            }
        }
    }
}

/// The errors of a stop: all are logged, the first is returned.
#[derive(Default)]
struct Report {
    first: Option<Error>,
    /// Ids of abandoned work in the errors after the first.
    abandoned: Vec<String>,
    count: usize,
}

// === impl Report ===

impl Report {
    fn add(&mut self, failure: Error) {
        error!(error = %error_chain(&failure), "failed");
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(failure);
        } else {
            self.abandoned.extend_from_slice(failure.abandoned_ids());
        }
    }

    fn check(&mut self, ended: Result<(), Failed>, what: impl FnOnce() -> String) {
        if let Err(failed) = ended {
            self.add(failed.named(&what()));
        }
    }

    fn result(self) -> Result<()> {
        match self.first {
            None => Ok(()),
            Some(first) => Err(first.and_abandoned(self.abandoned)),
        }
    }
}
