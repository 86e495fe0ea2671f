//! A server's own view of whether it can do its work.

use std::sync::Arc;

use tokio::sync::watch;

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It does its work.
    Serving,
    /// It works, but something it uses is away: the App stays ready.
    Degraded(Arc<str>),
    /// It cannot work: the App is not ready.
    NotServing(Arc<str>),
}

impl Health {
    /// A receiver that says [`Health::Serving`] for ever.
    #[must_use]
    pub fn always() -> watch::Receiver<Self> {
        watch::channel(Self::Serving).1
    }

    /// Whether traffic may be sent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !matches!(self, Self::NotServing(_))
    }
}
