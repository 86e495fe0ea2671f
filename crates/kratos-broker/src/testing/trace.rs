//! T: trace.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceId, TraceState, TracerProvider as _},
};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SamplingDecision, SamplingResult, SdkTracerProvider,
    ShouldSample, SpanData,
};
use tokio::time::{Instant, sleep};
use tracing::Instrument;
use tracing_subscriber::{Layer, layer::SubscriberExt};

use super::{
    Harness, Started, eventually,
    place::{Place, prime},
    witness::{Seen, publish, publish_all, see, serve, serve_seen, stop},
};
use crate::{AnyError, Attempt, Bytes, Delivery, Disposition, Message, Publisher, Server};

/// The spans about a topic, and the root spans of the laws, exported to memory. The first call
/// installs the subscriber.
///
/// # Panics
///
/// The process has another tracing subscriber already.
pub fn spans(topic: &str) -> InMemorySpanExporter {
    static SPANS: OnceLock<InMemorySpanExporter> = OnceLock::new();
    watched().insert(topic.to_owned());
    let install = || {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(Sampler::ParentBased(Box::new(Watched)))
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("conformance"));
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

/// The topics whose spans are wanted: thousands of other laws would only slow the exporter down.
fn watched() -> MutexGuard<'static, HashSet<String>> {
    static TOPICS: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    TOPICS.lock().unwrap()
}

#[derive(Clone, Debug)]
struct Watched;

impl ShouldSample for Watched {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let topic = name.split_once(' ').map(|(_, topic)| topic);
        let wanted = topic.is_none_or(|topic| watched().contains(topic));
        SamplingResult {
            decision: if wanted {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

/// T1: the handler's span is a child of the sender's, the sender's a child of the span it was sent
/// in: one trace, every parent exported.
///
/// # Panics
///
/// A span or a parent is missing.
pub async fn t1_the_handler_is_a_child_of_the_sender_and_every_parent_is_exported<H: Harness>(
    h: &H,
) {
    let place = Place::new(h, "t1").await;
    let exporter = spans(&place.topic);
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
            .map(|(name, _)| (*name, attribute(&process, name))),
        expected
    );
}

/// T2: the handler's span has the sender's span as its parent, and a link to it.
///
/// # Panics
///
/// It has not.
pub async fn t2_the_handler_has_the_sender_as_parent_and_link<H: Harness>(h: &H) {
    let place = Place::new(h, "t2").await;
    let exporter = spans(&place.topic);
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = serve_seen(h, place.subscription(h), &seen).await;
    publish(h, Message::new(&place.topic, "x")).await;
    eventually("it is handled", h.bounds().deliver, || seen.count() == 1).await;
    stop(server).await;
    let send = one(&exporter, &format!("send {}", place.topic));
    let process = one(&exporter, &format!("process {}", place.topic));
    assert_eq!(process.parent_span_id, send.span_context.span_id());
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
}

/// T4: a malformed `traceparent`, or none, starts a new root, and the message is handled.
///
/// # Panics
///
/// It does not.
pub async fn t4_a_bad_or_absent_traceparent_starts_a_new_root<H: Harness>(h: &H) {
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
    let exporter = spans(&place.topic);
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

/// Trace and span of the caller that a test stands for.
fn traceparent(number: usize, flags: &str) -> String {
    format!(
        "00-{:032x}-{:016x}-{flags}",
        0xabc0 + number,
        0xdef0 + number
    )
}

/// T6: a message of a trace that is not sampled is delivered so, and its handler exports nothing.
///
/// # Panics
///
/// The flag is changed, or a span exported.
pub async fn t6_an_unsampled_trace_stays_unsampled<H: Harness>(h: &H) {
    let place = Place::new(h, "t6").await;
    let exporter = spans(&place.topic);
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = serve_seen(h, place.subscription(h), &seen).await;
    let unsampled = traceparent(6, "00");
    let message = Message::new(&place.topic, "x").header("traceparent", unsampled.clone());
    publish(h, message).await;
    eventually("it is handled", h.bounds().deliver, || seen.count() == 1).await;
    stop(server).await;
    let kept = seen.all()[0]
        .headers()
        .get("traceparent")
        .map(str::to_owned);
    assert_eq!(kept, Some(unsampled));
    let spans = named(&exporter, &format!("process {}", place.topic));
    assert!(spans.is_empty(), "exported though unsampled: {spans:?}");
}

/// T7: the attempts of a message are siblings: spans of their own, numbered, of one parent.
///
/// # Panics
///
/// They are not.
pub async fn t7_attempts_are_siblings<H: Harness>(h: &H) {
    let place = Place::new(h, "t7").await;
    let exporter = spans(&place.topic);
    prime(h, &place.topic, &place.group).await;
    let fail_once = |Attempt(attempt): Attempt| async move {
        if attempt == 1 {
            return Err(AnyError::msg("fails at first"));
        }
        Ok(())
    };
    let (server, counters) = serve(h, place.subscription(h), fail_once).await;
    publish(h, Message::new(&place.topic, "x")).await;
    let within = h.bounds().deliver + h.bounds().redelivery_late;
    eventually("it is handled", within, || counters.stats().handled == 1).await;
    stop(server).await;
    let send = one(&exporter, &format!("send {}", place.topic));
    let attempts = named(&exporter, &format!("process {}", place.topic));
    let [first, second] = &*attempts else {
        panic!("not two attempts: {attempts:?}")
    };
    for (number, span) in [("1", first), ("2", second)] {
        assert_eq!(span.parent_span_id, send.span_context.span_id());
        let attempt = attribute(span, "messaging.delivery.attempt");
        assert_eq!(attempt.as_deref(), Some(number));
    }
    assert_ne!(first.span_context.span_id(), second.span_context.span_id());
}

/// T8 in mode Native: a dead letter keeps the message's `traceparent`.
///
/// # Panics
///
/// It is gone, or another.
pub async fn t8_a_dead_letter_keeps_its_trace<H: Harness>(h: &H) {
    async fn fail(_: Bytes) -> Result<(), AnyError> {
        Err(AnyError::msg("on purpose"))
    }
    let place = Place::new(h, "t8").await;
    prime(h, &place.topic, &place.group).await;
    let poison = place
        .subscription(h)
        .classify(|_: &AnyError| Disposition::Poison);
    let (server, _) = serve(h, poison, fail).await;
    let sent = traceparent(8, "01");
    let message = Message::new(&place.topic, "x").header("traceparent", sent.clone());
    publish(h, message).await;
    let until = Instant::now() + h.bounds().deliver;
    let dead = loop {
        if let Some(dead) = h.dead_letters(&place.group).await.pop() {
            break dead;
        }
        assert!(Instant::now() < until, "no dead letter");
        sleep(Duration::from_millis(50)).await;
    };
    stop(server).await;
    assert_eq!(dead.headers().get("traceparent"), Some(&*sent));
}

/// T10: the baggage that a message is sent with is there in its handler.
///
/// # Panics
///
/// It is not, or not as it was.
pub async fn t10_baggage_reaches_the_handler<H: Harness>(h: &H) {
    let place = Place::new(h, "t10").await;
    prime(h, &place.topic, &place.group).await;
    let within = Arc::new(Mutex::new(Vec::new()));
    let look = {
        let within = within.clone();
        move |_: Bytes| {
            let tenant = kratos::trace::baggage()
                .get("tenant")
                .map(ToString::to_string);
            within.lock().unwrap().push(tenant);
            async {}
        }
    };
    let (server, _) = serve(h, place.subscription(h), look).await;
    let mut baggage = kratos::trace::Baggage::new();
    baggage.insert("tenant", "a b,ä");
    let sent = publish(h, Message::new(&place.topic, "x"));
    kratos::trace::with_baggage(baggage, sent).await;
    let handled = || !within.lock().unwrap().is_empty();
    eventually("it is handled", h.bounds().deliver, handled).await;
    stop(server).await;
    assert_eq!(within.lock().unwrap()[0].as_deref(), Some("a b,ä"));
}

/// T9: messages that are handled at once never mix their traces.
///
/// # Panics
///
/// A handler runs in the trace of another message.
pub async fn t9_concurrent_messages_never_mix_their_traces<H: Harness>(h: &H) {
    const MESSAGES: usize = 50;
    let place = Place::new(h, "t9").await;
    let exporter = spans(&place.topic);
    prime(h, &place.topic, &place.group).await;
    let within = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let slow = {
        let within = within.clone();
        move |delivery: Delivery| {
            let within = within.clone();
            async move {
                // On another thread, as it comes, after others have run on this one.
                sleep(Duration::from_millis(20)).await;
                let trace = kratos::trace::current().map(|span| span.trace_id().to_string());
                within.lock().unwrap().push((delivery, trace));
            }
        }
    };
    let (server, _) = serve(h, place.subscription(h), slow).await;
    let message = |n: usize| {
        let message = Message::new(&place.topic, n.to_string());
        message.header("traceparent", traceparent(0x900 + n, "01"))
    };
    publish_all(h, [(0..MESSAGES).map(message).collect()]).await;
    let all = || within.lock().unwrap().len() >= MESSAGES;
    eventually("all are handled", h.bounds().deliver, all).await;
    stop(server).await;
    let spans = named(&exporter, &format!("process {}", place.topic));
    for (delivery, trace) in &*within.lock().unwrap() {
        let sent = delivery.headers().get("traceparent").expect("a trace");
        let trace = trace.as_deref().expect("a trace");
        assert!(sent.contains(trace), "{sent} was handled in {trace}");
        let id = delivery.id().as_str();
        let of_this = |span: &&SpanData| {
            attribute(span, "messaging.message.id").is_some_and(|attribute| attribute == id)
        };
        let span = spans.iter().find(of_this).expect("its span");
        assert_eq!(span.span_context.trace_id().to_string(), trace);
    }
}

pub(super) fn named(exporter: &InMemorySpanExporter, name: &str) -> Vec<SpanData> {
    let spans = exporter.get_finished_spans().unwrap();
    spans.into_iter().filter(|span| span.name == name).collect()
}

fn one(exporter: &InMemorySpanExporter, name: &str) -> SpanData {
    let mut spans = named(exporter, name);
    assert_eq!(spans.len(), 1, "one span {name}");
    spans.remove(0)
}

pub(super) fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|kv| kv.key.as_str() == name);
    found.map(|kv| kv.value.to_string())
}
