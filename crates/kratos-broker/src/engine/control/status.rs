//! One subscription, as it is.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
    time::SystemTime,
};

use kratos::{HeldMessage, SubscriptionKind, SubscriptionState, SubscriptionStatus, trace};
use tokio::time::Instant;

use super::{Letters, Notes};
use crate::{
    Group, Subscription, Topic,
    delivery::Received,
    engine::{
        counters::Counters,
        health::HealthBoard,
        heart::STUCK_BEATS,
        intake,
        lane::{Desk, Holds},
        lanes::LaneCount,
        queue::{Condition, Gate, Queue},
        switch::Switch,
    },
};

/// One subscription.
pub(crate) struct Control {
    id: String,
    server: Arc<str>,
    topic: Topic,
    group: Group,
    filter: String,
    kind: SubscriptionKind,
    ordered: bool,
    /// Its place in the table.
    number: (usize, usize),
    watched: Watched,
    /// The state that was seen last, and since when.
    state: (SubscriptionState, Instant),
    /// Beats in a row with work that nobody does, and how much was done before them.
    idle_beats: (u32, u64),
}

/// The parts of a subscription that are looked at.
pub(crate) struct Watched {
    pub(crate) queue: Arc<Queue>,
    /// Weak, and taken away at the end: what leaves the group must be alone with its table.
    pub(crate) desk: Option<Weak<dyn Desk>>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) counters: Counters,
    pub(crate) switch: Option<Arc<Switch>>,
    pub(crate) health: Arc<HealthBoard>,
    pub(crate) lanes: Arc<LaneCount>,
    pub(crate) letters: Letters,
}

// === impl Control ===

impl Control {
    pub(crate) fn new(
        server: &Arc<str>,
        subscription: &Subscription,
        group: &Group,
        number: (usize, usize),
        watched: Watched,
    ) -> Self {
        let filter = subscription.filter.to_string();
        let topic = subscription.topic.clone();
        let kind = if subscription.is_batch {
            SubscriptionKind::Batch
        } else {
            SubscriptionKind::Single
        };
        Self {
            id: id(server, &topic, group, &filter),
            server: server.clone(),
            topic,
            group: group.clone(),
            filter,
            kind,
            ordered: subscription.fifo,
            number,
            watched,
            state: (SubscriptionState::Running, Instant::now()),
            idle_beats: (0, 0),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_of(&self, topic: &str, group: &str) -> bool {
        self.topic == *topic && self.group == *group
    }

    pub(super) fn letters(&self) -> &Letters {
        &self.watched.letters
    }

    /// Names that differ only in what a path does not take are told apart by a number.
    pub(super) fn make_unique(&mut self, taken: impl Fn(&str) -> bool) {
        if taken(&self.id) {
            let mut numbered = (2_u32..).map(|n| format!("{}:{n}", self.id));
            if let Some(id) = numbered.find(|id| !taken(id)) {
                self.id = id;
            }
        }
    }

    /// Whether the server stops, or has stopped.
    pub(super) fn is_over(&mut self) -> bool {
        use SubscriptionState::{Draining, Stopped};
        matches!(self.state().0, Draining | Stopped)
    }

    pub(super) fn hold(&mut self, held: bool) {
        if self.watched.queue.hold_all(held) {
            let what = if held { "paused" } else { "resumed" };
            let Self {
                topic,
                group,
                filter,
                ..
            } = self;
            tracing::info!(%topic, %group, %filter, "subscription {what} by hand");
            self.state();
        }
    }

    /// Sets how many lanes it has; false if the server has stopped.
    pub(super) fn resize(&mut self, lanes: usize) -> bool {
        if self.is_over() {
            return false;
        }
        let Some(desk) = self.watched.desk() else {
            return false;
        };
        let before = self.watched.lanes.lanes();
        if before != lanes {
            self.watched.lanes.set(lanes, &*desk);
            let (topic, group, filter) = (&self.topic, &self.group, &self.filter);
            tracing::info!(%topic, %group, %filter, before, lanes, "concurrency changed by hand");
        }
        true
    }

    pub(super) fn end(&mut self) {
        self.watched.desk = None;
        self.state();
    }

    /// Looks whether a message could start and does not, for many looks; says so then.
    pub(super) fn look(&mut self) -> Option<String> {
        self.state();
        let stats = self.watched.counters.stats();
        let done = stats.handled + stats.failed;
        let (beats, before) = &mut self.idle_beats;
        *beats = if done == *before && self.watched.queue.is_idle_beside_work() {
            beats.saturating_add(1)
        } else {
            0
        };
        *before = done;
        self.stuck()
    }

    fn stuck(&self) -> Option<String> {
        let beats = self.idle_beats.0;
        (beats >= STUCK_BEATS).then(|| {
            let Self { topic, group, .. } = self;
            format!("topic {topic}, group {group}: messages are ready and lanes free for {beats} s")
        })
    }

    pub(super) fn status(&mut self) -> SubscriptionStatus {
        let (state, since, holds) = self.state();
        let Watched {
            notes,
            counters,
            lanes,
            ..
        } = &self.watched;
        let (stats, now) = (counters.stats(), SystemTime::now());
        let age = |born| now.duration_since(born).unwrap_or_default();
        let mut status = SubscriptionStatus::new(&self.id, &*self.server);
        status.topic = self.topic.to_string();
        status.group = self.group.to_string();
        status.filter.clone_from(&self.filter);
        (status.kind, status.ordered) = (self.kind, self.ordered);
        (status.state, status.since) = (state, since.elapsed());
        status.reason = self.reason(state);
        if let Some(desk) = self.watched.desk() {
            status.assigned = desk.is_assigned(&self.topic);
            status.lag = desk.lag(&self.topic);
        }
        status.concurrency = lanes.lanes();
        (status.in_flight, status.waiting) = (holds.running, holds.waiting);
        status.dead_lettering = holds.burying;
        status.oldest = holds.since.map(|since| since.elapsed());
        status.oldest_message = holds.first.as_ref().map(held);
        status.oldest_age = holds.oldest.map(age);
        status.received = stats.received;
        status.handled = stats.handled;
        status.failed = stats.failed;
        status.retried = stats.retried;
        status.dead_lettered = stats.dead_lettered;
        status.handed_back = stats.handed_back;
        status.leases_lost = stats.leases_lost;
        status.leases_extended = stats.leases_extended;
        status.last_error = notes.last_error();
        status
    }

    /// Why it does not run, or runs badly.
    fn reason(&self, state: SubscriptionState) -> Option<String> {
        let switch = || {
            let why = self.watched.switch.as_ref()?.opened()?.1;
            Some(match self.watched.queue.condition() {
                Condition::Open(Gate::Shut(until)) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    let seconds = wait.as_secs_f64().ceil();
                    format!("kill switch open: {why}; one message is tried in {seconds} s")
                }
                _ => format!("kill switch open: {why}; one message is tried"),
            })
        };
        match state {
            SubscriptionState::Paused => Some("paused by hand".to_owned()),
            SubscriptionState::SwitchedOff | SubscriptionState::Probing => switch(),
            SubscriptionState::Running => {
                let health = &self.watched.health;
                let receive = || health.reason(&intake::receive_part(&self.topic));
                let room = || health.reason(&intake::room_part(&self.topic));
                self.stuck().or_else(receive).or_else(room)
            }
            _ => None,
        }
    }

    /// The state now, since when, and what is here.
    fn state(&mut self) -> (SubscriptionState, Instant, Holds) {
        let (topic, route) = self.number;
        let holds = self.watched.desk().map(|desk| desk.holds(topic, route));
        let now = match (self.watched.queue.condition(), &holds) {
            (_, None) => SubscriptionState::Stopped,
            (Condition::Open(Gate::Open), _) => SubscriptionState::Running,
            (Condition::Open(Gate::Shut(_)), _) => SubscriptionState::SwitchedOff,
            (Condition::Open(Gate::Probe | Gate::Probing(_)), _) => SubscriptionState::Probing,
            (Condition::Held, _) => SubscriptionState::Paused,
            (Condition::Draining, _) => SubscriptionState::Draining,
        };
        if self.state.0 != now {
            self.state = (now, Instant::now());
        }
        let mut since = self.state.1;
        if matches!(
            now,
            SubscriptionState::SwitchedOff | SubscriptionState::Probing
        ) {
            let opened = self.watched.switch.as_ref().and_then(|s| s.opened());
            since = opened.map_or(since, |(since, _)| since);
        }
        (now, since, holds.unwrap_or_default())
    }
}

// === impl Watched ===

impl Watched {
    fn desk(&self) -> Option<Arc<dyn Desk>> {
        self.desk.as_ref()?.upgrade()
    }
}

fn held(message: &Received) -> HeldMessage {
    let mut held = HeldMessage::new(message.id.to_string());
    let sender = trace::extract(|name| message.headers.get(name));
    held.trace_id = sender.map(|sender| sender.trace_id().to_string());
    held
}

/// `server:topic:group`, with what a URL's path takes as it is; subscriptions with filters have more
/// to be told apart by.
pub(crate) fn id(server: &str, topic: &Topic, group: &Group, filter: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let safe = |text: &str| -> String {
        text.chars()
            .map(|c| if plain(c) { c } else { '_' })
            .collect()
    };
    let id = format!("{}:{}:{}", safe(server), safe(topic), safe(group));
    if filter == "*" {
        return id;
    }
    // With fixed keys: the same in every process.
    let mut hasher = DefaultHasher::new();
    filter.hash(&mut hasher);
    format!("{id}:{:08x}", hasher.finish() >> 32)
}
