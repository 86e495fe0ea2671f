//! The user's handle for sending.

mod many;

use kratos::trace;
use tracing::{Instrument, Span, field, level_filters::LevelFilter};

use crate::{
    Error, Message, RecallHandle, Receipt, Resolution, Result, Transacted, driver::Driver,
    engine::metrics::Sending,
};

pub(crate) use self::many::Draft;

/// Publishes messages through a driver. Cheap to clone.
///
/// Every message carries the W3C trace context of a `send {topic}` span, a child of the span that
/// the call runs in, unless the message has a `traceparent` of its own.
#[derive(Clone, Debug)]
pub struct Publisher<D> {
    driver: D,
}

impl<D: Driver> Publisher<D> {
    /// A publisher on this driver. Does no I/O.
    pub fn new(driver: D) -> Self {
        Self { driver }
    }

    /// The driver underneath.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Sends a message; returns when the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// The broker has not confirmed, or the message asks for what the broker cannot do
    /// ([`is_unsupported`](Error::is_unsupported)) or is not acceptable
    /// ([`is_invalid`](Error::is_invalid)). [`may_be_stored`](Error::may_be_stored) says whether
    /// it may be stored all the same: sending it again may store it twice then.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not have sent the message.
    pub async fn publish(&self, mut message: Message) -> Result<Receipt> {
        check(&self.driver, &message)?;
        let span = send_span(&self.driver, &message, false);
        inject(&span, &mut message);
        let measured = Sending::begin(&self.driver, &message);
        let result = self.driver.publish(message).instrument(span.clone()).await;
        record(&span, result.as_ref());
        if let Some(measured) = measured {
            measured.ended(&result);
        }
        result
    }

    /// Calls a delayed message back, with the handle of its [receipt](Receipt::recall).
    ///
    /// # Errors
    ///
    /// The broker cannot do that ([`is_unsupported`](Error::is_unsupported)), or it is too late, or
    /// it did not confirm.
    pub async fn recall(&self, handle: &RecallHandle) -> Result<()> {
        if !self.driver.capabilities().can_recall() {
            let (system, topic) = (D::SYSTEM, handle.topic());
            let what = format!("{system} cannot recall messages: topic {topic}");
            return Err(Error::unsupported(what));
        }
        self.driver.recall(handle).await
    }

    /// Sends a message if, and only if, a local transaction commits.
    ///
    /// The broker takes the message and shows it to nobody; then `local` runs; then the message is
    /// delivered or forgotten, as `local` answers. When it answers [`Resolution::Unknown`], when
    /// this process dies in between, or when the broker does not hear of the decision, the broker
    /// asks later, any process of the service: the driver's client answers with the checker that
    /// was given to it at its construction. The trace context goes with the message from the start.
    ///
    /// In a handler, write `local` as `|receipt| async move { .. }` over values of its own: an async
    /// closure that borrows makes a future that cannot be sent between threads.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Publisher::publish), and only if `local` was not run. After a
    /// [transient](Error::is_transient) one the message may be stored all the same: the broker then
    /// asks about it. Without a checker for the topic the call is [refused](Error::is_invalid)
    /// before anything is sent.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves the decision to the checker.
    pub async fn transaction<L, F>(&self, mut message: Message, local: L) -> Result<Transacted>
    where
        L: FnOnce(Receipt) -> F + Send,
        F: Future<Output = Resolution> + Send,
    {
        if !self.driver.capabilities().can_transact() {
            let (system, topic) = (D::SYSTEM, message.topic());
            let what = format!("{system} has no transactions: message to topic {topic} refused");
            return Err(Error::unsupported(what));
        }
        check(&self.driver, &message)?;
        let span = send_span(&self.driver, &message, true);
        inject(&span, &mut message);
        let measured = Sending::begin(&self.driver, &message);
        let done = self.driver.transaction(message, local);
        let result = done.instrument(span.clone()).await;
        record(&span, result.as_ref().map(|done| &done.receipt));
        if let Some(measured) = measured {
            measured.ended(&result);
        }
        result
    }
}

fn record(span: &Span, result: Result<&Receipt, &Error>) {
    match result {
        Ok(receipt) => {
            span.record("messaging.message.id", receipt.id.as_str());
        }
        Err(error) => {
            span.record("error.type", error.kind().as_str());
            span.record("otel.status_code", "ERROR");
        }
    }
}

fn check<D: Driver>(driver: &D, message: &Message) -> Result<()> {
    let topic = message.topic();
    if topic.is_empty() {
        return Err(Error::invalid("the message has no topic"));
    }
    driver.capabilities().check_message(D::SYSTEM, message)?;
    for (name, value) in message.headers_ref().iter() {
        // No broker keeps these: they end texts, or part one property from the next.
        let bad = |c: char| matches!(c, '\0' | '\u{1}' | '\u{2}');
        if name.is_empty() || name.contains(bad) || value.contains(bad) {
            return Err(Error::invalid(format!(
                "header {name:?} of the message to topic {topic} is empty or has a control character"
            )));
        }
    }
    Ok(())
}

fn send_span<D: Driver>(driver: &D, message: &Message, in_transaction: bool) -> Span {
    // Below a span that is not sampled nothing is recorded.
    if LevelFilter::current() < LevelFilter::INFO || trace::is_unsampled() {
        return Span::none();
    }
    let topic = message.topic().as_str();
    let (address, port) = driver.server().unzip();
    let span = tracing::info_span!(
        "send",
        otel.name = %format_args!("send {topic}"),
        otel.kind = "producer",
        otel.status_code = field::Empty,
        messaging.system = D::SYSTEM,
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
        messaging.message.id = field::Empty,
        server.address = address,
        server.port = port.map(i64::from),
        error.type = field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(link) = trace::extract(|name| message.headers_ref().get(name)) {
        // The user's own creation context stays on the message.
        trace::add_link(&span, link);
        span.record("otel.kind", "client");
    }
    trace::describe(&span, |attributes| {
        driver.describe_send(message, in_transaction, attributes);
    });
    span
}

fn inject(span: &Span, message: &mut Message) {
    if !message.headers_ref().contains(trace::BAGGAGE) {
        let headers = message.headers_mut();
        trace::inject_baggage(|name, value| {
            headers.insert(name, value);
        });
    }
    if message.headers_ref().contains(trace::TRACEPARENT) {
        return;
    }
    // With no tracer installed, a trace that came from outside is still carried on.
    let Some(context) = trace::of(span).or_else(trace::current) else {
        return;
    };
    let headers = message.headers_mut();
    trace::inject(&context, |name, value| {
        headers.insert(name, value);
    });
}
