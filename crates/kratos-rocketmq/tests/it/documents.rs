//! What documents say in RocketMQ's words, and what is asked before a start.

use std::time::Duration;

use kratos::{App, Resource as _, Server as _};
use kratos_broker::{AnyError, Bytes, DeadLetter, Json, Policy, Resolution};
use kratos_rocketmq::{Client, Config, Server, Subscription, TopicPublisher};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, Serialize, JsonSchema)]
struct Order {
    id: String,
}

async fn bill(Json(order): Json<Order>) -> Result<(), AnyError> {
    let _ = order.id;
    Ok(())
}

async fn raw(_: Bytes) {}

fn client(endpoints: &str) -> Client {
    let config = Config {
        endpoints: Some(endpoints.to_owned()),
        ..Config::default()
    };
    Client::new(config).unwrap()
}

/// The document of an App, as its admin server and its command line have it.
fn document(app: &App) -> Value {
    app.describe().document("asyncapi").unwrap()
}

#[tokio::test]
async fn the_document_has_what_only_rocketmq_knows() {
    let client =
        client("proxy.example:8081").transaction_checker("payments", async |_| Resolution::Unknown);
    let orders = TopicPublisher::json(client.publisher(), "orders")
        .key(|order: &Order| order.id.clone())
        .group(|order: &Order| order.id.clone())
        .tag("created")
        .schema();
    let payments: TopicPublisher<Order> = TopicPublisher::json(client.publisher(), "payments");
    let sql = Subscription::new("events", "audit")
        .sql("size > 3")
        .invisible_duration(Duration::from_secs(90))
        .policy(Policy::new().max_attempts(5))
        .dead_letter(DeadLetter::topic("events-dead"));
    let server = Server::new(client.clone())
        .subscribe_with(Subscription::new("orders", "billing").fifo(), bill)
        .subscribe_with(sql, raw)
        .subscribe_with(
            Subscription::new("config", "reload")
                .broadcast()
                .tags(["b", "a"]),
            raw,
        );
    let app = App::new()
        .name("shop")
        .version("1.0.0")
        .resource(client)
        .server(server);
    let document = document(&app);

    assert_eq!(
        document["servers"]["rocketmq"],
        json!({ "host": "proxy.example:8081", "protocol": "rocketmq" })
    );
    let of = |operation: &str| document["operations"][operation]["x-rocketmq"].clone();
    assert_eq!(
        of("receive_orders_billing"),
        json!({
            "consumerGroup": "billing",
            "consumptionModel": "clustering",
            "filter": { "type": "TAG", "expression": "*" },
            "maxAttempts": 3,
            "invisibleDurationSeconds": 30.0,
            "deadLetter": "%DLQ%billing",
        })
    );
    assert_eq!(
        of("receive_events_audit"),
        json!({
            "consumerGroup": "audit",
            "consumptionModel": "clustering",
            "filter": { "type": "SQL92", "expression": "size > 3" },
            "maxAttempts": 5,
            "invisibleDurationSeconds": 90.0,
        })
    );
    assert_eq!(
        of("receive_config_reload")["consumptionModel"],
        "broadcasting"
    );
    assert_eq!(
        of("receive_config_reload")["filter"]["expression"],
        "a || b"
    );
    let sent = json!({ "tag": "created", "keys": true, "messageGroup": true });
    assert_eq!(of("send_orders"), sent);
    let channel = |topic: &str| document["channels"][topic]["x-rocketmq"].clone();
    assert_eq!(channel("orders"), json!({ "topicType": "FIFO" }));
    assert_eq!(channel("payments"), json!({ "topicType": "TRANSACTION" }));
    assert_eq!(channel("events"), Value::Null);
    // Resource and server write of the same topic and type: each is there once.
    assert_eq!(document["channels"].as_object().unwrap().len(), 5);
    let messages = document["components"]["messages"].as_object().unwrap();
    assert_eq!(
        messages.keys().collect::<Vec<_>>(),
        ["Message", "Message_DeadLetter", "Order"]
    );

    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("asyncapi");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("rocketmq.json"), document.to_string()).unwrap();
    drop((orders, payments));
}

#[test]
fn a_service_that_only_sends_is_documented_by_its_client() {
    let client = client("127.0.0.1:8081");
    let orders: TopicPublisher<Order> = TopicPublisher::json(client.publisher(), "orders").schema();
    let document = document(&App::new().resource(client));
    assert_eq!(document["operations"]["send_orders"]["action"], "send");
    assert!(document["components"]["schemas"]["Order"].is_object());
    drop(orders);
}

/// Name and answer of each check of the client and of a server on it.
async fn asked(
    client: &Client,
    subscription: Subscription,
) -> Vec<(String, Result<String, String>)> {
    let server = Server::new(client.clone()).subscribe_with(subscription, raw);
    let (client, server) = (client.describe(), server.describe());
    let mut answers = Vec::new();
    for check in client.checks().iter().chain(server.checks()) {
        let answer = check.ask().await;
        let answer = answer.map_err(|it| format!("{} / {}", it.wrong, it.remedy));
        answers.push((check.name().to_owned(), answer));
    }
    answers
}

fn strict() -> DevBroker {
    DevBroker::builder().strict(true).in_memory().unwrap()
}

#[tokio::test]
async fn what_is_missing_is_found_with_the_command_that_makes_it() {
    let broker = strict();
    let client = Client::of(broker.clone()).publishes(["bills"]);
    let answers = asked(&client, Subscription::new("orders", "billing")).await;
    assert!(answers[0].1.is_ok(), "{answers:?}");
    for (answer, topic) in [(&answers[1], "bills"), (&answers[2], "orders")] {
        let wrong = answer.1.as_ref().unwrap_err();
        let make = format!("create it: rocketmq-admin topic create {topic}:NORMAL");
        assert!(wrong.contains(&make), "{wrong}");
    }
    broker.create_topic("bills", TopicType::Normal).unwrap();
    broker.create_topic("orders", TopicType::Normal).unwrap();
    let answers = asked(&client, Subscription::new("orders", "billing")).await;
    assert_eq!(answers[1].1.as_deref(), Ok("NORMAL"));
    let wrong = answers[2].1.as_ref().unwrap_err();
    assert!(
        wrong.contains("create it: rocketmq-admin group create billing"),
        "{wrong}"
    );

    broker
        .create_group("billing", GroupConfig::new().retry_max_times(4))
        .unwrap();
    let answers = asked(&client, Subscription::new("orders", "billing")).await;
    assert_eq!(
        answers[2],
        (
            "group billing of orders".to_owned(),
            Ok("5 attempts".to_owned())
        )
    );
}

#[tokio::test]
async fn a_group_of_another_kind_and_a_topic_of_another_type_are_found() {
    let broker = strict();
    broker
        .create_topic("payments", TopicType::Transaction)
        .unwrap();
    broker.create_topic("orders", TopicType::Normal).unwrap();
    broker.create_group("billing", GroupConfig::new()).unwrap();
    let client = Client::of(broker).publishes(["payments"]);
    let answers = asked(&client, Subscription::new("orders", "billing").fifo()).await;
    let wrong = answers[1].1.as_ref().unwrap_err();
    assert!(
        wrong.contains("name a checker with Client::transaction_checker"),
        "{wrong}"
    );
    let wrong = answers[2].1.as_ref().unwrap_err();
    assert!(wrong.contains("does not consume in order"), "{wrong}");
}

#[tokio::test]
async fn a_broker_that_is_away_is_named() {
    let client = client("127.0.0.1:1");
    let answers = asked(&client, Subscription::new("orders", "billing")).await;
    assert!(answers.iter().all(|(_, answer)| answer.is_err()));
    let wrong = answers[0].1.as_ref().unwrap_err();
    assert!(wrong.contains("start the proxy at 127.0.0.1:1"), "{wrong}");
}
