//! What is seen of the Apps of this process: phases, servers, subscriptions.
//!
//! Instruments that look when they are asked, at the same snapshot that the admin server shows:
//! what runs pays nothing for them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};
use tokio::time::Instant;

use crate::{Handle, Phase, SubscriptionState, SubscriptionStatus};

/// A look serves all instruments of one collection.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

static APPS: Mutex<Vec<(u64, Handle)>> = Mutex::new(Vec::new());

/// An App that is looked at, until this is dropped.
pub(crate) struct Observed(u64);

/// A look at every subscription.
#[derive(Default)]
struct Looks {
    last: Mutex<Option<(Instant, Arc<Vec<Seen>>)>>,
}

struct Seen {
    status: SubscriptionStatus,
    attributes: Vec<KeyValue>,
}

/// Looks at an App from now on.
pub(crate) fn observe(handle: Handle) -> Observed {
    let mut apps = apps();
    let number = apps.last().map_or(0, |(last, _)| last + 1);
    apps.push((number, handle));
    Observed(number)
}

impl Drop for Observed {
    fn drop(&mut self) {
        apps().retain(|(number, _)| *number != self.0);
    }
}

fn apps() -> MutexGuard<'static, Vec<(u64, Handle)>> {
    APPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the instruments, once per process: the SDK takes none back.
pub(super) fn instruments(meter: &Meter) {
    let looks = Arc::new(Looks::default());
    for (name, unit, description, value) in NOW {
        let looks = looks.clone();
        let gauge = meter.i64_observable_gauge(name);
        let gauge = gauge.with_unit(unit).with_description(description);
        gauge.with_callback(move |to| looks.each(to, value)).build();
    }
    for (name, description, value) in AGES {
        let looks = looks.clone();
        let gauge = meter.f64_observable_gauge(name);
        let gauge = gauge.with_unit("s").with_description(description);
        gauge.with_callback(move |to| looks.each(to, value)).build();
    }
    for (name, unit, description, value) in SINCE_THE_START {
        let looks = looks.clone();
        let counter = meter.u64_observable_counter(name);
        let counter = counter.with_unit(unit).with_description(description);
        let counter = counter.with_callback(move |to| looks.each(to, value));
        counter.build();
    }
    let state = meter.i64_observable_gauge("kratos.subscription.state");
    let state =
        state.with_description("1 for the state that the subscription is in, 0 for others.");
    state.with_callback(move |to| looks.states(to)).build();
    let phase = meter.i64_observable_gauge("kratos.app.phase");
    let phase = phase.with_description("1 for the phase that the App is in, 0 for others.");
    phase.with_callback(phases).build();
    let uptime = meter.f64_observable_gauge("kratos.app.uptime");
    let uptime = uptime.with_unit("s");
    let uptime = uptime.with_description("For how long the App has been running.");
    uptime.with_callback(uptimes).build();
}

type Now = fn(&SubscriptionStatus) -> Option<i64>;
type Age = fn(&SubscriptionStatus) -> Option<f64>;
type Count = fn(&SubscriptionStatus) -> Option<u64>;

const NOW: [(&str, &str, &str, Now); 5] = [
    (
        "kratos.subscription.in_flight",
        "{message}",
        "Messages in handlers that run.",
        |it| i64::try_from(it.in_flight).ok(),
    ),
    (
        "kratos.subscription.waiting",
        "{message}",
        "Messages that are here and wait: for a lane, or for their next attempt.",
        |it| i64::try_from(it.waiting).ok(),
    ),
    (
        "kratos.subscription.dead_lettering",
        "{message}",
        "Messages that are being published to the dead-letter topic.",
        |it| i64::try_from(it.dead_lettering).ok(),
    ),
    (
        "kratos.subscription.lanes",
        "{lane}",
        "Handlers at once, at most.",
        |it| i64::try_from(it.concurrency).ok(),
    ),
    (
        "kratos.subscription.lag",
        "{message}",
        "Messages on the broker that are not consumed yet, where that is known.",
        |it| it.lag.and_then(|lag| i64::try_from(lag).ok()),
    ),
];

const AGES: [(&str, &str, Age); 2] = [
    (
        "kratos.subscription.oldest.held",
        "For how long the first of the messages that wait or run has been here; 0 without one.",
        |it| Some(it.oldest.unwrap_or_default().as_secs_f64()),
    ),
    (
        "kratos.subscription.oldest.age",
        "How long ago the oldest of them was published; 0 without one.",
        |it| Some(it.oldest_age.unwrap_or_default().as_secs_f64()),
    ),
];

const SINCE_THE_START: [(&str, &str, &str, Count); 8] = [
    (
        "kratos.subscription.received",
        "{message}",
        "Messages received, once per delivery.",
        |it| Some(it.received),
    ),
    (
        "kratos.subscription.handled",
        "{message}",
        "Attempts that succeeded.",
        |it| Some(it.handled),
    ),
    (
        "kratos.subscription.failed",
        "{message}",
        "Attempts that failed.",
        |it| Some(it.failed),
    ),
    (
        "kratos.subscription.retried",
        "{message}",
        "Failed attempts after which the message is tried again.",
        |it| Some(it.retried),
    ),
    (
        "kratos.subscription.dead_lettered",
        "{message}",
        "Messages that were given up.",
        |it| Some(it.dead_lettered),
    ),
    (
        "kratos.subscription.handed_back",
        "{message}",
        "Messages that were given back unfinished.",
        |it| Some(it.handed_back),
    ),
    (
        "kratos.subscription.leases.lost",
        "{lease}",
        "Messages whose lease was lost.",
        |it| Some(it.leases_lost),
    ),
    (
        "kratos.subscription.leases.extended",
        "{lease}",
        "Leases that were extended, each time.",
        |it| Some(it.leases_extended),
    ),
];

const STATES: [(SubscriptionState, &str); 6] = [
    (SubscriptionState::Running, "running"),
    (SubscriptionState::Paused, "paused"),
    (SubscriptionState::SwitchedOff, "switched_off"),
    (SubscriptionState::Probing, "probing"),
    (SubscriptionState::Draining, "draining"),
    (SubscriptionState::Stopped, "stopped"),
];

const PHASES: [(Phase, &str); 4] = [
    (Phase::Starting, "starting"),
    (Phase::Ready, "ready"),
    (Phase::Draining, "draining"),
    (Phase::Stopped, "stopped"),
];

// === impl Looks ===

impl Looks {
    fn each<T>(&self, to: &dyn AsyncInstrument<T>, value: fn(&SubscriptionStatus) -> Option<T>) {
        for seen in self.look().iter() {
            if let Some(value) = value(&seen.status) {
                to.observe(value, &seen.attributes);
            }
        }
    }

    fn states(&self, to: &dyn AsyncInstrument<i64>) {
        for seen in self.look().iter() {
            for (state, name) in STATES {
                let mut attributes = seen.attributes.clone();
                attributes.push(KeyValue::new("state", name));
                to.observe(i64::from(seen.status.state == state), &attributes);
            }
        }
    }

    fn look(&self) -> Arc<Vec<Seen>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, seen)) = &*last
            && at.elapsed() < LOOK_AGAIN_AFTER
        {
            return seen.clone();
        }
        let handles: Vec<Handle> = apps().iter().map(|(_, handle)| handle.clone()).collect();
        let statuses = handles.iter().flat_map(|handle| {
            let servers = handle.servers().into_iter();
            let live = servers.filter_map(|server| server.description.live_view().cloned());
            live.flat_map(|live| live.subscriptions())
                .collect::<Vec<_>>()
        });
        let seen: Arc<Vec<Seen>> = Arc::new(statuses.map(Seen::new).collect());
        *last = Some((Instant::now(), seen.clone()));
        seen
    }
}

// === impl Seen ===

impl Seen {
    fn new(status: SubscriptionStatus) -> Self {
        let attributes = vec![
            KeyValue::new("messaging.destination.name", status.topic.clone()),
            KeyValue::new("messaging.consumer.group.name", status.group.clone()),
            KeyValue::new("kratos.subscription.filter", status.filter.clone()),
            KeyValue::new("kratos.server", status.server.clone()),
        ];
        Self { status, attributes }
    }
}

fn phases(to: &dyn AsyncInstrument<i64>) {
    for (_, handle) in apps().iter() {
        let is = handle.phase();
        for (phase, name) in PHASES {
            to.observe(i64::from(is == phase), &[KeyValue::new("phase", name)]);
        }
    }
}

fn uptimes(to: &dyn AsyncInstrument<f64>) {
    for (_, handle) in apps().iter() {
        to.observe(handle.uptime().as_secs_f64(), &[]);
    }
}
