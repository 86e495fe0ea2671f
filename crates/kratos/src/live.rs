//! A server that consumes, seen and steered from outside while it runs.

mod pulse;
mod status;

use std::{fmt, future::Future, pin::Pin};

pub use self::{
    pulse::Pulse,
    status::{HeldMessage, LastError, SubscriptionKind, SubscriptionState, SubscriptionStatus},
};

/// What [`Live`] answers when it takes its time.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// How a server's subscriptions are, and a hand on them.
///
/// From [`Description::live`](crate::Description::live); the admin server, the metrics and the
/// command line look through it. What it answers is a snapshot; looking is cheap enough for once a
/// second.
pub trait Live: Send + Sync + 'static {
    /// How every subscription is. None before the server serves.
    fn subscriptions(&self) -> Vec<SubscriptionStatus>;

    /// Does something to the subscription with this id. Called on the App's runtime.
    ///
    /// # Errors
    ///
    /// A refusal: there is no such subscription, or it cannot do that.
    fn act(&self, id: &str, action: Action) -> Result<(), Refusal>;

    /// Whether the server's own tasks get to run. Takes no lock that they take: it answers when
    /// they are stuck.
    fn pulse(&self) -> Pulse {
        Pulse::default()
    }

    /// The dead letters of a subscription, the oldest first, `max` at most. Called on the App's
    /// runtime.
    fn dead_letters(&self, id: &str, max: usize) -> Answer<serde_json::Value> {
        let _nothing_to_bound = max;
        let refusal = Refusal::unsupported(format!("subscription {id} cannot list dead letters"));
        Box::pin(async { Err(refusal) })
    }

    /// Sends the dead letters of a subscription back to it, `max` at most. Called on the App's
    /// runtime.
    fn replay(&self, id: &str, max: usize) -> Answer<serde_json::Value> {
        let _nothing_to_bound = max;
        let refusal = Refusal::unsupported(format!("subscription {id} cannot replay dead letters"));
        Box::pin(async { Err(refusal) })
    }
}

/// What can be done to a subscription that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// No handler starts, and no more is received.
    Pause,
    /// It goes on.
    Resume,
    /// So many handlers at once, from now on.
    Concurrency(usize),
}

/// Why something was not done.
#[derive(Debug)]
pub struct Refusal {
    kind: Kind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Invalid,
    Unsupported,
    Conflict,
    Failed,
}

// === impl Refusal ===

impl Refusal {
    /// There is no such subscription.
    #[must_use]
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Kind::Unknown, message)
    }

    /// A value is out of its range.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// This server cannot do that.
    #[must_use]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// Not in the state that the subscription is in.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// It was tried and went wrong.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Whether there is no such subscription.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.kind == Kind::Unknown
    }

    /// Whether a value is out of its range.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.kind == Kind::Invalid
    }

    /// Whether this server cannot do that at all.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::Unsupported
    }

    /// Whether it cannot be done in the state that the subscription is in.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
