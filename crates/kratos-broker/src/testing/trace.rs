//! T: trace.

use std::sync::OnceLock;

use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Instrument;
use tracing_subscriber::{Layer, layer::SubscriberExt};

use super::{
    Harness, Place, Started,
    delivery::{Seen, see},
    eventually, prime,
    retry::publish,
};
use crate::{Message, Publisher, Server};

/// The spans of this process, exported to memory. The first call installs the subscriber.
///
/// # Panics
///
/// The process has another tracing subscriber already.
pub fn spans() -> InMemorySpanExporter {
    static SPANS: OnceLock<InMemorySpanExporter> = OnceLock::new();
    let install = || {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("conformance"));
        // Thousands of spans of other laws would only slow the exporter down.
        let ours = tracing_subscriber::filter::filter_fn(|metadata| {
            metadata.is_span() && matches!(metadata.name(), "send" | "process" | "conformance")
        });
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(ours));
        tracing::subscriber::set_global_default(subscriber)
            .expect("no other subscriber in a process of the conformance kit");
        exporter
    };
    SPANS.get_or_init(install).clone()
}

/// T1: the handler's span is a child of the sender's and linked to it, the sender's a child of the
/// span it was sent in; every parent is exported.
///
/// # Panics
///
/// A span or a parent is missing.
pub async fn t1_the_handler_is_a_child_of_the_sender_and_every_parent_is_exported<H: Harness>(
    h: &H,
) {
    let exporter = spans();
    let place = Place::new(h, "t1").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(seen.clone());
    let server = Started::start(server).await;
    let publisher = Publisher::new(h.driver().await);
    let message = Message::new(&place.topic, "x");
    let root = tracing::info_span!(parent: None, "conformance");
    publisher
        .publish(message)
        .instrument(root)
        .await
        .expect("a publish");
    eventually("it is handled", h.bounds().deliver, || {
        seen.all().len() == 1
    })
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");

    let topic = &place.topic;
    let send = one(&exporter, &format!("send {topic}"));
    let process = one(&exporter, &format!("process {topic}"));
    assert_eq!(
        (send.span_kind.clone(), process.span_kind.clone()),
        (SpanKind::Producer, SpanKind::Consumer)
    );
    assert_eq!(
        process.parent_span_id,
        send.span_context.span_id(),
        "child of the send span"
    );
    assert_eq!(
        process.span_context.trace_id(),
        send.span_context.trace_id(),
        "one trace"
    );
    let links: Vec<_> = process
        .links
        .iter()
        .map(|link| link.span_context.span_id())
        .collect();
    assert_eq!(
        links,
        [send.span_context.span_id()],
        "linked to the send span"
    );
    let exported = exporter.get_finished_spans().unwrap();
    let has = |id| {
        exported
            .iter()
            .any(|span| span.span_context.span_id() == id)
    };
    assert!(
        has(send.parent_span_id),
        "the send span's parent is exported"
    );

    let attribute = |name: &str| {
        let found = process.attributes.iter().find(|kv| kv.key.as_str() == name);
        found.map(|kv| kv.value.to_string())
    };
    let expected = [
        ("messaging.system", <H::Driver as crate::Driver>::SYSTEM),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", topic.as_str()),
        ("messaging.consumer.group.name", place.group.as_str()),
        ("messaging.message.id", seen.all()[0].id().as_str()),
    ]
    .map(|(name, value)| (name, Some(value.to_owned())));
    assert_eq!(
        expected
            .each_ref()
            .map(|(name, _)| (*name, attribute(name))),
        expected
    );
}

/// T4: a malformed `traceparent`, or none, starts a new root, and the message is handled.
///
/// # Panics
///
/// It does not.
pub async fn t4_a_bad_or_absent_traceparent_starts_a_new_root<H: Harness>(h: &H) {
    let exporter = spans();
    let bad = [
        // Nothing shorter: some brokers refuse a blank value, others an empty one.
        "-",
        "garbage",
        "00-00000000000000000000000000000000-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
    ];
    let place = Place::new(h, "t4").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(seen.clone());
    let server = Started::start(server).await;
    for value in bad {
        publish(
            h,
            Message::new(&place.topic, "x").header("traceparent", value),
        )
        .await;
    }
    // Past the publisher, which would give it one.
    let absent = crate::Driver::publish(&h.driver().await, Message::new(&place.topic, "x")).await;
    absent.expect("a publish");
    let count = bad.len() + 1;
    eventually("all are handled", h.bounds().deliver, || {
        seen.ids().len() == count
    })
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");

    let name = format!("process {}", place.topic);
    let processed: Vec<_> = named(&exporter, &name);
    assert!(processed.len() >= count, "every attempt has a span");
    let roots = processed
        .iter()
        .all(|span| span.parent_span_id == opentelemetry::SpanId::INVALID && span.links.is_empty());
    assert!(roots, "new roots without links: {processed:?}");
    let mut traces: Vec<_> = processed
        .iter()
        .map(|s| s.span_context.trace_id().to_string())
        .collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), processed.len(), "each a trace of its own");
}

fn named(exporter: &InMemorySpanExporter, name: &str) -> Vec<SpanData> {
    let spans = exporter.get_finished_spans().unwrap();
    spans.into_iter().filter(|span| span.name == name).collect()
}

fn one(exporter: &InMemorySpanExporter, name: &str) -> SpanData {
    let mut spans = named(exporter, name);
    assert_eq!(spans.len(), 1, "one span {name}");
    spans.remove(0)
}
