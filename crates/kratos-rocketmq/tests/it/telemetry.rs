//! T1 whole, T5, T10 and M1: one service, looked at from outside.

use std::{collections::BTreeSet, time::Duration};

use kratos::{
    App, assert_trace,
    telemetry::{self, Telemetry},
    testing::{RecordedLink, RecordedSpan, Recorder, Spans, tree},
};
use kratos_broker::{
    AnyError, Batch, BatchSettings, Bytes, Delivery, Disposition, Driver, Message, Resolution,
    Server, Subscription, memory,
};
use kratos_rocketmq::{Client, Config};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use rocketmq_devbroker::{DevBroker, TopicType};
use tracing::{Instrument, info_span};

use crate::{
    reports::{CALL, Reports, local},
    site::{PATIENCE, Running, eventually},
};

const TOPIC: &str = "logger_report_event";
const GROUP: &str = "logger-saver";

/// T1 and T10, on a driver.
async fn one_report_is_one_trace<D: Driver>(driver: D) {
    let recorder = Recorder::of_thread();
    let mut site = Reports::start(driver, TOPIC, GROUP, App::new()).await;
    site.post("baggage: tenant=acme\r\n").await;
    let (send, process) = (format!("send {TOPIC}"), format!("process {TOPIC}"));
    let ack = format!("ack {TOPIC}");
    let way = ["POST /agent/v1/report", &send, &process, &ack];
    recorder.wait_for(&way, PATIENCE).await.unwrap();
    let baggage = tokio::time::timeout(PATIENCE, site.baggage.recv())
        .await
        .unwrap();
    assert_eq!(baggage.flatten().as_deref(), Some("tenant=acme"));
    site.stop().await;

    let way = assert_trace!(
        recorder, "POST /agent/v1/report" => send => process => CALL => CALL
    );
    let kinds: Vec<_> = way.iter().map(|span| span.kind).collect();
    assert_eq!(
        kinds,
        ["SERVER", "PRODUCER", "CONSUMER", "CLIENT", "SERVER"]
    );
    assert_trace!(recorder, "POST /agent/v1/report" => send => process => "INSERT reports");
    let process = &way[2];
    let links: Vec<_> = process.links.iter().map(|link| &link.span_id).collect();
    assert_eq!(links, [&way[1].span_id], "linked to the send span");

    // Every parent was exported.
    let spans = recorder.spans();
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    let parents = spans.iter().filter_map(|span| span.parent_id.as_ref());
    for parent in parents {
        assert!(ids.contains(parent), "{}", tree(&spans));
    }
    let receive = &assert_trace!(recorder, format!("receive {TOPIC}"))[0];
    assert_eq!(receive.links[0].span_id, way[1].span_id);
}

#[tokio::test]
async fn t1_one_report_is_one_trace_in_memory() {
    one_report_is_one_trace(memory::Broker::new()).await;
}

#[tokio::test]
async fn t1_one_report_is_one_trace_on_the_dev_broker() {
    one_report_is_one_trace(Client::embedded()).await;
}

/// The client under the driver has spans of its own, when it is used alone: not here.
#[tokio::test]
async fn the_spans_of_the_client_are_not_doubled() {
    const TOPIC: &str = "spans-once";
    let below = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(below.clone());
    opentelemetry::global::set_tracer_provider(provider.build());
    let broker = DevBroker::start().await;
    let link = broker.connector();
    let connector = rocketmq_grpc::Connector::new(tower::service_fn(move |_| {
        std::future::ready(link.connect())
    }));
    let config = rocketmq_grpc::Config::new("dev:8081").traced();
    let alone = rocketmq_grpc::Client::with_connector(config, connector).unwrap();

    let recorder = Recorder::of_thread();
    let client = Client::around(alone.clone());
    let server = Server::new(client.clone()).subscribe(TOPIC, "once", async |_: Bytes| {});
    let app = Running::start(App::new().resource(client.clone()).server(server));
    app.ready().await;
    let message = Message::new(TOPIC, "x");
    client.publisher().publish(message).await.unwrap();
    let names = ["send", "process", "ack"].map(|it| format!("{it} {TOPIC}"));
    let way = names.each_ref().map(String::as_str);
    recorder.wait_for(&way, PATIENCE).await.unwrap();
    assert_eq!(below.get_finished_spans().unwrap(), []);

    // Used alone, it has them.
    let producer = alone.producer(rocketmq_grpc::ProducerConfig::new()).await;
    let message = rocketmq_grpc::Message::new("alone", "x");
    producer.unwrap().send(message).await.unwrap();
    let sent = below.get_finished_spans().unwrap();
    assert_eq!(sent[0].name, "send alone");

    app.handle.stop();
    app.ended().await.0.unwrap();
    let mut seen: Vec<_> = recorder.spans().into_iter().map(|it| it.name).collect();
    seen.sort_unstable();
    let expected = ["ack", "process", "receive", "send"].map(|it| format!("{it} {TOPIC}"));
    assert_eq!(seen, expected);
}

/// Settlements that are under way at the same time are one span, linked to every sender.
#[tokio::test]
async fn acknowledgements_that_go_together_share_a_span() {
    const TOPIC: &str = "acks";
    const COUNT: usize = 40;
    let recorder = Recorder::of_thread();
    let client = Client::embedded();
    let server = Server::new(client.clone()).subscribe(TOPIC, "acks", async |_: Bytes| {});
    let app = Running::start(App::new().resource(client.clone()).server(server));
    app.ready().await;
    let publisher = client.publisher();
    let sends = (0..COUNT).map(|n| publisher.publish(Message::new(TOPIC, n.to_string())));
    for sent in futures_util::future::join_all(sends).await {
        sent.unwrap();
    }
    let named = |operation: &str| {
        let name = format!("{operation} {TOPIC}");
        let mut spans = recorder.spans();
        spans.retain(|span| span.name == name);
        spans
    };
    let linked = || {
        named("ack")
            .iter()
            .map(|ack| ack.links.len())
            .sum::<usize>()
    };
    eventually("all is settled", || linked() == COUNT).await;
    app.handle.stop();
    app.ended().await.0.unwrap();

    let acks = named("ack");
    assert!(acks.len() < COUNT / 2, "{} spans", acks.len());
    let ids = |spans: &[RecordedSpan]| -> BTreeSet<_> {
        spans.iter().map(|span| span.span_id.clone()).collect()
    };
    let links = acks.iter().flat_map(|ack| &ack.links);
    let senders: BTreeSet<_> = links.clone().map(|link| link.span_id.clone()).collect();
    assert_eq!(senders, ids(&named("send")));
    let attempts = ids(&named("process"));
    for ack in &acks {
        let parent = ack.parent_id.as_ref();
        assert!(parent.is_some_and(|parent| attempts.contains(parent)));
        let count = ack.attribute("messaging.batch.message_count");
        match ack.links.len() {
            1 => assert!(count.is_none() && ack.attribute("messaging.message.id").is_some()),
            many => {
                assert_eq!(count, Some(&*many.to_string()));
                let of_one = ["messaging.destination.partition.id", "messaging.message.id"];
                let has = |link: &RecordedLink| link.attributes.keys().eq(of_one);
                assert!(ack.links.iter().all(has), "{ack:?}");
            }
        }
    }
}

/// The attributes that a span must have, and may have.
fn assert_attributes(span: &RecordedSpan, has: &[&str]) {
    let has: BTreeSet<_> = has.iter().copied().collect();
    let seen: BTreeSet<_> = span.attributes.keys().map(String::as_str).collect();
    assert_eq!(seen, has, "of {}", span.name);
    for gone in [
        "messaging.operation",
        "messaging.client_id",
        "messaging.url",
        "messaging.protocol",
        "messaging.rocketmq.client_group",
    ] {
        assert!(!seen.contains(gone), "{gone} is deprecated");
    }
    let kind = span.attribute("messaging.operation.type");
    assert!(!matches!(kind, Some("publish" | "deliver")), "{kind:?}");
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

const OF_A_MESSAGE: [&str; 3] = [
    "messaging.message.id",
    "messaging.rocketmq.message.keys",
    "messaging.rocketmq.message.tag",
];

const OF_A_CONSUMER: [&str; 2] = [
    "messaging.consumer.group.name",
    "messaging.rocketmq.consumption_model",
];

/// T5: of sends, single, delayed, in a transaction and of a message group; of attempts, one by one
/// and in batches; of receives and settlements.
#[tokio::test]
async fn t5_the_attributes_are_those_of_the_conventions() {
    let recorder = Recorder::of_thread();
    let broker = DevBroker::builder()
        .listen(local())
        .topic("t5", TopicType::Normal)
        .topic("t5-delay", TopicType::Delay)
        .topic("t5-fifo", TopicType::Fifo)
        .topic("t5-transaction", TopicType::Transaction);
    let broker = broker.start().await.unwrap();
    let config = Config {
        endpoints: Some(broker.addr().unwrap().to_string()),
        ..Default::default()
    };
    let client = Client::new(config).unwrap();
    let client = client.transaction_checker("t5-transaction", |_| async { Resolution::Unknown });
    async fn fail_at_first(delivery: Delivery) -> Result<(), AnyError> {
        if delivery.attempt() == 1 {
            return Err(AnyError::msg("on purpose"));
        }
        Ok(())
    }
    async fn poison(_: Bytes) -> Result<(), AnyError> {
        Err(AnyError::msg("on purpose"))
    }
    async fn all(_: Batch<Bytes>) {}
    let server = Server::new(client.clone())
        .subscribe("t5", "t5-singles", fail_at_first)
        .subscribe_with(
            Subscription::new("t5", "t5-poison").classify(|_: &AnyError| Disposition::Poison),
            poison,
        )
        .subscribe_batch(
            Subscription::new("t5", "t5-batches"),
            BatchSettings::new(8),
            all,
        );
    let app = Running::start(App::new().resource(client.clone()).server(server));
    app.ready().await;
    let publisher = client.publisher();
    let message = |topic: &str| Message::new(topic, "x").tag("eu").key("a").key("b");
    let root = info_span!("root");
    async {
        publisher.publish(message("t5")).await.unwrap();
        let delayed = message("t5-delay").delay(Duration::from_secs(1));
        publisher.publish(delayed).await.unwrap();
        publisher
            .publish(message("t5-fifo").group("g"))
            .await
            .unwrap();
        let open = |_| async { Resolution::Rollback };
        publisher
            .transaction(message("t5-transaction"), open)
            .await
            .unwrap();
    }
    .instrument(root)
    .await;
    let ends = ["ack t5", "nack t5", "dead_letter t5"];
    let settled = || {
        let spans = recorder.spans();
        let acks = spans.iter().filter(|span| span.name == "ack t5").count();
        acks == 2
            && ends
                .iter()
                .all(|name| spans.iter().any(|span| span.name == *name))
    };
    eventually("all is settled", settled).await;
    app.handle.stop();
    app.ended().await.0.unwrap();

    let spans = recorder.spans();
    let one = |name: &str, group: Option<&str>| -> RecordedSpan {
        let mut named = spans.iter().filter(|span| span.name == name);
        let of_group = |span: &&RecordedSpan| {
            group.is_none() || span.attribute("messaging.consumer.group.name") == group
        };
        let span = named.find(of_group);
        span.unwrap_or_else(|| panic!("no {name} of {group:?}:\n{}", tree(&spans)))
            .clone()
    };
    let send = [
        &EVERY[..],
        &OF_A_MESSAGE,
        &["messaging.rocketmq.message.type"],
    ]
    .concat();
    for (topic, kind, more) in [
        ("t5", "normal", None),
        (
            "t5-delay",
            "delay",
            Some("messaging.rocketmq.message.delivery_timestamp"),
        ),
        ("t5-fifo", "fifo", Some("messaging.rocketmq.message.group")),
        ("t5-transaction", "transaction", None),
    ] {
        let span = one(&format!("send {topic}"), None);
        let has: Vec<_> = send.iter().copied().chain(more).collect();
        assert_attributes(&span, &has);
        let seen = span.attribute("messaging.rocketmq.message.type");
        assert_eq!((span.kind, seen), ("PRODUCER", Some(kind)));
    }
    let sent = one("send t5", None);
    assert_eq!(
        sent.attribute("messaging.rocketmq.message.keys"),
        Some("[\"a\",\"b\"]")
    );
    assert_eq!(sent.attribute("messaging.system"), Some("rocketmq"));

    let consumer = [&EVERY[..], &OF_A_CONSUMER].concat();
    let partition = "messaging.destination.partition.id";
    let process = [
        &consumer[..],
        &OF_A_MESSAGE,
        &[partition, "messaging.delivery.attempt"],
    ]
    .concat();
    let failed = [&process[..], &["error.type"]].concat();
    assert_attributes(&one("process t5", Some("t5-singles")), &failed);
    let given_up = [&failed[..], &["dead_letter.reason"]].concat();
    assert_attributes(&one("process t5", Some("t5-poison")), &given_up);
    let batch = [&consumer[..], &["messaging.batch.message_count"]].concat();
    assert_attributes(&one("process t5", Some("t5-batches")), &batch);
    assert_attributes(&one("receive t5", Some("t5-batches")), &batch);
    let settle = [&consumer[..], &["messaging.message.id", partition]].concat();
    for (name, group) in [
        ("ack t5", "t5-singles"),
        ("nack t5", "t5-singles"),
        ("dead_letter t5", "t5-poison"),
    ] {
        let span = one(name, Some(group));
        assert_attributes(&span, &settle);
        assert_eq!(
            (span.kind, span.attribute("messaging.operation.type")),
            ("CLIENT", Some("settle"))
        );
    }
    assert_attributes(&one("ack t5", Some("t5-batches")), &batch);
    for (name, type_of) in [
        ("process t5", "process"),
        ("receive t5", "receive"),
        ("send t5", "send"),
    ] {
        assert_eq!(
            one(name, None).attribute("messaging.operation.type"),
            Some(type_of)
        );
    }
}

/// M1: names, units and attributes, as Prometheus sees them.
#[tokio::test]
async fn m1_metrics_have_the_names_units_and_attributes_of_the_conventions() {
    let builder = Telemetry::builder(&telemetry::Config::default()).unwrap();
    let (telemetry, _dispatch) = builder.writer(std::io::sink).build();
    opentelemetry::global::set_meter_provider(telemetry.meter_provider());
    kratos::metrics::enable();
    let site = Reports::start(memory::Broker::new(), TOPIC, GROUP, App::new()).await;
    site.post("").await;
    let handled = format!(
        "messaging_process_duration_seconds_count{{messaging_consumer_group_name=\"{GROUP}\""
    );
    // Servers count a call when its answer is gone, which the caller may have seen before.
    let counted = [
        &handled,
        "messaging_operation_name=\"ack\"",
        "http_server_request_duration_seconds_count{",
        "rpc_server_call_duration_seconds_count{",
        "rpc_client_call_duration_seconds_count{",
    ];
    eventually("it is counted", || {
        let text = telemetry.prometheus();
        counted.iter().all(|name| text.contains(name))
    })
    .await;
    let text = telemetry.prometheus();
    site.stop().await;

    let system = "messaging_system=\"memory\"";
    let topic = "messaging_destination_name=\"logger_report_event\"";
    let group = "messaging_consumer_group_name=\"logger-saver\"";
    for (name, labels) in [
        (
            "messaging_client_sent_messages_total",
            vec!["messaging_operation_name=\"send\"", system, topic],
        ),
        (
            "messaging_client_consumed_messages_total",
            vec!["messaging_operation_name=\"process\"", system, topic, group],
        ),
        (
            "messaging_client_operation_duration_seconds_count",
            vec!["messaging_operation_name=\"send\"", system, topic],
        ),
        (
            "messaging_client_operation_duration_seconds_count",
            vec!["messaging_operation_name=\"receive\"", system, topic, group],
        ),
        (
            "messaging_client_operation_duration_seconds_count",
            vec![
                "messaging_operation_name=\"ack\"",
                "messaging_operation_type=\"settle\"",
                system,
                topic,
                group,
            ],
        ),
        (
            "messaging_process_duration_seconds_bucket",
            vec!["le=\"0.005\"", system, topic, group],
        ),
        (
            "messaging_process_duration_seconds_bucket",
            vec!["le=\"7.5\"", system, topic, group],
        ),
        (
            "kratos_message_queue_duration_seconds_count",
            vec![system, topic, group],
        ),
        (
            "http_server_request_duration_seconds_count",
            vec![
                "http_route=\"/agent/v1/report\"",
                "http_request_method=\"POST\"",
                "http_response_status_code=\"200\"",
            ],
        ),
        (
            "rpc_server_call_duration_seconds_count",
            vec![
                "rpc_method=\"report.v1.ReportService/PostReport\"",
                "rpc_response_status_code=\"OK\"",
            ],
        ),
        (
            "rpc_client_call_duration_seconds_count",
            vec![
                "rpc_method=\"report.v1.ReportService/PostReport\"",
                "rpc_response_status_code=\"OK\"",
                "rpc_system_name=\"grpc\"",
                "server_address=\"127.0.0.1\"",
            ],
        ),
        (
            "kratos_subscription_in_flight",
            vec![topic, group, "kratos_subscription_filter=\"*\""],
        ),
        ("kratos_subscription_lanes", vec![topic, group]),
        ("kratos_subscription_waiting", vec![topic, group]),
        (
            "kratos_subscription_oldest_held_seconds",
            vec![topic, group],
        ),
        ("kratos_subscription_handled_total", vec![topic, group]),
        ("kratos_subscription_leases_lost_total", vec![topic, group]),
        (
            "kratos_subscription_state",
            vec![topic, group, "state=\"running\""],
        ),
        ("kratos_app_phase", vec!["phase=\"ready\""]),
    ] {
        let found = text.lines().any(|line| {
            line.split('{').next() == Some(name) && labels.iter().all(|label| line.contains(label))
        });
        assert!(found, "no {name} {labels:?} in\n{text}");
    }
    // Nothing of a message or a client.
    for never in ["message_id", "order-7", "traceparent", "x-forwarded"] {
        assert!(!text.contains(never), "{never} in\n{text}");
    }
}
