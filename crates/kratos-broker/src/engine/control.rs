//! A server's subscriptions, seen and paused from outside while it runs.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    lane::Desk,
    queue::{Condition, Gate, Queue},
};
use crate::{Failure, Group, Topic};

/// The subscriptions of a server, live: how each is, and a hand to pause it. Clones are the same.
///
/// From [`Server::controls`](crate::Server::controls). There are none before the server serves.
///
/// ```
/// use kratos_broker::{Bytes, Server, memory};
///
/// async fn save(_: Bytes) {}
///
/// let server: Server<_> = Server::new(memory::Broker::new()).subscribe("orders", "billing", save);
/// let controls = server.controls();
/// // kratos::App::new().server(server).run().await, and meanwhile, anywhere:
/// if controls.pause("orders", "billing") {
///     for subscription in controls.subscriptions() {
///         println!("{}: {:?}", subscription.topic, subscription.state);
///     }
/// }
/// # assert!(controls.subscriptions().is_empty(), "it does not serve yet");
/// ```
#[derive(Clone, Default)]
pub struct Controls {
    subscriptions: Arc<Mutex<Vec<Control>>>,
}

/// How a subscription is: a snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Its topic.
    pub topic: Topic,
    /// Its group.
    pub group: Group,
    /// Its filter, as text: `*`, `a || b`, or an SQL expression.
    pub filter: String,
    /// What it does.
    pub state: SubscriptionState,
    /// Handlers that run.
    pub in_flight: usize,
    /// Messages that are here and wait: for a lane, for those before them, for their next attempt.
    pub waiting: usize,
    /// Messages that are being published to the dead-letter topic.
    pub dead_lettering: usize,
    /// For how long the first of the messages that wait or run has been here.
    pub oldest_held: Option<Duration>,
    /// How long ago the oldest of them was published, by the sender's wall clock.
    pub oldest_age: Option<Duration>,
    /// The last failure of an attempt.
    pub last_error: Option<LastError>,
}

/// What a subscription does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It receives and handles.
    Running,
    /// Paused by hand.
    Paused,
    /// Its kill switch is open: everything failed.
    KillSwitchOpen {
        /// When one message is tried.
        until: Instant,
    },
    /// Its kill switch is open, the pause is over: one message is tried, or waited for.
    KillSwitchProbing,
    /// The server stops.
    Draining,
    /// The server has stopped.
    Stopped,
}

/// A failure of an attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastError {
    /// The type of the error, or `decode`, `panic`, `timeout`.
    pub error_type: String,
    /// What it says.
    pub message: String,
    /// When it was.
    pub at: Instant,
}

/// One subscription.
pub(crate) struct Control {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) filter: String,
    pub(crate) queue: Arc<Queue>,
    /// Its place in the table.
    pub(crate) number: (usize, usize),
    /// Weak, and taken away at the end: what leaves the group must be alone with its table.
    pub(crate) desk: Option<Weak<dyn Desk>>,
    pub(crate) notes: Arc<Notes>,
}

/// What lanes leave for who looks.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    last_error: Mutex<Option<LastError>>,
}

// === impl Controls ===

impl Controls {
    /// How every subscription is, in the order of groups and topics.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        self.lock().iter().map(Control::status).collect()
    }

    /// Pauses the subscriptions of a topic in a group, whatever their tags, until
    /// [`resume`](Controls::resume): no handler starts, and no more is asked for. What runs goes on.
    /// Answers whether there is such a subscription.
    ///
    /// What waits here keeps its lease up to [`max_hold`](crate::Subscription::max_hold), then it is
    /// another member's. A poll that is under way may still bring some, and what it brings late is
    /// not extended: for such messages too a pause that is longer costs an attempt of the broker's
    /// count.
    ///
    /// A stop of the server takes no notice, but for messages that it must finish.
    pub fn pause(&self, topic: &str, group: &str) -> bool {
        self.hold(topic, group, true)
    }

    /// Lets a [paused](Controls::pause) subscription go on. Answers whether there is such a
    /// subscription.
    pub fn resume(&self, topic: &str, group: &str) -> bool {
        self.hold(topic, group, false)
    }

    pub(crate) fn add(&self, control: Control) {
        self.lock().push(control);
    }

    /// The server has stopped: nobody looks into its tables any more, from now on.
    pub(crate) fn end(&self) {
        for control in self.lock().iter_mut() {
            control.desk = None;
        }
    }

    fn hold(&self, topic: &str, group: &str, held: bool) -> bool {
        let mut found = false;
        for control in self.lock().iter() {
            if control.topic == *topic && control.group == *group {
                found = true;
                if control.queue.hold_all(held) {
                    let what = if held { "paused" } else { "resumed" };
                    let filter = &control.filter;
                    tracing::info!(%topic, %group, %filter, "subscription {what} by hand");
                }
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Control>> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.subscriptions()).finish()
    }
}

// === impl Control ===

impl Control {
    fn status(&self) -> SubscriptionStatus {
        let (topic, route) = self.number;
        let holds = self
            .desk
            .as_ref()
            .and_then(Weak::upgrade)
            .map(|desk| desk.holds(topic, route));
        let state = match (self.queue.condition(), &holds) {
            (_, None) => SubscriptionState::Stopped,
            (Condition::Open(Gate::Open), _) => SubscriptionState::Running,
            (Condition::Open(Gate::Shut(until)), _) => SubscriptionState::KillSwitchOpen { until },
            (Condition::Open(Gate::Probe | Gate::Probing(_)), _) => {
                SubscriptionState::KillSwitchProbing
            }
            (Condition::Held, _) => SubscriptionState::Paused,
            (Condition::Draining, _) => SubscriptionState::Draining,
        };
        let holds = holds.unwrap_or_default();
        let age = |born| SystemTime::now().duration_since(born).unwrap_or_default();
        SubscriptionStatus {
            topic: self.topic.clone(),
            group: self.group.clone(),
            filter: self.filter.clone(),
            state,
            in_flight: holds.running,
            waiting: holds.waiting,
            dead_lettering: holds.burying,
            oldest_held: holds.since.map(|since| since.elapsed()),
            oldest_age: holds.oldest.map(age),
            last_error: self.notes.last_error(),
        }
    }
}

// === impl Notes ===

impl Notes {
    pub(crate) fn failed(&self, failure: &Failure) {
        *self.lock() = Some(LastError {
            error_type: failure.error_type().to_owned(),
            message: failure.to_string(),
            at: Instant::now(),
        });
    }

    fn last_error(&self) -> Option<LastError> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<LastError>> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
