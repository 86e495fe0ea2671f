//! What is measured of each message, once somebody reads metrics. What can be seen from outside is
//! not measured here: `kratos::metrics` looks at the subscriptions themselves.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use kratos::metrics::{self, BoundCounter, BoundHistogram, Counter, Histogram, KeyValue};

use tokio::time::Instant;

use super::span::Origin;
use crate::{
    Delivery, Error, Failure, Message, Result,
    dead_letter::Reason,
    driver::{Driver, Settlement},
};

/// How many operations a settlement may be.
pub(crate) const OPERATIONS: usize = 4;

/// The instruments of this process.
struct Instruments {
    sent: Counter<u64>,
    consumed: Counter<u64>,
    operation: Histogram<f64>,
    process: Histogram<f64>,
    queued: Histogram<f64>,
    dead_lettered: Counter<u64>,
}

/// What is measured of one subscription.
pub(crate) struct Metrics {
    to: &'static Instruments,
    /// Of attempts that succeeded, and with an error type of others.
    process: Vec<KeyValue>,
    /// Of attempts that succeeded: their attributes are looked up once.
    consumed: BoundCounter<u64>,
    took: BoundHistogram<f64>,
    queued: BoundHistogram<f64>,
}

/// How long settlements of one topic take, by their operation.
pub(crate) struct Settlements {
    to: &'static Instruments,
    origin: Arc<Origin>,
    /// Of those that succeeded: their attributes are looked up once.
    took: [OnceLock<BoundHistogram<f64>>; OPERATIONS],
}

/// A send that is measured.
pub(crate) struct Sending {
    to: &'static Instruments,
    begun: Instant,
    attributes: Vec<KeyValue>,
}

/// `None` while nobody reads metrics.
fn instruments() -> Option<&'static Instruments> {
    static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
    let meter = metrics::is_enabled().then(metrics::meter).flatten()?;
    Some(INSTRUMENTS.get_or_init(|| Instruments {
        sent: metrics::counter(
            &meter,
            "messaging.client.sent.messages",
            "{message}",
            "Messages that were sent, or should have been.",
        ),
        consumed: metrics::counter(
            &meter,
            "messaging.client.consumed.messages",
            "{message}",
            "Messages that were delivered to a handler, once per delivery.",
        ),
        operation: metrics::duration(
            &meter,
            "messaging.client.operation.duration",
            "How long sends, receives and settlements take.",
        ),
        process: metrics::duration(
            &meter,
            "messaging.process.duration",
            "How long handlers take.",
        ),
        queued: metrics::duration(
            &meter,
            "kratos.message.queue.duration",
            "From when a message was published, by the sender's clock, until its handler starts.",
        ),
        dead_lettered: metrics::counter(
            &meter,
            "kratos.message.dead_lettered",
            "{message}",
            "Messages that were given up, by reason and type of error.",
        ),
    }))
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new(origin: &Origin) -> Option<Self> {
        let to = instruments()?;
        let process = origin.attributes("process", "process");
        Some(Self {
            consumed: to.consumed.bind(&process),
            took: to.process.bind(&process),
            queued: to.queued.bind(&process),
            to,
            process,
        })
    }

    /// A handler starts.
    pub(crate) fn starts(&self, delivery: &Delivery) {
        let age = delivery
            .born()
            .map(|born| SystemTime::now().duration_since(born));
        if let Some(Ok(age)) = age {
            self.queued.record(age.as_secs_f64());
        }
    }

    /// A handler has ended, of so many messages.
    pub(crate) fn ended(&self, messages: usize, took: Duration, error_type: Option<&str>) {
        let Some(error_type) = error_type else {
            self.consumed.add(messages as u64);
            return self.took.record(took.as_secs_f64());
        };
        let mut attributes = self.process.clone();
        attributes.push(KeyValue::new("error.type", error_type.to_owned()));
        self.to.consumed.add(messages as u64, &attributes);
        self.to.process.record(took.as_secs_f64(), &attributes);
    }

    /// A message is given up.
    pub(crate) fn given_up(&self, reason: Reason, failure: &Failure) {
        let mut attributes = self.process.clone();
        attributes.push(KeyValue::new("reason", reason.as_str()));
        attributes.push(KeyValue::new("error.type", failure.error_type().to_owned()));
        self.to.dead_lettered.add(1, &attributes);
    }
}

/// Now, if the time of a receive is wanted.
pub(crate) fn begin() -> Option<Instant> {
    instruments().map(|_| Instant::now())
}

/// A receive has ended that brought something, or failed.
pub(crate) fn received(origin: &Origin, begun: Option<Instant>, error: Option<&Error>) {
    let (Some(to), Some(begun)) = (instruments(), begun) else {
        return;
    };
    let took = begun.elapsed();
    let mut attributes = origin.attributes("receive", "receive");
    if let Some(error) = error {
        attributes.push(KeyValue::new("error.type", error.kind().as_str()));
    }
    to.operation.record(took.as_secs_f64(), &attributes);
}

// === impl Settlements ===

impl Settlements {
    pub(crate) fn new(origin: Arc<Origin>) -> Option<Self> {
        Some(Self {
            to: instruments()?,
            origin,
            took: Default::default(),
        })
    }

    /// A settlement was answered.
    pub(crate) fn ended(&self, how: Settlement, took: Duration, error: Option<&Error>) {
        let attributes = || self.origin.attributes(how.operation(), "settle");
        let seconds = took.as_secs_f64();
        let Some(error) = error else {
            let bound =
                self.took[how.number()].get_or_init(|| self.to.operation.bind(&attributes()));
            return bound.record(seconds);
        };
        let mut attributes = attributes();
        attributes.push(KeyValue::new("error.type", error.kind().as_str()));
        self.to.operation.record(seconds, &attributes);
    }
}

// === impl Sending ===

impl Sending {
    pub(crate) fn begin<D: Driver>(driver: &D, message: &Message) -> Option<Self> {
        let to = instruments()?;
        let mut attributes = vec![
            KeyValue::new("messaging.system", D::SYSTEM),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", message.topic().to_string()),
        ];
        attributes.extend(server(driver.server()).into_iter().flatten());
        Some(Self {
            to,
            begun: Instant::now(),
            attributes,
        })
    }

    pub(crate) fn ended<T>(mut self, result: &Result<T>) {
        if let Err(error) = result {
            let error_type = KeyValue::new("error.type", error.kind().as_str());
            self.attributes.push(error_type);
        }
        self.to.sent.add(1, &self.attributes);
        let took = self.begun.elapsed().as_secs_f64();
        self.to.operation.record(took, &self.attributes);
    }
}

impl Origin {
    fn attributes(&self, operation: &'static str, operation_type: &'static str) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("messaging.system", self.system),
            KeyValue::new("messaging.operation.name", operation),
            KeyValue::new("messaging.operation.type", operation_type),
            KeyValue::new("messaging.destination.name", self.topic.to_string()),
            KeyValue::new("messaging.consumer.group.name", self.group.to_string()),
        ];
        let address = self
            .server
            .as_ref()
            .map(|(host, port)| (host.as_str(), *port));
        attributes.extend(server(address).into_iter().flatten());
        attributes
    }
}

fn server(address: Option<(&str, u16)>) -> Option<[KeyValue; 2]> {
    address.map(|(host, port)| {
        [
            KeyValue::new("server.address", host.to_owned()),
            KeyValue::new("server.port", i64::from(port)),
        ]
    })
}
