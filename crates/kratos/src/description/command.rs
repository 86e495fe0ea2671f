//! A command that a server or resource brings to the command line of its service.

use std::{fmt, future::Future, sync::Arc};

use clap::ArgMatches;
use futures_util::future::BoxFuture;

use crate::{Result, signal::Signals};

type Run = dyn Fn(CommandContext) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// A command beside `run` and `check` in [`cli`](crate::cli): `dead-letters`, say.
///
/// ```
/// use kratos::{Command, Description};
///
/// let forget = clap::Command::new("forget").about("Removes what is older than a week");
/// let command = Command::new(forget, |cx| async move {
///     // store.prune(cx.stopped()).await
///     # let _ = cx;
///     Ok(())
/// });
/// let description = Description::new("store").command(command);
/// assert_eq!(description.commands()[0].name(), "forget");
/// ```
#[derive(Clone)]
pub struct Command {
    clap: clap::Command,
    run: Arc<Run>,
}

/// What a [`Command`] is run with.
#[derive(Debug)]
pub struct CommandContext {
    matches: ArgMatches,
    signals: Signals,
}

// === impl Command ===

impl Command {
    /// A command: how it is written, and what it does. The App does not run meanwhile: its resources
    /// are not open.
    #[must_use]
    pub fn new<F, Fut>(clap: clap::Command, run: F) -> Self
    where
        F: Fn(CommandContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        Self {
            clap,
            run: Arc::new(move |cx| Box::pin(run(cx))),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.clap.get_name()
    }

    pub(crate) fn clap(&self) -> &clap::Command {
        &self.clap
    }

    pub(crate) async fn run(&self, context: CommandContext) -> Result<()> {
        (self.run)(context).await
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Command").field(&self.name()).finish()
    }
}

// === impl CommandContext ===

impl CommandContext {
    pub(crate) fn new(matches: ArgMatches, signals: Signals) -> Self {
        Self { matches, signals }
    }

    /// What was given to the command.
    #[must_use]
    pub fn matches(&self) -> &ArgMatches {
        &self.matches
    }

    /// Completes at the first signal: the command should end cleanly, within the App's stop timeout.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let signals = self.signals.clone();
        async move { signals.reached(1).await }
    }
}
