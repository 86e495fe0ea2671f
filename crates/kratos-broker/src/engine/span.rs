//! The span of one attempt.

use kratos::trace::{self, SpanContext};
use tracing::{Span, field};

use super::lane::LaneSettings;
use crate::{Deliveries, Delivery};

/// A `process {topic}` span, linked to the sender's span, and the latter as the parent to be.
///
/// A malformed or missing `traceparent` leaves a new root. A sender that is not sampled is carried
/// on, and nothing is recorded: no span is made.
pub(crate) fn process(settings: &LaneSettings, delivery: &Delivery) -> (Span, Option<SpanContext>) {
    let parent = trace::extract(|name| delivery.headers().get(name));
    if parent.as_ref().is_some_and(|parent| !parent.is_sampled()) {
        return (Span::none(), parent);
    }
    let topic = delivery.topic().as_str();
    let span = tracing::info_span!(
        parent: None,
        "process",
        otel.name = %format_args!("process {topic}"),
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
        messaging.delivery.attempt = delivery.attempt(),
        dead_letter.reason = field::Empty,
        dead_letter.topic = field::Empty,
    );
    if let (false, Some(parent)) = (span.is_disabled(), &parent) {
        trace::add_link(&span, parent.clone());
    }
    (span, parent)
}

/// A `process {topic}` span of a batch: a root of its own, linked to the sender of every message.
/// What differs between messages is on the links; which of them became dead letters, and why, on its
/// events.
pub(crate) fn process_batch(settings: &LaneSettings, batch: &Deliveries) -> Span {
    let topic = batch.topic().as_str();
    let span = tracing::info_span!(
        parent: None,
        "process",
        otel.name = %format_args!("process {topic}"),
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
