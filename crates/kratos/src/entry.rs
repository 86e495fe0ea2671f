//! `kratos::main`: the runtime, the signals, the exit code.

use std::{future::Future, process::ExitCode, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    Error, Result,
    error::BoxError,
    error_chain,
    process::{self, Stop},
    signal::{self, Signals},
};

/// How long blocking calls may hold the process once everything else has ended.
const BLOCKING_GRACE: Duration = Duration::from_millis(300);

/// How long after its deadline a stop may take before the watchdog ends the process.
const WATCHDOG_GRACE: Duration = Duration::from_millis(650);

/// How long a stop may take after a second signal.
const FORCED_STOP: Duration = Duration::from_secs(1);

/// Runs a program: builds the runtime, installs the signals, runs `run`, prints its error.
///
/// Signals are installed before `run` is called, so that one at any moment of the start ends the
/// process cleanly: before an [`App`](crate::App) runs, `run` is dropped and the code is 0; after
/// that the App drains.
///
/// The calling thread serves the signals and watches the deadline on a runtime of its own, so that
/// code which blocks every worker thread cannot hold the process: it ends within a second of the
/// App's [`stop_timeout`](crate::App::stop_timeout), with a failure.
///
/// # Examples
///
/// ```
/// fn main() -> std::process::ExitCode {
///     kratos::main(run)
/// }
///
/// async fn run() -> kratos::Result<()> {
/// # return Ok(());
/// # #[allow(unreachable_code)]
///     kratos::App::new().name("saver-service").run().await
/// }
/// ```
pub fn main<F, Fut, E>(run: F) -> ExitCode
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    exit(async move {
        let ended = run().await.map_err(Error::from_any);
        ended.map(|()| ExitCode::SUCCESS)
    })
}

/// [`main`] of a future that knows its exit code.
pub(crate) fn exit(run: impl Future<Output = Result<ExitCode>> + Send + 'static) -> ExitCode {
    match supervise(run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn supervise(run: impl Future<Output = Result<ExitCode>> + Send + 'static) -> Result<ExitCode> {
    let supervisor = runtime(&mut Builder::new_current_thread())?;
    let workers = runtime(&mut Builder::new_multi_thread())?;
    if let Some(result) = supervisor.block_on(serve_signals(&workers, run))? {
        workers.shutdown_timeout(BLOCKING_GRACE);
        return result;
    }
    workers.shutdown_background();
    Err(Error::msg(
        "the process was ended at its deadline: code that blocks its thread, or that runs after \
         the App, held it",
    ))
}

fn runtime(builder: &mut Builder) -> Result<Runtime> {
    builder
        .enable_all()
        .build()
        .map_err(|e| Error::msg("could not build the runtime").with_source(e))
}

/// Runs `run` on `workers` while this thread serves the signals; `None` if it held the process past
/// its deadline.
async fn serve_signals(
    workers: &Runtime,
    run: impl Future<Output = Result<ExitCode>> + Send + 'static,
) -> Result<Option<Result<ExitCode>>> {
    let (sender, signals) = Signals::channel();
    tokio::spawn(signal::forward(sender.clone())?);
    let mut stops = process::install(signals.clone());
    let mut task = workers.spawn(run);
    let mut seen = 0;
    let mut signalled: Option<Instant> = None;
    loop {
        let stopping = stops.borrow_and_update().deadline;
        let last = [signalled, stopping].into_iter().flatten().min();
        let until = last.map(|at| at + WATCHDOG_GRACE);
        tokio::select! {
            ended = &mut task => return Ok(Some(ended.unwrap_or_else(|e| Err(died(e))))),
            () = signals.reached(seen + 1) => {
                seen = sender.count();
                let Some(by) = on_signal(seen, &stops) else {
                    task.abort();
                    return Ok(Some(Ok(ExitCode::SUCCESS)));
                };
                signalled = Some(signalled.map_or(by, |earlier| earlier.min(by)));
            }
            Ok(()) = stops.changed() => {}
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                return Ok(None);
            }
        }
    }
}

/// By when the App must have stopped; `None` if no App runs and there is nothing to wait for.
fn on_signal(count: u32, stops: &watch::Receiver<Stop>) -> Option<Instant> {
    // Copied out at once: an App that stops tells so under the lock that the next call takes, and
    // would wait for a borrow that waits for it.
    let stop = *stops.borrow();
    if !process::is_app_running() {
        return None;
    }
    let limit = if count > 1 { FORCED_STOP } else { stop.timeout };
    Some(Instant::now() + limit)
}

fn died(error: tokio::task::JoinError) -> Error {
    match error.try_into_panic() {
        Ok(_payload) => Error::msg("the program panicked; the message is above"),
        Err(error) => Error::msg("the program was cancelled").with_source(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_signal_and_a_stop_at_the_same_moment_do_not_wait_for_each_other() {
        const ROUNDS: usize = 100_000;
        let stops = process::install(Signals::none());
        let (done, both) = mpsc::channel();
        let stopped = done.clone();
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                let app = process::Running::enter(FORCED_STOP);
                app.stops_by(Instant::now());
            }
            stopped.send(()).unwrap();
        });
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                on_signal(1, &stops);
            }
            done.send(()).unwrap();
        });
        for _ in 0..2 {
            both.recv_timeout(Duration::from_secs(20))
                .expect("no deadlock");
        }
    }
}
