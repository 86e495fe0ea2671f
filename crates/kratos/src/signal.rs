//! Where the App's signals come from.

use std::future::Future;

use tokio::sync::watch;

use crate::{Error, Result};

/// A source of signals: the first asks the App to stop, the second ends the wait.
#[derive(Clone, Debug)]
pub struct Signals {
    /// How many have come. A level, not an edge: a signal before the App runs is not lost.
    count: watch::Receiver<u32>,
}

/// The sending side of [`Signals::channel`].
#[derive(Clone, Debug)]
pub struct SignalSender {
    count: watch::Sender<u32>,
}

// === impl Signals ===

impl Signals {
    /// Signals that are sent by hand: for tests, and for hosts with a signal handler of their own.
    #[must_use]
    pub fn channel() -> (SignalSender, Self) {
        let (count, receiver) = watch::channel(0);
        (SignalSender { count }, Self { count: receiver })
    }

    /// No signals: only the [`Handle`](crate::Handle), a parent or a failure stops the App.
    #[must_use]
    pub fn none() -> Self {
        Self::channel().1
    }

    /// SIGTERM and SIGINT of this process (Ctrl-C where there is no SIGTERM), from this call on.
    ///
    /// # Errors
    ///
    /// The operating system refused a handler.
    pub fn process() -> Result<Self> {
        let (sender, signals) = Self::channel();
        tokio::spawn(forward(sender)?);
        Ok(signals)
    }

    /// Completes when at least `count` signals have come; never, if the source has ended before.
    pub(crate) async fn reached(&self, count: u32) {
        let mut receiver = self.count.clone();
        if receiver.wait_for(|now| *now >= count).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether more can come.
    pub(crate) fn is_open(&self) -> bool {
        self.count.has_changed().is_ok()
    }
}

// === impl SignalSender ===

impl SignalSender {
    /// Sends one signal.
    pub fn send(&self) {
        self.count
            .send_modify(|count| *count = count.saturating_add(1));
    }

    pub(crate) fn count(&self) -> u32 {
        *self.count.borrow()
    }
}

/// Installs the handlers now; the future counts what they catch, while it is polled.
#[cfg(unix)]
pub(crate) fn forward(to: SignalSender) -> Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let install = |kind, name: &str| {
        signal(kind).map_err(|e| {
            Error::msg(format!("could not install a handler of {name}")).with_source(e)
        })
    };
    let mut terminate = install(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = install(SignalKind::interrupt(), "SIGINT")?;
    Ok(async move {
        loop {
            let caught = tokio::select! {
                caught = terminate.recv() => caught,
                caught = interrupt.recv() => caught,
            };
            if caught.is_none() {
                return;
            }
            to.send();
        }
    })
}

/// Installs the handler when the future is first polled; then counts what it catches.
#[cfg(not(unix))]
pub(crate) fn forward(to: SignalSender) -> Result<impl Future<Output = ()> + Send> {
    Ok(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            to.send();
        }
    })
}
