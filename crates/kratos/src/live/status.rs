//! How a subscription is.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// How a subscription is: a snapshot. Counters only grow; what is not known is `None`.
///
/// As JSON, durations are whole milliseconds in fields named `.._ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Names it among all subscriptions of the App, in URLs too.
    pub id: String,
    /// The server that consumes.
    pub server: String,
    /// Its topic.
    pub topic: String,
    /// Its group.
    pub group: String,
    /// Its filter, as text: `*`, `a || b`, or an expression.
    pub filter: String,
    /// What its handler takes.
    pub kind: SubscriptionKind,
    /// Whether the broker keeps its messages in order.
    pub ordered: bool,
    /// What it does.
    pub state: SubscriptionState,
    /// Why, for people; where the state says it all, none.
    pub reason: Option<String>,
    /// For how long it has been in this state.
    #[serde(rename = "since_ms", serialize_with = "millis")]
    pub since: Duration,
    /// Whether the broker has assigned it something to consume.
    pub assigned: Option<bool>,
    /// Handlers at once, at most.
    pub concurrency: usize,
    /// Messages in handlers that run.
    pub in_flight: usize,
    /// Messages that are here and wait: for a lane, for those before them, for their next attempt.
    pub waiting: usize,
    /// Messages that are being published to the dead-letter topic.
    pub dead_lettering: usize,
    /// For how long the first of the messages that wait or run has been here.
    #[serde(rename = "oldest_ms", serialize_with = "maybe_millis")]
    pub oldest: Option<Duration>,
    /// That message.
    pub oldest_message: Option<HeldMessage>,
    /// How long ago the oldest of them was published, by the sender's wall clock.
    #[serde(rename = "oldest_age_ms", serialize_with = "maybe_millis")]
    pub oldest_age: Option<Duration>,
    /// Messages received, once per delivery.
    pub received: u64,
    /// Attempts that succeeded.
    pub handled: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Failed attempts after which the message is tried again.
    pub retried: u64,
    /// Messages that were given up.
    pub dead_lettered: u64,
    /// Messages that were given back unfinished.
    pub handed_back: u64,
    /// Messages whose lease was lost.
    pub leases_lost: u64,
    /// Leases that were extended.
    pub leases_extended: u64,
    /// Messages on the broker that are not consumed yet.
    pub lag: Option<u64>,
    /// The last failure of an attempt.
    pub last_error: Option<LastError>,
}

/// What the handler of a subscription takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubscriptionKind {
    /// One message at a time.
    #[default]
    Single,
    /// Several messages at once.
    Batch,
}

/// What a subscription does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It receives and handles.
    Running,
    /// Paused by hand.
    Paused,
    /// Its kill switch is open: everything failed. Nothing starts for a while.
    SwitchedOff,
    /// Its kill switch is open, the pause is over: one message is tried, or waited for.
    Probing,
    /// The server stops.
    Draining,
    /// The server has stopped.
    Stopped,
}

/// A message that waits or runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldMessage {
    /// The broker's id.
    pub message_id: String,
    /// The trace of its sender, if it says.
    pub trace_id: Option<String>,
}

/// A failure of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// How long ago it was.
    #[serde(rename = "ago_ms", serialize_with = "millis")]
    pub ago: Duration,
    /// What it says, the whole chain.
    pub message: String,
    /// The type of the error, or `decode`, `panic`, `timeout`.
    #[serde(rename = "type")]
    pub error_type: String,
    /// The message that failed.
    pub message_id: String,
    /// Which attempt of it.
    pub attempt: u32,
    /// The trace in which it failed.
    pub trace_id: Option<String>,
}

// === impl SubscriptionStatus ===

impl SubscriptionStatus {
    /// A running subscription of which nothing else is known yet.
    #[must_use]
    pub fn new(id: impl Into<String>, server: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            server: server.into(),
            topic: String::new(),
            group: String::new(),
            filter: "*".to_owned(),
            kind: SubscriptionKind::Single,
            ordered: false,
            state: SubscriptionState::Running,
            reason: None,
            since: Duration::ZERO,
            assigned: None,
            concurrency: 0,
            in_flight: 0,
            waiting: 0,
            dead_lettering: 0,
            oldest: None,
            oldest_message: None,
            oldest_age: None,
            received: 0,
            handled: 0,
            failed: 0,
            retried: 0,
            dead_lettered: 0,
            handed_back: 0,
            leases_lost: 0,
            leases_extended: 0,
            lag: None,
            last_error: None,
        }
    }
}

// === impl HeldMessage ===

impl HeldMessage {
    /// A message of this id, without a trace.
    #[must_use]
    pub fn new(message_id: impl Into<String>) -> Self {
        Self {
            message_id: message_id.into(),
            trace_id: None,
        }
    }
}

// === impl LastError ===

impl LastError {
    /// A failure of this type that was just now.
    #[must_use]
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            ago: Duration::ZERO,
            message: message.into(),
            error_type: error_type.into(),
            message_id: String::new(),
            attempt: 0,
            trace_id: None,
        }
    }
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(whole(*time))
}

#[expect(clippy::ref_option, reason = "what serde calls it with")]
fn maybe_millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(whole).serialize(serializer)
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
