//! The telemetry stream, heartbeats, and unknown names.

use std::time::Duration;

use rocketmq_devbroker::{Backoff, Code, DevBroker, GroupConfig, TopicType};
use rocketmq_proto::v2::{retry_policy::Strategy, settings::PubSub};

use crate::{
    client::{Client, code, message, wire},
    eventually,
};

#[tokio::test(start_paused = true)]
async fn a_producer_is_told_its_limits_and_back_off() {
    let broker = DevBroker::start().await;
    let settings = Client::embedded(&broker, "p").await.produce("t").await;
    let policy = settings.backoff_policy.unwrap();
    assert_eq!(policy.max_attempts, 3);
    let Some(Strategy::ExponentialBackoff(backoff)) = policy.strategy else {
        panic!()
    };
    assert_eq!(backoff.initial, wire(Duration::from_millis(10)));
    assert_eq!(backoff.max, wire(Duration::from_secs(1)));
    let Some(PubSub::Publishing(publishing)) = settings.pub_sub else {
        panic!()
    };
    assert_eq!(publishing.max_body_size, 4 << 20);
    assert!(publishing.validate_message_type);
    assert_eq!(publishing.topics.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_is_told_the_settings_of_its_group() {
    let waits = vec![Duration::from_secs(1), Duration::from_secs(3)];
    let group = GroupConfig::new()
        .fifo(true)
        .retry_max_times(2)
        .backoff(Backoff::Customized(waits));
    let broker = DevBroker::builder().group("g", group).in_memory().unwrap();
    let mut client = Client::embedded(&broker, "c").await;
    let settings = client.consume("t", "g").await.unwrap();
    let policy = settings.backoff_policy.unwrap();
    assert_eq!(policy.max_attempts, 3);
    let Some(Strategy::CustomizedBackoff(backoff)) = policy.strategy else {
        panic!()
    };
    assert_eq!(backoff.next.len(), 2);
    let Some(PubSub::Subscription(subscription)) = settings.pub_sub else {
        panic!()
    };
    assert_eq!(subscription.fifo, Some(true));
    assert_eq!(subscription.receive_batch_size, Some(32));
    assert_eq!(
        subscription.long_polling_timeout,
        wire(Duration::from_secs(20))
    );
    let settings = client.consume("t", "default").await.unwrap();
    assert_eq!(settings.backoff_policy.unwrap().max_attempts, 17);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_group_ends_the_telemetry_stream_of_a_strict_broker() {
    let broker = DevBroker::builder()
        .strict(true)
        .topic("t", TopicType::Normal)
        .in_memory()
        .unwrap();
    let mut client = Client::embedded(&broker, "c").await;
    let status = client.consume("t", "nosuch").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(
        status.message().contains("group not found: nosuch"),
        "{}",
        status.message()
    );
    broker.create_group("nosuch", GroupConfig::new()).unwrap();
    client.consume("t", "nosuch").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unknown_topic_is_not_found_on_a_strict_broker() {
    let broker = DevBroker::builder().strict(true).in_memory().unwrap();
    let client = Client::embedded(&broker, "c").await;
    assert_eq!(
        code(client.route("nosuch").await.status.as_ref()),
        Code::TopicNotFound
    );
    let sent = client.send(vec![message("nosuch", "ID-1")]).await;
    assert_eq!(
        code(sent.status.as_ref()),
        Code::MessagePropertyConflictWithType
    );
    broker.create_topic("nosuch", TopicType::Normal).unwrap();
    assert_eq!(code(client.route("nosuch").await.status.as_ref()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn unknown_topics_and_groups_are_created_otherwise() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    let route = client.route("new").await;
    assert_eq!(route.message_queues.len(), 4);
    assert_eq!(route.message_queues[0].accept_message_types, [1, 2, 3, 4]);
    client.consume("new", "new").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn settings_without_a_role_are_refused() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    let status = client
        .settings(rocketmq_proto::v2::Settings::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_without_settings_is_of_an_unrecognized_client() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    let status = client.heartbeat(Some("g")).await;
    assert_eq!(status.code, i32::from(Code::UnrecognizedClientType));
    let received = client.receive("t", "g").await;
    assert_eq!(received.code, i32::from(Code::InternalServerError));
    client.consume("t", "g").await.unwrap();
    assert_eq!(client.heartbeat(Some("g")).await.code, i32::from(Code::Ok));
    assert_eq!(client.terminate().await, Code::Ok);
    assert_eq!(
        client.heartbeat(None).await.code,
        i32::from(Code::UnrecognizedClientType)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_is_connected_while_its_stream_is_open() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    let connected = broker.connected_clients();
    assert_eq!(connected.len(), 1);
    assert_eq!(connected[0].id, "c");
    assert_eq!(connected[0].group.as_deref(), Some("g"));
    assert_eq!(connected[0].topics, ["t"]);
    assert!(connected[0].is_push_consumer);
    client.leave_telemetry();
    eventually(|| broker.connected_clients().is_empty()).await;
}
