//! The span of one attempt.

use kratos::trace::{self, SpanContext};
use tracing::{Span, field, level_filters::LevelFilter};

use super::lane::LaneSettings;
use crate::{Deliveries, Delivery};

/// The sender's span, if the message names one.
///
/// A malformed or missing `traceparent` leaves a new root.
#[inline]
pub(crate) fn sender(delivery: &Delivery) -> Option<SpanContext> {
    let headers = delivery.headers();
    if headers.is_empty() {
        return None;
    }
    trace::extract(|name| headers.get(name))
}

/// A `process {topic}` span, linked to the sender's span, which is its parent to be.
#[inline]
pub(crate) fn process(
    settings: &LaneSettings,
    delivery: &Delivery,
    sender: Option<&SpanContext>,
) -> Span {
    // Without a subscriber there is nothing to be asked.
    if LevelFilter::current() < LevelFilter::INFO {
        return Span::none();
    }
    process_span(settings, delivery, sender)
}

fn process_span(
    settings: &LaneSettings,
    delivery: &Delivery,
    sender: Option<&SpanContext>,
) -> Span {
    let topic = delivery.topic().as_str();
    let span = tracing::info_span!(
        parent: None,
        "process",
        otel.name = settings.span_name.as_str(),
        otel.kind = "consumer",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = settings.system,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = topic,
        messaging.consumer.group.name = settings.group.as_str(),
        messaging.message.id = delivery.id().as_str(),
        messaging.destination.partition.id = delivery.partition(),
        // Not as `u32`, which becomes text.
        messaging.delivery.attempt = i64::from(delivery.attempt()),
        dead_letter.reason = field::Empty,
        dead_letter.topic = field::Empty,
    );
    if let (false, Some(sender)) = (span.is_disabled(), sender) {
        trace::add_link(&span, sender.clone());
    }
    span
}

/// A `process {topic}` span of a batch: a root of its own, linked to the sender of every message.
/// What differs between messages is on the links; which of them became dead letters, and why, on its
/// events.
pub(crate) fn process_batch(settings: &LaneSettings, batch: &Deliveries) -> Span {
    let topic = batch.topic().as_str();
    let span = tracing::info_span!(
        parent: None,
        "process",
        otel.name = settings.span_name.as_str(),
        otel.kind = "consumer",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = settings.system,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = topic,
        messaging.consumer.group.name = settings.group.as_str(),
        messaging.batch.message_count = batch.len(),
        dead_letter.reason = field::Empty,
        dead_letter.topic = field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    for delivery in batch.iter() {
        if let Some(sender) = trace::extract(|name| delivery.headers().get(name)) {
            let attributes = [
                ("messaging.message.id", Some(delivery.id().as_str())),
                ("messaging.destination.partition.id", delivery.partition()),
            ];
            let known = attributes.into_iter();
            let known = known.filter_map(|(name, value)| Some((name, value?.to_owned())));
            trace::add_link_with(&span, sender, known);
        }
    }
    span
}
