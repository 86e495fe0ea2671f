//! What a producer and a consumer need to start, and how a start fails.

use std::convert::Infallible;

use rocketmq_grpc::{
    Client, Config, ConsumerConfig, Error, Filter, MessageView, ProducerConfig, PushConsumer,
    SimpleConsumerConfig,
};

use crate::{
    listener::{assert_each_once, take_one},
    site::{Group, Kind, Site, in_time, numbered, send_each, soon},
};

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";
const UNKNOWN: &str = "suite_nobody_made_it";

async fn push(client: &Client, config: ConsumerConfig) -> Result<PushConsumer, Error> {
    let handler = async |_: MessageView| Ok::<_, Infallible>(());
    in_time("an answer", PushConsumer::start(client, config, 1, handler)).await
}

fn nowhere() -> Client {
    Client::new(Config::new(NOBODY)).unwrap()
}

fn assert_nobody_there(error: &Error) {
    assert!(error.is_disconnected() && error.is_retryable(), "{error}");
    assert_eq!(error.endpoint(), Some(NOBODY), "{error}");
}

// === push consumer ===

/// PushConsumerInitTest.testNormalSetting
#[tokio::test]
async fn a_push_consumer_starts_and_stops() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ConsumerConfig::new(group).subscribe(topic, Filter::all());
    let consumer = push(&site.client, config).await.unwrap();
    assert!(consumer.consumer().is_connected());
    consumer.stop(soon()).await.unwrap();
}

/// PushConsumerInitTest.testErrorNameserver
#[tokio::test]
async fn a_push_consumer_without_a_server_does_not_start() {
    let config = ConsumerConfig::new("g").subscribe("t", Filter::all());
    assert_nobody_there(&push(&nowhere(), config).await.unwrap_err());
}

/// PushConsumerInitTest.testErrorTopic
#[tokio::test]
async fn a_push_consumer_of_an_unknown_topic_does_not_start() {
    let (site, _, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ConsumerConfig::new(group).subscribe(UNKNOWN, Filter::all());
    let error = push(&site.client, config).await.unwrap_err();
    assert!(error.is_unknown_topic(), "{error}");
}

/// PushConsumerInitTest.testNoGroupId
#[tokio::test]
async fn a_push_consumer_without_a_group_does_not_start() {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ConsumerConfig::new("").subscribe(topic, Filter::all());
    assert!(push(&site.client, config).await.unwrap_err().is_invalid());
}

/// PushConsumerInitTest.testNoSubscription, testEmptySubscription
#[tokio::test]
async fn a_push_consumer_without_a_subscription_does_not_start() {
    let (site, _, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ConsumerConfig::new(group);
    assert!(push(&site.client, config).await.unwrap_err().is_invalid());
}

/// No handlers at a time are as no listener: PushConsumerInitTest.testNoListener
#[tokio::test]
async fn a_push_consumer_that_never_handles_does_not_start() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ConsumerConfig::new(group).subscribe(topic, Filter::all());
    let handler = async |_: MessageView| Ok::<_, Infallible>(());
    let started = PushConsumer::start(&site.client, config, 0, handler).await;
    assert!(started.unwrap_err().is_invalid());
}

/// ConsumerGroupTest.testSystemInnerConsumerGroup
#[tokio::test]
async fn a_group_of_the_servers_own_is_refused() {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ConsumerConfig::new("DEFAULT_CONSUMER").subscribe(topic, Filter::all());
    let error = push(&site.client, config).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

/// Every group must exist, see PushConsumerInitTest
#[tokio::test]
async fn a_consumer_of_an_unknown_group_does_not_start() {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ConsumerConfig::new(UNKNOWN).subscribe(topic, Filter::all());
    let error = push(&site.client, config).await.unwrap_err();
    assert!(error.is_unknown_group(), "{error}");
}

// === simple consumer; what it is asked for is in `simple` ===

/// SimpleConsumerInitTest.testNoConsumerGroup
#[tokio::test]
async fn a_simple_consumer_without_a_group_does_not_start() {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = SimpleConsumerConfig::new("").subscribe(topic, Filter::all());
    let started = site.client.simple_consumer(config).await;
    assert!(started.unwrap_err().is_invalid());
}

/// SimpleConsumerInitTest.testNoSubscription, testEmptySubscription
#[tokio::test]
async fn a_simple_consumer_without_a_subscription_does_not_start() {
    let (site, _, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let started = site
        .client
        .simple_consumer(SimpleConsumerConfig::new(group));
    assert!(started.await.unwrap_err().is_invalid());
}

// === producer ===

async fn starts_and_sends(config: impl FnOnce(&str) -> ProducerConfig) {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let producer = site.client.producer(config(&topic)).await.unwrap();
    let sent = send_each(&producer, numbered(&topic, 1)).await;
    let consumer = site.simple(&topic, &group).await;
    assert_each_once(&[take_one(&consumer).await], &sent);
    producer.close(soon()).await;
}

/// ProducerInitTest.testNormalSetting, testUnsetAK, testUnsetSK, testUnsetProperties: no
/// credentials where the server wants none
#[tokio::test]
async fn a_producer_starts_and_sends() {
    starts_and_sends(|topic| ProducerConfig::new().topic(topic)).await;
}

/// ProducerInitTest.testNoTopics
#[tokio::test]
async fn a_producer_needs_no_topic_to_start() {
    starts_and_sends(|_| ProducerConfig::new()).await;
}

/// ProducerInitTest.testErrorNameSrvAddr
#[tokio::test]
async fn a_producer_without_a_server_does_not_start() {
    let client = nowhere();
    let starting = client.producer(ProducerConfig::new().topic("t"));
    assert_nobody_there(&in_time("an answer", starting).await.unwrap_err());
}

/// ProducerInitTest.testSet0MaxAttempts (a number below zero cannot be written here)
#[tokio::test]
async fn a_producer_that_makes_no_attempt_does_not_start() {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ProducerConfig::new().topic(topic).attempts_max(0);
    let started = site.client.producer(config).await;
    assert!(started.unwrap_err().is_invalid());
}

/// ProducerInitTest.testSetNotExistTopic
#[tokio::test]
async fn a_producer_of_an_unknown_topic_does_not_start() {
    let site = Site::start().await;
    let config = ProducerConfig::new().topic(UNKNOWN);
    let error = site.client.producer(config).await.unwrap_err();
    assert!(error.is_unknown_topic(), "{error}");
}

/// ProducerInitTest.testSetTwoTopic
#[tokio::test]
async fn a_producer_of_two_topics_sends_to_both() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let other = site.topic(Kind::Normal, 1).await;
    let config = ProducerConfig::new().topic(&topic).topic(&other);
    let producer = site.client.producer(config).await.unwrap();
    for topic in [&topic, &other] {
        let sent = send_each(&producer, numbered(topic, 1)).await;
        let consumer = site.simple(topic, &group).await;
        assert_each_once(&[take_one(&consumer).await], &sent);
        consumer.close(soon()).await.unwrap();
    }
}

/// ProducerInitTest.testSetTwoTopicWithOneNotExist
#[tokio::test]
async fn a_producer_of_two_topics_of_which_one_is_unknown_does_not_start() {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = ProducerConfig::new().topic(topic).topic(UNKNOWN);
    let error = site.client.producer(config).await.unwrap_err();
    assert!(error.is_unknown_topic(), "{error}");
    assert!(error.to_string().contains(UNKNOWN), "{error}");
}

/// Clients issue 1305: what was closed stays connected. The dev broker alone tells who is.
#[cfg(not(feature = "real-server"))]
#[tokio::test]
async fn closed_producers_and_consumers_are_gone_from_the_server() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let consumer = site.simple(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let clients = || site.dev().unwrap().connected_clients();
    assert_eq!(clients().len(), 3);
    listener.stop().await;
    consumer.close(soon()).await.unwrap();
    producer.close(soon()).await;
    let gone = async {
        while !clients().is_empty() {
            tokio::time::sleep(crate::site::GLANCE).await;
        }
    };
    in_time("good-byes", gone).await;
}
