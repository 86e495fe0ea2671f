//! What a start says when something is missing: what, where, and what to do.

use std::time::Duration;

use kratos::{App, Server as _};
use kratos_broker::{Message, Policy, testing::start_context};
use kratos_rocketmq::{Client, Config, Server, Subscription};
use rocketmq_devbroker::{Code, DevBroker, GroupConfig, TopicType};

use crate::site::{GROUP, Gate, Running, Site, TOPIC};

async fn ignore() {}

async fn start_error(app: App) -> (String, Duration) {
    let (result, took) = Running::start(app).ended().await;
    (kratos::error_chain(&result.unwrap_err()).to_string(), took)
}

fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[tokio::test]
async fn a_broker_that_is_away_is_tried_until_the_start_timeout_and_named() {
    let start_timeout = Duration::from_secs(2);
    let config = Config {
        endpoints: Some("127.0.0.1:1".to_owned()),
        ..Config::default()
    };
    let client = Client::new(config).unwrap();
    let app = App::new().start_timeout(start_timeout).resource(client);
    let (error, took) = start_error(app).await;
    assert_says(&error, &["rocketmq", "127.0.0.1:1"]);
    // The last attempt is made shortly before the end.
    let least = start_timeout - Duration::from_millis(500);
    assert!(took >= least && took < start_timeout * 2, "{took:?}");
}

#[tokio::test]
async fn a_broker_that_comes_up_during_the_start_is_waited_for() {
    let (site, gate) = (Site::new(), Gate::new());
    site.broker.stop().await;
    let running = Running::start(site.app(&gate));
    tokio::time::sleep(Duration::from_millis(500)).await;
    site.broker.restart().await.unwrap();
    running.ready().await;
    running.signals.send();
    running.ended().await.0.unwrap();
}

#[tokio::test]
async fn an_unknown_topic_says_how_to_create_it() {
    let site = Site::new();
    let server = Server::new(site.client.clone()).subscribe("ordres", GROUP, ignore);
    let app = App::new().resource(site.client.clone()).server(server);
    let (error, took) = start_error(app).await;
    assert_says(&error, &["topic create ordres:NORMAL"]);
    assert!(
        took < Duration::from_secs(2),
        "it does not pass by itself: {took:?}"
    );
}

#[tokio::test]
async fn a_topic_that_a_restarting_broker_has_taken_along_is_waited_for() {
    let broker = DevBroker::builder()
        .strict(true)
        .group(GROUP, GroupConfig::new())
        .listen(([127, 0, 0, 1], 0))
        .start()
        .await
        .unwrap();
    let config = Config {
        endpoints: Some(broker.addr().unwrap().to_string()),
        ..Config::default()
    };
    let client = Client::new(config).unwrap().publishes([TOPIC]);
    let server = Server::new(client.clone()).subscribe(TOPIC, GROUP, ignore);
    let running = Running::start(App::new().resource(client).server(server));
    tokio::time::sleep(Duration::from_millis(500)).await;
    broker.create_topic(TOPIC, TopicType::Normal).unwrap();
    running.ready().await;
    running.signals.send();
    running.ended().await.0.unwrap();
}

#[tokio::test]
async fn an_unknown_topic_to_publish_to_is_found_at_start() {
    let site = Site::new();
    let client = Client::of(site.broker.clone()).publishes(["ordres"]);
    let (error, _) = start_error(App::new().resource(client)).await;
    assert_says(&error, &["topic create ordres:NORMAL"]);
}

#[tokio::test]
async fn an_unknown_group_says_how_to_create_it() {
    let site = Site::new();
    let server = Server::new(site.client.clone()).subscribe(TOPIC, "biling", ignore);
    let app = App::new().resource(site.client.clone()).server(server);
    let (error, took) = start_error(app).await;
    assert_says(&error, &["group create biling "]);
    assert!(
        took < Duration::from_secs(2),
        "it does not pass by itself: {took:?}"
    );
}

#[tokio::test]
async fn a_topic_of_the_wrong_type_says_which_it_should_be() {
    let broker = DevBroker::builder()
        .strict(true)
        .topic("steps", TopicType::Fifo)
        .group(GROUP, GroupConfig::new())
        .in_memory()
        .unwrap();
    let publisher = Client::of(broker).publisher();
    let error = publisher
        .publish(kratos_broker::Message::new("steps", "1"))
        .await
        .unwrap_err();
    assert!(error.is_wrong_topic_type());
    assert_says(
        &error.to_string(),
        &["takes no NORMAL", "topic create steps:"],
    );
}

#[tokio::test]
async fn a_group_that_consumes_in_order_is_refused_at_start() {
    let broker = DevBroker::builder()
        .strict(true)
        .topic(TOPIC, TopicType::Normal)
        .group(GROUP, GroupConfig::new().fifo(true))
        .in_memory()
        .unwrap();
    let client = Client::of(broker);
    let server = Server::new(client.clone()).subscribe(TOPIC, GROUP, ignore);
    let (error, _) = start_error(App::new().resource(client).server(server)).await;
    assert_says(&error, &[GROUP, "in order", "group create billing "]);
}

#[tokio::test]
async fn two_subscriptions_to_the_same_messages_are_refused_and_both_named() {
    let site = Site::new();
    let server = Server::new(site.client.clone())
        .subscribe(TOPIC, GROUP, ignore)
        .subscribe(TOPIC, GROUP, ignore);
    let app = App::new().resource(site.client.clone()).server(server);
    let (error, _) = start_error(app).await;
    assert_says(&error, &[TOPIC, GROUP, "two subscriptions"]);
}

#[tokio::test]
async fn more_attempts_than_the_group_has_are_refused_with_the_command_that_raises_them() {
    let broker = DevBroker::builder()
        .strict(true)
        .topic(TOPIC, TopicType::Normal)
        .group(GROUP, GroupConfig::new().retry_max_times(2))
        .in_memory()
        .unwrap();
    let client = Client::of(broker);
    let start = |policy| {
        let subscription = Subscription::new(TOPIC, GROUP).policy(policy);
        let server = Server::new(client.clone()).subscribe_with(subscription, ignore);
        server.bind(start_context())
    };
    let error = start(Policy::new().max_attempts(5)).await.unwrap_err();
    assert_says(
        &error.to_string(),
        &[
            "topic orders, group billing",
            "5 attempts",
            "has 3",
            "group create billing:retry=4 ",
        ],
    );
    start(Policy::new().max_attempts(3)).await.unwrap();
    start(Policy::new()).await.unwrap();
}

#[test]
fn missing_endpoints_name_the_key() {
    let error = Client::new(Config::default()).unwrap_err();
    assert_says(
        &error.to_string(),
        &["rocketmq.endpoints", "KRATOS_ROCKETMQ__ENDPOINTS"],
    );
}

#[tokio::test]
async fn a_failed_publish_says_whether_the_message_may_be_stored() {
    let config = Config {
        endpoints: Some("127.0.0.1:1".to_owned()),
        ..Config::default()
    };
    let away = Client::new(config).unwrap().publisher();
    let error = away.publish(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(error.is_transient() && !error.may_be_stored(), "{error}");

    let site = Site::new();
    let publisher = site.client.publisher();
    publisher.publish(Message::new(TOPIC, "x")).await.unwrap();
    site.broker
        .fail_sends_after_storing(16, Code::InternalError);
    let error = publisher
        .publish(Message::new(TOPIC, "x"))
        .await
        .unwrap_err();
    assert!(error.may_be_stored(), "{error}");
}
