//! The simple consumer: receives, acknowledgements, leases.

use std::time::Duration;

use futures_util::future::join_all;
use rocketmq_grpc::{Filter, Lease, MessageView, SimpleConsumer, SimpleConsumerConfig};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    listener::{assert_each_once, take, take_long, take_one},
    site::{CLOCKS, Group, Kind, LEASE, PATIENCE, Site, in_time, numbered, send_each, soon},
};

fn views(leases: &[Lease]) -> Vec<MessageView> {
    leases.iter().map(|it| it.message().clone()).collect()
}

async fn ack_at_once(consumer: &SimpleConsumer, leases: Vec<Lease>) {
    for result in join_all(leases.into_iter().map(|it| consumer.ack(it))).await {
        result.unwrap();
    }
}

/// Messages are acknowledged, with so many receives and acknowledgements at the same time.
async fn acknowledged(receives: usize, acks_at_once: bool) {
    const COUNT: usize = 20;
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, numbered(&topic, COUNT)).await;
    let mut got = Vec::new();
    let all = async {
        while got.len() < COUNT {
            let asked = (0..receives).map(|_| consumer.receive(5, PATIENCE));
            for leases in join_all(asked).await {
                let leases = leases.unwrap();
                got.extend(views(&leases));
                if acks_at_once {
                    ack_at_once(&consumer, leases).await;
                } else {
                    for lease in leases {
                        consumer.ack(lease).await.unwrap();
                    }
                }
            }
        }
    };
    in_time("all messages", all).await;
    assert_each_once(&got, &sent);
}

/// SimpleAckTest.testNormal_simple_receive_ack
#[tokio::test]
async fn messages_are_received_and_acknowledged_in_turn() {
    acknowledged(1, false).await;
}

/// SimpleAckTest.testNormal_simple_receiveAsync_ack
#[tokio::test]
async fn messages_are_received_by_calls_at_once_and_acknowledged_in_turn() {
    acknowledged(3, false).await;
}

/// SimpleAckTest.testNormal_simple_receive_ackAsync
#[tokio::test]
async fn messages_are_received_in_turn_and_acknowledged_at_once() {
    acknowledged(1, true).await;
}

/// SimpleAckTest.testNormal_simple_receiveAsync_ackAsync
#[tokio::test]
async fn messages_are_received_by_calls_at_once_and_acknowledged_at_once() {
    acknowledged(3, true).await;
}

/// SimpleParamTest.test_waitAckException_reReceive_ack
#[tokio::test]
async fn an_acknowledgement_after_the_lease_is_refused_and_the_next_delivery_can_be_acknowledged() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let sent = send_each(&site.producer(&topic).await, numbered(&topic, 1)).await;
    let late = take(&consumer, 1).await.remove(0);
    sleep_until(late.deadline() + Duration::from_secs(1)).await;
    assert!(consumer.ack(late).await.unwrap_err().is_receipt_expired());
    let again = take_one(&consumer).await;
    assert_eq!((&again.id, again.attempt), (&sent[0], 2));
}

/// SimpleParamTest.testNormal_simple_receive_maxsize_sync
#[tokio::test]
async fn a_receive_never_brings_more_than_asked_for_and_nothing_acknowledged_comes_again() {
    const COUNT: usize = 50;
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let sent = send_each(&site.producer(&topic).await, numbered(&topic, COUNT)).await;
    let mut got = Vec::new();
    let mut held = None;
    let all = async {
        while got.len() < COUNT {
            let mut leases = consumer.receive(32, LEASE).await.unwrap();
            assert!(leases.len() <= 32, "{} messages", leases.len());
            got.extend(views(&leases));
            if held.is_none() {
                held = leases.pop();
            }
            ack_at_once(&consumer, leases).await;
        }
    };
    in_time("all messages", all).await;
    assert_each_once(&got, &sent);
    // The one that was not acknowledged comes again when its lease is over, and by then would all
    // others.
    let held = held.unwrap().message().id.clone();
    assert_eq!(take_one(&consumer).await.id, held);
    assert_eq!(consumer.receive(32, LEASE).await.unwrap().len(), 0);
}

/// SimpleParamTest.testNormal_simple_receive_multi_nack
#[tokio::test]
async fn messages_that_nobody_acknowledges_all_come_again() {
    const COUNT: usize = 50;
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let sent = send_each(&site.producer(&topic).await, numbered(&topic, COUNT)).await;
    let first = take(&consumer, COUNT).await;
    assert_each_once(&views(&first), &sent);
    let again = take_long(&consumer, COUNT).await;
    assert_each_once(&views(&again), &sent);
    assert!(again.iter().all(|it| it.message().attempt == 2));
    ack_at_once(&consumer, again).await;
}

/// SimpleConsumerInitTest.testNormalSetting, testAwaitDuration (there 10 s)
#[tokio::test]
async fn a_receive_that_finds_nothing_ends_after_the_await_duration() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let begun = Instant::now();
    assert_eq!(consumer.receive(1, LEASE).await.unwrap().len(), 0);
    let (least, most) = (Duration::from_secs(5), Duration::from_secs(10));
    let took = begun.elapsed();
    assert!(took + CLOCKS > least && took < most, "{took:?}");
    consumer.close(soon()).await.unwrap();
}

/// SimpleConsumerInitTest.testAwaitDurationIs0s
#[tokio::test]
async fn an_await_duration_of_zero_is_a_receive_that_does_not_wait() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = SimpleConsumerConfig::new(group)
        .subscribe(&topic, Filter::all())
        .await_duration(Duration::ZERO);
    let consumer = site.client.simple_consumer(config).await.unwrap();
    let begun = Instant::now();
    assert_eq!(consumer.receive(1, LEASE).await.unwrap().len(), 0);
    assert!(begun.elapsed() < CLOCKS * 2, "{:?}", begun.elapsed());
    // Asked again and again it finds what there is.
    send_each(&site.producer(&topic).await, numbered(&topic, 1)).await;
    let found = async {
        loop {
            if let Some(lease) = consumer.receive(1, LEASE).await.unwrap().pop() {
                break lease;
            }
            sleep(CLOCKS / 10).await;
        }
    };
    let lease = in_time("the message", found).await;
    consumer.ack(lease).await.unwrap();
}

/// SimpleConsumerInitTest.testNoAwaitDuration (there an error; ours has a default of 20 s)
#[tokio::test]
async fn without_an_await_duration_a_receive_waits_for_its_message() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let config = SimpleConsumerConfig::new(group).subscribe(&topic, Filter::all());
    let consumer = site.client.simple_consumer(config).await.unwrap();
    let producer = site.producer(&topic).await;
    let late = async {
        sleep(CLOCKS * 2).await;
        send_each(&producer, numbered(&topic, 1)).await
    };
    let (received, sent) = tokio::join!(consumer.receive(1, LEASE), late);
    let mut received = received.unwrap();
    assert_each_once(&views(&received), &sent);
    consumer.ack(received.remove(0)).await.unwrap();
}

async fn refused(max: usize, invisible: Duration) {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let error = consumer.receive(max, invisible).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
    // It was the call's mistake: the consumer goes on.
    send_each(&site.producer(&topic).await, numbered(&topic, 1)).await;
    take_one(&consumer).await;
}

/// SimpleConsumerInitTest.testReceiveMaxMessageNumIs0
#[tokio::test]
async fn a_receive_of_no_message_is_refused() {
    refused(0, LEASE).await;
}

/// SimpleConsumerInitTest.testReceiveInvisibleDurationLess10000ms
#[tokio::test]
async fn a_lease_shorter_than_the_servers_bound_is_refused() {
    refused(1, LEASE - Duration::from_millis(1)).await;
}

/// SimpleConsumerInitTest.testReceiveInvisibleDurationMore43200000ms
#[tokio::test]
async fn a_lease_longer_than_half_a_day_is_refused() {
    refused(1, Duration::from_millis(43_200_001)).await;
}

/// SimpleConsumerInitTest.testReceiveMaxMessageNumMore100000
#[tokio::test]
async fn a_receive_of_very_many_messages_brings_what_there_is() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let sent = send_each(&site.producer(&topic).await, numbered(&topic, 1)).await;
    let leases = consumer.receive(100_000, LEASE).await.unwrap();
    assert_each_once(&views(&leases), &sent);
    ack_at_once(&consumer, leases).await;
}
