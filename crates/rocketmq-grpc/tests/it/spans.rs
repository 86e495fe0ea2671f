//! Spans of a client that is used alone, as an exporter sees them.

use std::{
    collections::BTreeSet,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    baggage::{Baggage, BaggageExt},
    global,
    trace::{
        FutureExt as _, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
        TraceFlags, TraceId, TraceState, Tracer as _,
    },
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use rocketmq_devbroker::{DevBroker, TopicType};
use rocketmq_grpc::{
    Client, Config, Connector, Consumer, ConsumerConfig, Filter, Lease, Message, Producer,
    ProducerConfig, PushConsumer, Resolution, Settlement, SimpleConsumerConfig,
};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(20);
const FOREIGN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// All that this process records.
fn exporter() -> InMemorySpanExporter {
    static EXPORTER: OnceLock<InMemorySpanExporter> = OnceLock::new();
    let install = || {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
        global::set_tracer_provider(provider.build());
        exporter
    };
    EXPORTER.get_or_init(install).clone()
}

fn on(broker: &DevBroker, config: Config) -> Client {
    exporter();
    let link = broker.connector();
    let connector = Connector::new(tower::service_fn(move |_| {
        std::future::ready(link.connect())
    }));
    Client::with_connector(config, connector).unwrap()
}

async fn client() -> Client {
    on(&DevBroker::start().await, Config::new("dev:8081").traced())
}

async fn producer(client: &Client) -> Producer {
    client.producer(ProducerConfig::new()).await.unwrap()
}

async fn consumer(client: &Client, topic: &str) -> Consumer {
    let config = ConsumerConfig::new("billing").subscribe(topic, Filter::all());
    client.consumer(config).await.unwrap()
}

async fn receive(consumer: &Consumer, topic: &str, count: usize) -> Vec<Lease> {
    let mut leases = Vec::new();
    while leases.len() < count {
        let received = consumer.receive(topic, count - leases.len());
        let received = tokio::time::timeout(SOON, received).await;
        leases.extend(received.expect("nothing came").unwrap());
    }
    leases
}

fn named(name: &str) -> Vec<SpanData> {
    let mut spans = exporter().get_finished_spans().unwrap();
    spans.retain(|span| span.name == name);
    spans
}

fn one(name: &str) -> SpanData {
    let mut spans = named(name);
    assert_eq!(spans.len(), 1, "spans named {name}: {spans:?}");
    spans.remove(0)
}

async fn eventually(name: &str, count: usize) -> Vec<SpanData> {
    let until = Instant::now() + SOON;
    while named(name).len() < count {
        assert!(Instant::now() < until, "not {count} spans named {name}");
        sleep(Duration::from_millis(5)).await;
    }
    named(name)
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key.as_str() == name);
    found.map(|it| it.value.to_string())
}

fn assert_attributes(span: &SpanData, has: &[&str]) {
    let seen: BTreeSet<_> = span.attributes.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(seen.len(), span.attributes.len(), "each once: {span:?}");
    assert_eq!(seen, has.iter().copied().collect(), "of {}", span.name);
}

const EVERY: [&str; 8] = [
    "messaging.client.id",
    "messaging.destination.name",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.rocketmq.namespace",
    "messaging.system",
    "server.address",
    "server.port",
];
const OF_A_CONSUMER: [&str; 2] = [
    "messaging.consumer.group.name",
    "messaging.rocketmq.consumption_model",
];

#[tokio::test]
async fn send_receive_and_settlement_are_spans_of_the_conventions() {
    let topic = "spans-way";
    let client = client().await;
    let message = Message::new(topic, "x").tag("eu").key("a").key("b");
    let id = message.id().to_owned();
    let root = global::tracer("test").start("root of spans-way");
    let around = Context::new().with_span(root);
    let mut baggage = Baggage::new();
    baggage.insert("tenant", "a b");
    let sending = around.with_baggage(baggage);
    let producer = producer(&client).await;
    let sent = producer.send(message).with_context(sending).await;
    sent.unwrap();
    let consumer = consumer(&client, topic).await;
    let lease = receive(&consumer, topic, 1).await.remove(0);

    let send = one("send spans-way");
    let traceparent = format!(
        "00-{}-{}-01",
        send.span_context.trace_id(),
        send.span_context.span_id()
    );
    let properties = &lease.message().properties;
    assert_eq!(properties["traceparent"], traceparent);
    assert_eq!(properties["baggage"], "tenant=a%20b");
    assert_eq!(
        lease.message().span_context().unwrap().span_id(),
        send.span_context.span_id()
    );
    let caller = around.span().span_context().clone();
    consumer.ack(lease).with_context(around).await.unwrap();

    assert_eq!(send.span_kind, SpanKind::Producer);
    assert_eq!(send.parent_span_id, caller.span_id());
    assert_eq!(send.span_context.trace_id(), caller.trace_id());
    let of_a_message = [
        "messaging.message.id",
        "messaging.rocketmq.message.keys",
        "messaging.rocketmq.message.tag",
        "messaging.rocketmq.message.type",
    ];
    assert_attributes(&send, &[&EVERY[..], &of_a_message].concat());
    let scope = &send.instrumentation_scope;
    assert_eq!(
        (scope.name(), scope.schema_url()),
        (
            "rocketmq-grpc",
            Some("https://opentelemetry.io/schemas/1.44.0")
        )
    );
    for (name, value) in [
        ("messaging.system", "rocketmq"),
        ("messaging.operation.name", "send"),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", topic),
        ("messaging.message.id", &id),
        ("messaging.rocketmq.message.type", "normal"),
        ("server.address", "dev"),
        ("server.port", "8081"),
    ] {
        assert_eq!(attribute(&send, name).as_deref(), Some(value), "{name}");
    }

    let consumers = [&EVERY[..], &OF_A_CONSUMER].concat();
    let receive = one("receive spans-way");
    assert_eq!(receive.span_kind, SpanKind::Client);
    let batch = [&consumers[..], &["messaging.batch.message_count"]].concat();
    assert_attributes(&receive, &batch);
    let [link] = &*receive.links.links else {
        panic!("one link: {:?}", receive.links)
    };
    assert_eq!(link.span_context.span_id(), send.span_context.span_id());
    let of_link: Vec<_> = link.attributes.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(
        of_link,
        ["messaging.message.id", "messaging.destination.partition.id"]
    );
    assert!(receive.end_time > receive.start_time);

    let ack = one("ack spans-way");
    assert_eq!(ack.span_kind, SpanKind::Client);
    assert_eq!(ack.parent_span_id, caller.span_id());
    assert_attributes(&ack, &[&consumers[..], &["messaging.message.id"]].concat());
    assert_eq!(
        attribute(&ack, "messaging.operation.type").as_deref(),
        Some("settle")
    );
    assert_eq!(ack.links.links.len(), 1);
}

#[tokio::test]
async fn acknowledgements_that_go_together_are_one_span_with_links() {
    let topic = "spans-acks";
    let client = client().await;
    let producer = producer(&client).await;
    for n in 0..20 {
        let message = Message::new(topic, n.to_string());
        producer.send(message).await.unwrap();
    }
    let consumer = consumer(&client, topic).await;
    for lease in receive(&consumer, topic, 20).await {
        consumer.settle(lease, Settlement::Ack);
    }
    let mut settled = 0;
    while settled < 20 {
        settled += consumer.settled().await.len();
    }
    let acks = named("ack spans-acks");
    let links: BTreeSet<_> = acks.iter().flat_map(|ack| ack.links.iter()).collect_ids();
    let sends: BTreeSet<_> = named("send spans-acks")
        .iter()
        .map(|send| send.span_context.span_id().to_string())
        .collect();
    assert!(acks.len() < 5, "{} requests", acks.len());
    assert_eq!(links, sends, "every message is linked");
    let together = acks.iter().find(|ack| ack.links.len() > 1).unwrap();
    let count = attribute(together, "messaging.batch.message_count");
    assert_eq!(count, Some(together.links.len().to_string()));
    assert_eq!(together.parent_span_id, SpanId::INVALID);
}

trait CollectIds {
    fn collect_ids(self) -> BTreeSet<String>;
}

impl<'l, I: Iterator<Item = &'l opentelemetry::trace::Link>> CollectIds for I {
    fn collect_ids(self) -> BTreeSet<String> {
        self.map(|link| link.span_context.span_id().to_string())
            .collect()
    }
}

#[tokio::test]
async fn other_settlements_and_types_of_messages_are_told_apart() {
    let broker = DevBroker::builder()
        .topic("spans-delay", TopicType::Delay)
        .topic("spans-fifo", TopicType::Fifo)
        .topic("spans-transaction", TopicType::Transaction);
    let client = on(
        &broker.in_memory().unwrap(),
        Config::new("dev:8081").traced(),
    );
    let config = ProducerConfig::new().transaction_checker(async |_| Resolution::Unknown);
    let producer = client.producer(config).await.unwrap();
    let at = SystemTime::now() + Duration::from_secs(1);
    let delayed = Message::new("spans-delay", "x").deliver_at(at);
    producer.send(delayed).await.unwrap();
    let grouped = Message::new("spans-fifo", "x").group("g");
    producer.send(grouped).await.unwrap();
    let half = Message::new("spans-transaction", "x");
    let open = producer.begin(half).await.unwrap();
    open.rollback().await.unwrap();
    let batch = ["a", "b"].map(|it| Message::new("spans-kinds", it));
    producer.send_batch(batch.to_vec()).await.unwrap();
    for (topic, kind, more) in [
        (
            "spans-delay",
            "delay",
            Some("messaging.rocketmq.message.delivery_timestamp"),
        ),
        (
            "spans-fifo",
            "fifo",
            Some("messaging.rocketmq.message.group"),
        ),
        ("spans-transaction", "transaction", None),
    ] {
        let send = one(&format!("send {topic}"));
        let seen = attribute(&send, "messaging.rocketmq.message.type");
        assert_eq!(seen.as_deref(), Some(kind));
        assert!(more.is_none_or(|name| attribute(&send, name).is_some()));
    }
    let send = one("send spans-kinds");
    assert_eq!(
        attribute(&send, "messaging.batch.message_count").as_deref(),
        Some("2")
    );

    let consumer = consumer(&client, "spans-kinds").await;
    let mut leases = receive(&consumer, "spans-kinds", 2).await;
    for lease in &leases {
        let sender = lease.message().span_context().unwrap();
        assert_eq!(sender.span_id(), send.span_context.span_id());
    }
    consumer.dead_letter(leases.remove(0)).await.unwrap();
    consumer.hand_back(leases.remove(0)).await.unwrap();
    let again = receive(&consumer, "spans-kinds", 1).await.remove(0);
    consumer.retry_after(again, SOON).await.unwrap();
    for operation in ["dead_letter", "hand_back", "nack"] {
        let span = one(&format!("{operation} spans-kinds"));
        assert_eq!(
            attribute(&span, "messaging.operation.name").as_deref(),
            Some(operation)
        );
        assert_eq!(span.links.links.len(), 1);
    }
}

#[tokio::test]
async fn a_trace_that_a_message_has_already_is_kept_and_linked() {
    let client = client().await;
    let message = Message::new("spans-own", "x").property("traceparent", FOREIGN);
    producer(&client).await.send(message).await.unwrap();
    let consumer = consumer(&client, "spans-own").await;
    let lease = receive(&consumer, "spans-own", 1).await.remove(0);
    assert_eq!(lease.message().properties["traceparent"], FOREIGN);
    let send = one("send spans-own");
    assert_eq!(send.span_kind, SpanKind::Client);
    let linked = &send.links.links[0].span_context;
    assert_eq!(linked.span_id().to_string(), "00f067aa0ba902b7");
}

#[tokio::test]
async fn a_send_that_fails_is_marked() {
    let broker = DevBroker::builder().strict(true).in_memory().unwrap();
    let client = on(&broker, Config::new("dev:8081").traced());
    let producer = producer(&client).await;
    let sent = producer.send(Message::new("spans-no", "x")).await;
    let error = sent.unwrap_err();
    let send = one("send spans-no");
    assert_eq!(
        attribute(&send, "error.type").as_deref(),
        error.code_name(),
        "{error:?}"
    );
    assert!(matches!(send.status, Status::Error { .. }));
}

#[tokio::test]
async fn an_unsampled_trace_is_carried_on_and_nothing_is_recorded() {
    let client = client().await;
    let unsampled = SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::default(),
        true,
        TraceState::default(),
    );
    let within = Context::new().with_remote_span_context(unsampled);
    let sent = producer(&client)
        .await
        .send(Message::new("spans-off", "x"))
        .with_context(within)
        .await;
    sent.unwrap();
    let consumer = consumer(&client, "spans-off").await;
    let lease = receive(&consumer, "spans-off", 1).await.remove(0);
    let sender = lease.message().span_context().unwrap();
    assert_eq!(
        (sender.trace_id(), sender.is_sampled()),
        (TraceId::from(7), false)
    );
    assert!(named("send spans-off").is_empty());
}

#[tokio::test]
async fn baggage_that_has_no_room_is_left_behind_and_the_message_is_sent() {
    let client = client().await;
    let mut baggage = Baggage::new();
    baggage.insert("big", "x".repeat(8_000));
    let within = Context::new().with_baggage(baggage);
    let producer = producer(&client).await;
    for (body, bytes) in [("fits", 4_000), ("does not", 12_000)] {
        let message = Message::new("spans-room", body).property("note", "y".repeat(bytes));
        let sent = producer.send(message).with_context(within.clone()).await;
        sent.unwrap();
    }
    let consumer = consumer(&client, "spans-room").await;
    for lease in receive(&consumer, "spans-room", 2).await {
        let message = lease.message();
        let has = message.properties.contains_key("baggage");
        assert_eq!(has, message.body == "fits", "{:?}", message.body);
        assert!(message.span_context().is_some());
    }
}

#[tokio::test]
async fn a_handler_runs_in_a_span_below_the_senders() {
    let topic = "spans-push";
    let client = client().await;
    let config = ConsumerConfig::new("billing").subscribe(topic, Filter::all());
    let push = PushConsumer::start(&client, config, 2, async |message| {
        let tracer = global::tracer("test");
        tracer.start("work of spans-push").end();
        match message.attempt {
            1 => Err("at first"),
            _ => Ok(()),
        }
    });
    let push = push.await.unwrap();
    let message = Message::new(topic, "x");
    producer(&client).await.send(message).await.unwrap();
    let attempts = eventually("process spans-push", 1).await;
    eventually("nack spans-push", 1).await;
    push.stop(Instant::now() + SOON).await.unwrap();
    let send = one("send spans-push");
    let first = &attempts[0];
    assert_eq!(first.span_kind, SpanKind::Consumer);
    assert_eq!(first.parent_span_id, send.span_context.span_id());
    assert_eq!(first.links.links.len(), 1);
    assert_eq!(attribute(first, "error.type").as_deref(), Some("_OTHER"));
    assert_attributes(
        first,
        &[
            &EVERY[..],
            &OF_A_CONSUMER,
            &[
                "error.type",
                "messaging.delivery.attempt",
                "messaging.destination.partition.id",
                "messaging.message.id",
            ],
        ]
        .concat(),
    );
    let below = |name: &str| one(name).parent_span_id == first.span_context.span_id();
    assert!(below("work of spans-push") && below("nack spans-push"));
}

#[tokio::test]
async fn a_simple_consumer_receives_topics_together_in_one_span() {
    let client = client().await;
    let producer = producer(&client).await;
    for topic in ["spans-simple-a", "spans-simple-b"] {
        producer.send(Message::new(topic, "x")).await.unwrap();
    }
    let config = SimpleConsumerConfig::new("billing")
        .subscribe("spans-simple-a", Filter::all())
        .subscribe("spans-simple-b", Filter::all());
    let consumer = client.simple_consumer(config).await.unwrap();
    let mut count = 0;
    while count < 2 {
        let leases = consumer.receive(8, Duration::from_secs(10)).await.unwrap();
        count += leases.len();
        for lease in leases {
            consumer.ack(lease).await.unwrap();
        }
    }
    let names = ["dev:8081", "spans-simple-a", "spans-simple-b"];
    let received: usize = names
        .iter()
        .flat_map(|name| named(&format!("receive {name}")))
        .map(|span| span.links.len())
        .sum();
    assert_eq!(received, 2);
    one("ack spans-simple-a");
    one("ack spans-simple-b");
}

#[tokio::test]
async fn a_client_that_is_not_asked_to_records_nothing_and_adds_nothing() {
    let broker = DevBroker::start().await;
    let plain = on(&broker, Config::new("dev:8081"));
    let switched_off = on(&broker, Config::new("dev:8081").traced()).untraced();
    let root = global::tracer("test").start("root of spans-none");
    let within = Context::new().with_span(root);
    for client in [plain, switched_off] {
        let producer = producer(&client).await;
        let message = Message::new("spans-none", "x");
        let sent = producer.send(message).with_context(within.clone()).await;
        sent.unwrap();
        let consumer = consumer(&client, "spans-none").await;
        let lease = receive(&consumer, "spans-none", 1).await.remove(0);
        assert!(lease.message().properties.is_empty());
        consumer.ack(lease).await.unwrap();
        consumer.close(Instant::now() + SOON).await.unwrap();
    }
    let spans = exporter().get_finished_spans().unwrap();
    let about = KeyValue::new("messaging.destination.name", "spans-none");
    assert!(!spans.iter().any(|span| span.attributes.contains(&about)));
}
