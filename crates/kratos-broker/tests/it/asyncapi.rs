//! The document is what is consumed and sent, and nothing else.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use kratos::Server as _;
use kratos_broker::{
    Batch, BatchSettings, Bytes, DeadLetter, Delivery, Json, Policy, Protobuf, Publisher,
    Rejection, Router, Subscription, TopicPublisher, asyncapi, memory::Broker,
    testing::start_context,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::server;

#[derive(Deserialize, Serialize, JsonSchema)]
struct Order {
    id: String,
    lines: Vec<Line>,
    /// The order that this one replaces.
    before: Option<Box<Self>>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Line {
    article: u32,
    at: (f64, f64),
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "A page / of %")]
struct Page<T> {
    rows: Vec<T>,
}

mod elsewhere {
    /// Another type of the name.
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    pub(super) struct Order {
        pub(super) number: u64,
    }
}

#[derive(Clone, PartialEq, prost::Message, JsonSchema)]
struct Tick {
    #[prost(uint64, tag = "1")]
    at: u64,
}

async fn bill(Json(order): Json<Order>) {
    let _ = (order.id, order.before);
    for line in order.lines {
        let _ = (line.article, line.at);
    }
}

async fn page(Json(page): Json<Page<Order>>) {
    let _ = page.rows;
}

async fn other(Json(order): Json<elsewhere::Order>) {
    let _ = order.number;
}

async fn raw(_: Bytes) {}

async fn tick(_: Protobuf<Tick>) {}

async fn doubtful(_: Result<Json<Order>, Rejection>) {}

async fn many(_: Batch<Json<Order>>) {}

async fn nothing() {}

fn of(topic: &str, group: &str) -> Subscription {
    Subscription::new(topic, group)
}

fn document(broker: &Broker, router: &Router) -> Value {
    let document = asyncapi::document(broker, "memory", router.subscriptions());
    assert_references_resolve(&document, &document);
    document
}

fn assert_references_resolve(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                let found = document.pointer(to.trim_start_matches('#'));
                assert!(found.is_some(), "{to} leads nowhere");
            }
            for part in fields.values() {
                assert_references_resolve(document, part);
            }
        }
        Value::Array(parts) => {
            for part in parts {
                assert_references_resolve(document, part);
            }
        }
        _ => {}
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Where `.ci/documents` finds it, to ask the official schemas.
fn keep(name: &str, mut document: Value) {
    document["asyncapi"] = "3.0.0".into();
    document["info"] = json!({ "title": name, "version": "1.0.0" });
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("asyncapi");
    fs::create_dir_all(&folder).unwrap();
    let text = serde_json::to_string_pretty(&document).unwrap();
    fs::write(folder.join(format!("{name}.json")), text).unwrap();
}

#[test]
fn a2_every_subscription_and_typed_publisher_appears() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    let orders = TopicPublisher::json(publisher.clone(), "orders")
        .key(|order: &Order| order.id.clone())
        .tag("created")
        .schema();
    let ticks: TopicPublisher<_, Tick> =
        TopicPublisher::protobuf(publisher, "ticks").group(|_| "g");
    let settings = BatchSettings::new(10);
    let router = Router::new()
        .subscribe_with(of("orders", "billing").schema::<Order>(), bill)
        .subscribe_with(of("orders", "tagged").tags(["a"]), bill)
        .subscribe_with(of("orders", "tagged").tags(["b"]), other)
        .subscribe_batch(of("orders", "statistics").schema::<Order>(), settings, many)
        .subscribe("%raw%", "audit", raw)
        .subscribe("%raw%", "bell", nothing)
        .subscribe_with(of("ticks", "clock").fifo().schema::<Tick>(), tick);
    let document = document(&broker, &router);

    let operations = [
        "receive__raw__audit",
        "receive__raw__bell",
        "receive_orders_billing",
        "receive_orders_statistics",
        "receive_orders_tagged",
        "receive_orders_tagged_2",
        "receive_ticks_clock",
        "send_orders",
        "send_ticks",
    ];
    assert_eq!(keys(&document["operations"]), BTreeSet::from(operations));
    let channels = &document["channels"];
    assert_eq!(keys(channels), ["_raw_", "orders", "ticks"].into());
    assert_eq!(channels["_raw_"]["address"], "%raw%");
    assert_eq!(
        document["servers"]["memory"],
        json!({ "host": "in-process", "protocol": "memory" })
    );
    for operation in document["operations"].as_object().unwrap().values() {
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        for message in operation["messages"].as_array().unwrap() {
            let message = message["$ref"].as_str().unwrap();
            assert!(
                message.starts_with(&format!("{channel}/messages/")),
                "{message}"
            );
        }
    }
    let messages = &document["components"]["messages"];
    assert_eq!(
        keys(messages),
        ["Message", "Order", "Order_2", "Tick"].into()
    );
    let order = &messages["Order"];
    assert_eq!(order["contentType"], "application/json");
    assert_eq!(order["payload"]["$ref"], "#/components/schemas/Order");
    // Without a schema: another type of the name.
    assert!(messages["Order_2"].get("payload").is_none());
    let summary = messages["Order_2"]["summary"].as_str().unwrap();
    assert!(summary.contains("elsewhere::Order"), "{summary}");
    assert_eq!(messages["Tick"]["contentType"], "application/protobuf");
    assert!(messages["Message"].get("contentType").is_none());
    // Who said nothing of the type has the schema of those who did.
    let operations = &document["operations"];
    for same in [
        "receive_orders_billing",
        "receive_orders_tagged",
        "receive_orders_statistics",
    ] {
        let messages = &operations[same]["messages"];
        assert_eq!(messages, &operations["send_orders"]["messages"], "{same}");
    }
    keep("everything", document);
    drop((orders, ticks));
}

#[test]
fn a2_the_schema_is_that_of_the_type_and_definitions_become_components() {
    let router = Router::new()
        .subscribe_with(of("pages", "g").schema::<Page<Order>>(), page)
        .subscribe_with(of("orders", "g").schema::<elsewhere::Order>(), other);
    let document = document(&Broker::new(), &router);
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        keys(schemas),
        ["A_page___of__", "Line", "MessageHeaders", "Order", "Order2"].into()
    );
    let payload = &document["components"]["messages"]["A_page___of__"]["payload"];
    assert_eq!(payload["$ref"], "#/components/schemas/A_page___of__");
    let rows = &schemas["A_page___of__"]["properties"]["rows"]["items"];
    assert_eq!(rows["$ref"], "#/components/schemas/Order");
    assert_eq!(schemas["Order"]["required"], json!(["id", "lines"]));
    assert_eq!(schemas["Order2"]["required"], json!(["number"]));
    // The words of draft 2020-12 are not those of AsyncAPI.
    let at = &schemas["Line"]["properties"]["at"];
    assert!(
        at["items"].is_array() && at.get("prefixItems").is_none(),
        "{at}"
    );
    let text = document.to_string();
    assert!(
        !text.contains("$defs") && !text.contains("$schema"),
        "{text}"
    );
    keep("schemas", document);
}

#[test]
fn a_schema_that_is_no_object_is_written_in_place() {
    async fn sum(_: Json<Vec<(u8, Line)>>) {}
    let router = Router::new().subscribe_with(of("t", "g").schema::<Vec<(u8, Line)>>(), sum);
    let document = document(&Broker::new(), &router);
    let message = &document["components"]["messages"]["Array_of_Tuple_of_uint8_and_Line"];
    let pair = &message["payload"]["items"]["items"];
    assert_eq!(pair[1]["$ref"], "#/components/schemas/Line", "{message}");
    keep("in-place", document);
}

#[test]
fn retries_and_dead_letters_are_told() {
    let minute = Duration::from_secs(60);
    let policy = Policy::new()
        .max_attempts(5)
        .in_process(2)
        .backoff(kratos_broker::Backoff::exponential(minute / 60, minute));
    let subscription = of("orders", "billing")
        .policy(policy)
        .dead_letter(DeadLetter::topic("dead"))
        .schema::<Order>();
    let router = Router::new()
        .subscribe_with(subscription, bill)
        .subscribe_with(of("ticks", "clock").fifo(), tick);
    let document = document(&Broker::new(), &router);
    let billing = &document["operations"]["receive_orders_billing"];
    let backoff = json!({
        "firstSeconds": 1.0, "maxSeconds": 60.0, "factor": 2.0, "jitter": 0.2,
    });
    assert_eq!(billing["x-retry"]["maxAttempts"], 5);
    assert_eq!(billing["x-retry"]["inProcess"], 2);
    assert_eq!(billing["x-retry"]["backoff"], backoff);
    assert_eq!(billing["x-retry"]["ordered"]["maxAttempts"], 3);
    assert_eq!(
        billing["x-dead-letter"],
        json!({ "by": "service", "topic": "dead" })
    );
    let clock = &document["operations"]["receive_ticks_clock"];
    assert_eq!(clock["x-retry"]["maxAttempts"], 3);
    assert_eq!(clock["x-retry"]["inProcess"], 2);
    assert_eq!(clock["x-dead-letter"], json!({ "by": "broker" }));
    // What the engine sends is sent.
    let bury = &document["operations"]["bury_orders_billing"];
    assert_eq!(bury["action"], "send");
    assert_eq!(bury["channel"]["$ref"], "#/channels/dead");
    let letter = &document["components"]["messages"]["Order_DeadLetter"];
    assert_eq!(letter["payload"]["$ref"], "#/components/schemas/Order");
    let headers = &document["components"]["schemas"]["DeadLetterHeaders"]["properties"];
    assert!(keys(headers).contains(DeadLetter::REASON) && keys(headers).contains("traceparent"));
    keep("failures", document);
}

#[test]
fn a_publisher_is_known_as_it_is_now_and_as_long_as_it_lives() {
    let broker = Broker::new();
    let sends = || {
        let document = document(&broker, &Router::new());
        let operations = document["operations"].as_object().unwrap();
        operations.keys().cloned().collect::<Vec<_>>()
    };
    let publisher = Publisher::new(broker.clone());
    for _ in 0..100 {
        let _gone: TopicPublisher<_, Order> = TopicPublisher::json(publisher.clone(), "gone");
    }
    assert!(sends().is_empty());
    let orders: TopicPublisher<_, Order> = TopicPublisher::json(publisher, "orders");
    let clone = orders.clone().tag("eu");
    assert_eq!(sends(), ["send_orders"], "nothing here says what a tag is");
    let documented = orders.schema();
    let operations = sends();
    assert_eq!(operations, ["send_orders"], "one type, one schema");
    drop(clone);
    assert_eq!(sends(), ["send_orders"]);
    drop(documented);
    assert!(sends().is_empty());
}

#[test]
fn a_type_of_the_service_may_be_called_as_ours() {
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "its schema is what counts")]
    struct MessageHeaders {
        mine: bool,
    }
    async fn take(_: Json<MessageHeaders>) {}
    let router = Router::new().subscribe_with(of("t", "g").schema::<MessageHeaders>(), take);
    let document = document(&Broker::new(), &router);
    let message = &document["components"]["messages"]["MessageHeaders"];
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        message["payload"]["$ref"],
        "#/components/schemas/MessageHeaders"
    );
    assert!(
        schemas["MessageHeaders"]["properties"]
            .get("mine")
            .is_some()
    );
    assert_eq!(
        message["headers"]["$ref"],
        "#/components/schemas/MessageHeaders_2"
    );
    keep("names", document);
}

#[tokio::test]
async fn a_schema_of_another_type_than_the_handler_takes_is_refused() {
    let refused = async |router: Router| {
        let bound = server(&Broker::new(), router).bind(start_context()).await;
        bound.expect_err("refused").to_string()
    };
    let ticks = of("orders", "billing").schema::<Tick>();
    let error = refused(Router::new().subscribe_with(ticks.clone(), bill)).await;
    assert_eq!(
        error,
        "subscription topic orders, group billing, filter *: its handler takes \
         it::asyncapi::Order, its schema is that of it::asyncapi::Tick: write \
         .schema::<it::asyncapi::Order>()"
    );
    refused(Router::new().subscribe_with(ticks.clone(), doubtful)).await;
    let settings = BatchSettings::new(10);
    refused(Router::new().subscribe_batch(ticks, settings, many)).await;
    // Of the same name.
    refused(Router::new().subscribe_with(of("t", "g").schema::<Order>(), other)).await;
}

#[tokio::test]
async fn a_schema_is_believed_where_the_handler_decodes_by_itself() {
    async fn whole(_: Delivery) {}
    let router = Router::new()
        .subscribe_with(of("t", "a").schema::<Order>(), raw)
        .subscribe_with(of("t", "b").schema::<Order>(), whole)
        .subscribe_with(of("t", "c").schema::<Order>(), doubtful);
    let document = document(&Broker::new(), &router);
    let message = &document["components"]["messages"]["Order"];
    assert_eq!(message["payload"]["$ref"], "#/components/schemas/Order");
    assert!(message.get("contentType").is_none());
    server(&Broker::new(), router)
        .bind(start_context())
        .await
        .unwrap();
}
