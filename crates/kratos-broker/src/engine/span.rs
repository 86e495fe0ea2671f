//! The spans of a consumer: of receives, of attempts, of settlements.
//!
//! What sampling is to see is there when a span is made; what costs is added to those that are
//! recorded.

use std::sync::Arc;

use kratos::trace::{self, Attributes, Parent, SpanContext};
use tracing::{Span, field, level_filters::LevelFilter};

use super::{
    lane::{Desk, Inbox},
    table::Member,
    ticket::Ticket,
};
use crate::{
    Deliveries, Delivery, Error, Group, Topic,
    driver::{Consumer, Settlement},
};

/// What the spans of a subscription have in common.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) system: &'static str,
    pub(crate) server: Option<(String, u16)>,
    pub(crate) group: Group,
    pub(crate) topic: Topic,
    /// What the span of an attempt is called.
    pub(crate) process: String,
}

// === impl Origin ===

impl Origin {
    pub(crate) fn new(
        system: &'static str,
        server: Option<(String, u16)>,
        group: Group,
        topic: Topic,
    ) -> Self {
        let process = format!("process {topic}");
        Self {
            system,
            server,
            group,
            topic,
            process,
        }
    }

    fn address(&self) -> Option<&str> {
        self.server.as_ref().map(|(address, _)| address.as_str())
    }

    fn port(&self) -> Option<i64> {
        self.server.as_ref().map(|(_, port)| i64::from(*port))
    }
}

/// The sender's span, if the message names one.
///
/// A malformed or missing `traceparent` leaves a new root.
#[inline]
fn sender(delivery: &Delivery) -> Option<SpanContext> {
    trace::extract(|name| delivery.headers().get(name))
}

/// Whether [`process`] has something to do: somebody traces, or the message carries something.
#[inline]
pub(crate) fn is_wanted(delivery: &Delivery) -> bool {
    !delivery.headers().is_empty() || LevelFilter::current() >= LevelFilter::INFO
}

/// A `process {topic}` span, a child of the sender's span and linked to it; and what is carried into
/// the handler, if anything is.
pub(crate) fn process(inbox: &Inbox, delivery: &Delivery) -> (Span, Option<Parent>) {
    let headers = delivery.headers();
    let sent_in = sender(delivery);
    let baggage = headers.get(trace::BAGGAGE).and_then(trace::parse_baggage);
    // A sender that is not sampled is carried on, and nothing is recorded. Without a subscriber
    // there is nothing to be asked.
    let unsampled = sent_in.as_ref().is_some_and(|it| !it.is_sampled());
    if unsampled || LevelFilter::current() < LevelFilter::INFO {
        let carried = sent_in.is_some() || baggage.is_some();
        let parent = carried.then(|| Parent::new(sent_in, baggage));
        return (Span::none(), parent);
    }
    let span = process_span(inbox, delivery);
    let link = sent_in.clone();
    let parent = Parent::new(sent_in, baggage);
    if !span.is_disabled() {
        trace::adopt(&span, &parent);
        if let Some(link) = link {
            trace::add_link(&span, link);
        }
        describe(&*inbox.desk, Some(delivery), &span);
    }
    (span, Some(parent))
}

fn process_span(inbox: &Inbox, delivery: &Delivery) -> Span {
    let origin = &*inbox.settings.origin;
    tracing::info_span!(
        parent: None,
        "process",
        otel.name = origin.process.as_str(),
        otel.kind = "consumer",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = origin.system,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = origin.topic.as_str(),
        messaging.consumer.group.name = origin.group.as_str(),
        messaging.message.id = delivery.id().as_str(),
        messaging.destination.partition.id = delivery.partition(),
        // Not as `u32`, which becomes text.
        messaging.delivery.attempt = i64::from(delivery.attempt()),
        server.address = origin.address(),
        server.port = origin.port(),
        dead_letter.reason = field::Empty,
        dead_letter.topic = field::Empty,
    )
}

/// A `process {topic}` span of a batch: a root of its own, linked to the sender of every message.
/// What differs between messages is on the links; which of them became dead letters, and why, on its
/// events.
pub(crate) fn process_batch(inbox: &Inbox, batch: &Deliveries) -> Span {
    if LevelFilter::current() < LevelFilter::INFO {
        return Span::none();
    }
    let origin = &*inbox.settings.origin;
    let span = tracing::info_span!(
        parent: None,
        "process",
        otel.name = origin.process.as_str(),
        otel.kind = "consumer",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = origin.system,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = origin.topic.as_str(),
        messaging.consumer.group.name = origin.group.as_str(),
        messaging.batch.message_count = count(batch.len()),
        server.address = origin.address(),
        server.port = origin.port(),
        dead_letter.reason = field::Empty,
        dead_letter.topic = field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    batch.iter().for_each(|delivery| link(&span, delivery));
    describe(&*inbox.desk, None, &span);
    span
}

/// A receive of one topic, and its span `receive {topic}`, a root of its own. Dropped before its end
/// is told, it leaves none.
pub(crate) struct Receiving {
    span: Option<Span>,
}

/// The settlements of a batch, in one span for all that end alike.
pub(crate) struct Settling<'i> {
    inbox: &'i Inbox,
    attempt: Option<SpanContext>,
    spans: Vec<(&'static str, Span, usize)>,
}

fn receive(origin: &Origin) -> Option<Span> {
    if LevelFilter::current() < LevelFilter::INFO {
        return None;
    }
    let span = tracing::info_span!(
        parent: None,
        "receive",
        otel.name = %format_args!("receive {}", origin.topic),
        otel.kind = "client",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = origin.system,
        messaging.operation.name = "receive",
        messaging.operation.type = "receive",
        messaging.destination.name = origin.topic.as_str(),
        messaging.consumer.group.name = origin.group.as_str(),
        messaging.batch.message_count = field::Empty,
        server.address = origin.address(),
        server.port = origin.port(),
    );
    (!span.is_disabled()).then_some(span)
}

fn may_be_sampled(delivery: &Delivery) -> bool {
    let parent = delivery.headers().get(trace::TRACEPARENT);
    parent.is_some_and(is_flagged)
}

/// By the flags of a `traceparent`, without a look at the rest.
fn is_flagged(parent: &str) -> bool {
    let flags = parent.trim().as_bytes().get(54);
    flags.is_some_and(|digit| b"13579bdf".contains(digit))
}

// === impl Receiving ===

impl Receiving {
    /// With a span from the start where the last receive brought what is sampled; else it is made
    /// when there is something to be said, so that it costs nothing where nothing is sampled.
    pub(crate) fn begin(origin: &Origin, was_sampled: bool) -> Self {
        let span = was_sampled.then(|| receive(origin)).flatten();
        Self { span }
    }

    /// These have come. The span is recorded if one of them is of a sampled trace: else it would say
    /// nothing to anybody. Answers whether one is.
    pub(crate) fn brought<'d>(
        mut self,
        origin: &Origin,
        deliveries: impl Iterator<Item = &'d Delivery> + Clone,
        describe: impl FnOnce(&mut Attributes),
    ) -> bool {
        if LevelFilter::current() < LevelFilter::INFO || !deliveries.clone().any(may_be_sampled) {
            return false;
        }
        let Some(span) = self.span.take().or_else(|| receive(origin)) else {
            return false;
        };
        let messages = count(deliveries.clone().count());
        span.record("messaging.batch.message_count", messages);
        let links = deliveries.filter_map(|delivery| Some((sender(delivery)?, of_one(delivery))));
        trace::describe(&span, describe);
        trace::add_links(&span, links);
        true
    }

    pub(crate) fn failed(mut self, origin: &Origin, error: &Error) {
        if let Some(span) = self.span.take().or_else(|| receive(origin)) {
            failed(&span, error);
        }
    }
}

impl Drop for Receiving {
    /// Below a span that is not sampled it is not recorded.
    fn drop(&mut self) {
        if let Some(span) = &self.span {
            trace::set_parent(span, trace::unsampled());
        }
    }
}

/// Marks a span whose operation failed.
pub(crate) fn failed(span: &Span, error: &Error) {
    failed_as(span, error.kind().as_str());
}

/// The same by the type of the error.
pub(crate) fn failed_as(span: &Span, error_type: &'static str) {
    span.record("error.type", error_type);
    span.record("otel.status_code", "ERROR");
}

/// Prepares the span of a settlement, `ack {topic}` or as it is called, which those that are under way
/// at the same time share: a child of the first one's attempt, linked to all senders. It ends when the
/// broker has confirmed.
pub(crate) fn settle(
    origin: &Arc<Origin>,
    desk: &dyn Desk,
    ticket: Ticket,
    attempt: Option<SpanContext>,
    how: Settlement,
) {
    if let Some(attempt) = attempt.filter(SpanContext::is_sampled) {
        desk.settles(ticket, origin, attempt, how);
    }
}

/// The span of such settlements begins.
pub(crate) fn settling<C: Consumer>(
    origin: &Origin,
    consumer: &C,
    how: Settlement,
    attempt: &SpanContext,
) -> Span {
    let span = settle_span(origin, how, attempt);
    trace::describe(&span, |attributes| consumer.describe(None, attributes));
    span
}

/// It is over: it tells of one message, or has links to those who sent them. A message that nobody's
/// span has sent is linked to its attempt.
pub(crate) fn settled_together(span: &Span, members: &[Member]) {
    if let [Member { message, .. }] = members {
        let delivery = message.delivery();
        span.record("messaging.message.id", delivery.id().as_str());
        if let Some(partition) = delivery.partition() {
            span.record("messaging.destination.partition.id", partition);
        }
        if let Some(sender) = sender(&delivery) {
            trace::add_link(span, sender);
        }
        return;
    }
    if !members.is_empty() {
        span.record("messaging.batch.message_count", count(members.len()));
    }
    let links = members.iter().map(|member| {
        let delivery = member.message.delivery();
        let mut attributes = of_one(&delivery);
        if let Some(error_type) = member.failed {
            attributes.text("error.type", error_type);
        }
        let sender = sender(&delivery);
        (sender.unwrap_or_else(|| member.attempt.clone()), attributes)
    });
    trace::add_links(span, links);
}

// === impl Settling ===

impl<'i> Settling<'i> {
    pub(crate) fn begin(inbox: &'i Inbox, attempt: &Span) -> Self {
        Self {
            inbox,
            attempt: trace::of(attempt).filter(SpanContext::is_sampled),
            spans: Vec::new(),
        }
    }

    /// A message is about to be settled.
    pub(crate) fn settle(&mut self, ticket: Ticket, how: Settlement) {
        let Some(attempt) = &self.attempt else {
            return;
        };
        let Inbox { desk, settings, .. } = self.inbox;
        let Some(delivery) = desk.received(ticket) else {
            return;
        };
        let operation = how.operation();
        let at = self.spans.iter().position(|(it, ..)| *it == operation);
        let at = at.unwrap_or_else(|| {
            let span = settle_span(&settings.origin, how, attempt);
            describe(&**desk, None, &span);
            self.spans.push((operation, span, 0));
            self.spans.len() - 1
        });
        let (_, span, messages) = &mut self.spans[at];
        link(span, &delivery.delivery());
        *messages += 1;
        desk.settles_in(ticket, span.clone());
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        for (_, span, messages) in &self.spans {
            span.record("messaging.batch.message_count", count(*messages));
        }
    }
}

fn settle_span(origin: &Origin, how: Settlement, attempt: &SpanContext) -> Span {
    let operation = how.operation();
    let span = tracing::info_span!(
        parent: None,
        "settle",
        otel.name = %format_args!("{operation} {}", origin.topic),
        otel.kind = "client",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = origin.system,
        messaging.operation.name = operation,
        messaging.operation.type = "settle",
        messaging.destination.name = origin.topic.as_str(),
        messaging.consumer.group.name = origin.group.as_str(),
        messaging.message.id = field::Empty,
        messaging.batch.message_count = field::Empty,
        messaging.destination.partition.id = field::Empty,
        server.address = origin.address(),
        server.port = origin.port(),
    );
    // By its identity: a child of the span itself would keep that open.
    trace::set_parent(&span, attempt.clone());
    span
}

/// A link to the sender of one of many messages, with what is its own.
fn link(span: &Span, delivery: &Delivery) {
    let Some(sender) = sender(delivery) else {
        return;
    };
    trace::add_link_with(span, sender, of_one(delivery));
}

/// What is a message's own, where there are many.
fn of_one(delivery: &Delivery) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.text("messaging.message.id", delivery.id().to_string());
    if let Some(partition) = delivery.partition() {
        attributes.text("messaging.destination.partition.id", partition.to_owned());
    }
    attributes
}

/// What the driver knows.
fn describe(desk: &dyn Desk, delivery: Option<&Delivery>, span: &Span) {
    trace::describe(span, |attributes| desk.describe(delivery, attributes));
}

/// Not as an unsigned number, which becomes text.
fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::is_flagged;

    #[test]
    fn white_space_around_a_parent_hides_no_flag() {
        let parent =
            |flags| format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        for (flags, sampled) in [("01", true), ("03", true), ("00", false), ("02", false)] {
            let parent = parent(flags);
            for written in [parent.clone(), format!(" {parent}"), format!("{parent}\t ")] {
                assert_eq!(is_flagged(&written), sampled, "{written:?}");
            }
        }
        assert!(!is_flagged("00-1"));
    }
}
