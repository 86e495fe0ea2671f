use std::time::Duration;

use rocketmq_grpc::{Message, ProducerConfig};
use rocketmq_proto::v2::{self as pb, Code, telemetry_command::Command};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, GROUP, TOPIC, consumer_config, eventually, message, route, status};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn settings_are_sent_before_anything_else_and_name_group_and_topics() {
    let fake = Fake::start();
    let _consumer = fake.consumer().await;
    let state = fake.state();
    assert_eq!(state.seen.calls[..2], ["route", "telemetry"]);
    let settings = &state.seen.settings[0];
    assert_eq!(
        settings.client_type,
        Some(pb::ClientType::PushConsumer.into())
    );
    let Some(pb::settings::PubSub::Subscription(subscription)) = &settings.pub_sub else {
        panic!("{settings:?}");
    };
    assert_eq!(subscription.group.as_ref().unwrap().name, GROUP);
    assert_eq!(
        subscription.subscriptions[0].topic.as_ref().unwrap().name,
        TOPIC
    );
}

#[tokio::test(start_paused = true)]
async fn refused_settings_fail_the_start_with_a_typed_error() {
    let fake = Fake::start();
    fake.state().refusals = [Status::invalid_argument(format!(
        "group not found: {GROUP}"
    ))]
    .into();
    let error = fake.client().consumer(consumer_config()).await.unwrap_err();
    assert!(
        error.is_unknown_group() && !error.is_retryable(),
        "{error:?}"
    );
    fake.state().refusals = [Status::invalid_argument("client properties")].into();
    let error = fake.client().consumer(consumer_config()).await.unwrap_err();
    assert!(
        !error.is_unknown_group() && !error.is_retryable(),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_fails_the_start_with_its_endpoint() {
    let fake = Fake::start();
    fake.link.refuse(true);
    let error = fake.client().consumer(consumer_config()).await.unwrap_err();
    assert!(
        error.is_disconnected() && error.is_retryable() && !error.may_be_stored(),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("cannot connect to fake:1"),
        "{error}"
    );
    fake.link.refuse(false);
    fake.consumer().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_the_settings_fails_the_start_in_bounded_time() {
    let fake = Fake::start();
    let client = fake.client();
    fake.consumer().await;
    fake.link.freeze();
    let start = Instant::now();
    let other = fake.client();
    drop(client);
    fake.state().delay = Duration::from_secs(3600);
    let error = other.consumer(consumer_config()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_broken_telemetry_stream_is_opened_again_with_the_settings() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.break_telemetry();
    eventually("the consumer notices", || !consumer.is_connected()).await;
    eventually("the stream is back", || consumer.is_connected()).await;
    assert_eq!(fake.state().seen.settings.len(), 2);
    fake.push(vec![message("1")]);
    let leases = consumer.receive(TOPIC, 1).await.unwrap();
    assert_eq!(leases[0].message().id, "1");
}

#[tokio::test(start_paused = true)]
async fn a_group_deleted_at_run_time_is_told_to_the_receiver_and_not_asked_for_in_a_hot_loop() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let refusal = || Status::invalid_argument("group not found: billing");
    fake.state().refusals = (0..1000).map(|_| refusal()).collect();
    fake.break_telemetry();
    let error = consumer.receive(TOPIC, 1).await.unwrap_err();
    assert!(error.is_unknown_group(), "{error:?}");
    let before = fake.calls("telemetry");
    tokio::time::sleep(10 * MINUTE).await;
    let streams = fake.calls("telemetry") - before;
    assert!(
        (10..60).contains(&streams),
        "{streams} streams in ten minutes"
    );
    fake.state().refusals.clear();
    fake.push(vec![message("1")]);
    eventually("the group is back", || consumer.is_connected()).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_forgot_the_client_gets_its_settings_again() {
    let fake = Fake::start();
    let producer = fake
        .client()
        .producer(ProducerConfig::new().topic(TOPIC))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let forgotten = || status(Code::UnrecognizedClientType);
    fake.state().sends = [Ok(pb::SendMessageResponse {
        status: forgotten(),
        entries: vec![],
    })]
    .into();
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
    eventually("settings", || fake.state().seen.settings.len() == 2).await;

    fake.state().heartbeats = [Ok(pb::HeartbeatResponse {
        status: forgotten(),
    })]
    .into();
    eventually("settings after a heartbeat", || {
        fake.state().seen.settings.len() == 3
    })
    .await;
    assert_eq!(fake.calls("telemetry"), 1, "on the same stream");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_joins_is_told_to_the_server_at_once() {
    let fake = Fake::start();
    let producer = fake.client().producer(ProducerConfig::new()).await.unwrap();
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
    let state = fake.state();
    let Some(pb::settings::PubSub::Publishing(publishing)) = &state.seen.settings[0].pub_sub else {
        panic!("no publishing settings");
    };
    assert_eq!(publishing.topics[0].name, TOPIC);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_joins_later_is_acknowledged_by_the_server_before_its_first_message() {
    let fake = Fake::start();
    let config = ProducerConfig::new().topic(TOPIC);
    let producer = fake.client().producer(config).await.unwrap();
    fake.state().delay = Duration::from_millis(200);
    for late in ["late", "later"] {
        fake.state().routes = [route(Code::Ok, &["fake"])].into();
        producer.send(Message::new(late, "x")).await.unwrap();
        let mut state = fake.state();
        let Some(pb::settings::PubSub::Publishing(it)) =
            &state.seen.settings.last().unwrap().pub_sub
        else {
            panic!("no publishing settings");
        };
        assert!(it.topics.iter().any(|it| it.name == late), "{it:?}");
        let calls = std::mem::take(&mut state.seen.calls);
        let calls: Vec<_> = calls.into_iter().filter(|it| *it != "heartbeat").collect();
        assert!(calls.ends_with(&["route", "settings", "send"]), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_replaced_when_heartbeats_stay_unanswered() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let frozen_at = Instant::now();
    fake.link.freeze();
    eventually("a second connection", || fake.link.connections() == 2).await;
    assert!(
        frozen_at.elapsed() < Duration::from_secs(20),
        "{:?}",
        frozen_at.elapsed()
    );
    fake.push(vec![message("1")]);
    let leases = tokio::time::timeout(MINUTE, consumer.receive(TOPIC, 1))
        .await
        .unwrap()
        .unwrap();
    consumer
        .ack(leases.into_iter().next().unwrap())
        .await
        .unwrap();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(fake.link.connections(), 2, "the new one is left alone");
}

#[tokio::test(start_paused = true)]
async fn the_server_may_ask_to_connect_anew() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let nonce = String::new();
    fake.command(&Command::ReconnectEndpointsCommand(
        pb::ReconnectEndpointsCommand { nonce },
    ));
    eventually("a second connection", || fake.link.connections() == 2).await;
    eventually("the session", || consumer.is_connected()).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_is_survived_by_senders_and_receivers() {
    let fake = Fake::start();
    let client = fake.client();
    let producer = client
        .producer(ProducerConfig::new().topic(TOPIC))
        .await
        .unwrap();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    let receiving = tokio::spawn(async move { consumer.receive(TOPIC, 1).await });
    tokio::time::sleep(Duration::from_secs(1)).await;

    fake.link.refuse(true);
    fake.link.cut();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(error.is_disconnected() && error.is_retryable(), "{error:?}");
    let attempts = fake.link.connections();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(fake.link.connections(), attempts);

    fake.link.refuse(false);
    fake.push(vec![message("1")]);
    let received = tokio::time::timeout(MINUTE, receiving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(received[0].message().id, "1");
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_answers_that_it_is() {
    let fake = Fake::start();
    let client = fake.client();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    client.close(Instant::now() + Duration::from_secs(5)).await;
    assert!(consumer.receive(TOPIC, 1).await.unwrap_err().is_closed());
    assert!(
        client
            .clone()
            .producer(ProducerConfig::new())
            .await
            .unwrap_err()
            .is_closed()
    );
    assert_eq!(fake.calls("termination"), 1);
}
