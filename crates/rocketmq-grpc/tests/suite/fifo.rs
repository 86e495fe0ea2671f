//! Messages in order within their message group.

use futures_util::future::join_all;
use rocketmq_grpc::{Message, MessageView};
use tokio::time::Instant;

use crate::{
    listener::{assert_each_once, bodies, take, take_long, take_one},
    site::{CLOCKS, Group, Kind, LEASE, Site, send_each},
};

/// The n-th message, of `groups` message groups in turn.
pub(crate) fn ordered(topic: &str, n: usize, groups: usize) -> Message {
    Message::new(topic, format!("{n:03}")).group(format!("g{}", n % groups))
}

pub(crate) fn assert_in_order(got: &[MessageView], groups: usize) {
    for group in 0..groups {
        let name = format!("g{group}");
        let of_group = got.iter().filter(|it| it.group.as_ref() == Some(&name));
        let of_group: Vec<_> = bodies(&of_group.cloned().collect::<Vec<_>>());
        assert!(!of_group.is_empty(), "nothing of {name}");
        assert!(of_group.is_sorted(), "{name}: {of_group:?}");
    }
}

/// OrderMessageTest.testOrder_Send_PushConsumeOrderly; Go: TestFiFOMsg
#[tokio::test]
async fn a_push_consumer_keeps_the_order_of_each_message_group() {
    const COUNT: usize = 100;
    let (site, topic, group) = Site::with(Kind::Fifo, Group::ORDERLY).await;
    let listener = site.listen(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, (0..COUNT).map(|n| ordered(&topic, n, 2))).await;
    listener.wait_for(COUNT).await;
    let got = listener.stop().await;
    assert_each_once(&got, &sent);
    assert_in_order(&got, 2);
}

/// SimpleOrderTest.testFIFO_simple_receive_ack
#[tokio::test]
async fn a_simple_consumer_that_acknowledges_gets_everything_in_order() {
    const COUNT: usize = 20;
    let (site, topic, group) = Site::with_one_queue(Kind::Fifo, Group::ORDERLY).await;
    let consumer = site.simple(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, (0..COUNT).map(|n| ordered(&topic, n, 1))).await;
    let mut got = Vec::new();
    for _ in 0..COUNT {
        got.push(take_one(&consumer).await);
    }
    assert_each_once(&got, &sent);
    assert_in_order(&got, 1);
}

/// SimpleOrderParamTest.testFIFO_simple_receive_nack
#[tokio::test]
async fn the_first_message_comes_again_until_it_is_acknowledged() {
    let (site, topic, group) = Site::with_one_queue(Kind::Fifo, Group::ORDERLY).await;
    let consumer = site.simple(&topic, &group).await;
    let producer = site.producer(&topic).await;
    send_each(&producer, (0..3).map(|n| ordered(&topic, n, 1))).await;
    let begun = Instant::now();
    let held = take(&consumer, 1).await;
    assert_eq!(held[0].message().body, "000");
    let again = take_long(&consumer, 1).await.remove(0);
    assert_eq!(again.message().body, "000");
    assert!(begun.elapsed() + CLOCKS > LEASE, "{:?}", begun.elapsed());
    consumer.ack(again).await.unwrap();
    assert_eq!(take_one(&consumer).await.body, "001");
    assert_eq!(take_one(&consumer).await.body, "002");
}

/// SimpleOrderParamTest.testFIFO_simple_receive_multi_nack
#[tokio::test]
async fn what_is_acknowledged_behind_an_unacknowledged_first_comes_again() {
    let (site, topic, group) = Site::with_one_queue(Kind::Fifo, Group::ORDERLY).await;
    let producer = site.producer(&topic).await;
    send_each(&producer, (0..3).map(|n| ordered(&topic, n, 1))).await;
    let consumer = site.simple(&topic, &group).await;
    let mut leases = take(&consumer, 3).await.into_iter();
    drop(leases.next());
    for result in join_all(leases.map(|it| consumer.ack(it))).await {
        assert!(result.unwrap_err().is_receipt_expired());
    }
    let again = take_long(&consumer, 3).await;
    let got: Vec<_> = again.iter().map(|it| it.message().clone()).collect();
    assert_eq!(bodies(&got), ["000", "001", "002"]);
    for result in join_all(again.into_iter().map(|it| consumer.ack(it))).await {
        result.unwrap();
    }
}
