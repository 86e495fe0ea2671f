//! Messages without order or delay.

use rocketmq_grpc::Message;

use crate::{
    listener::{assert_each_once, take_one},
    site::{Group, Kind, Site, numbered, send_at_once, send_each},
};

const COUNT: usize = 10;

/// NormalMessageTest.testNormal_Send_PushConsume
#[tokio::test]
async fn messages_sent_one_by_one_are_consumed_once() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let sent = send_each(&producer, numbered(&topic, COUNT)).await;
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
}

/// NormalMessageTest.testNormal_SendAsync_PushConsume
#[tokio::test]
async fn messages_sent_at_once_are_consumed_once() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let sent = send_at_once(&producer, numbered(&topic, COUNT)).await;
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
}

/// Go: TestNormalMsgWithMsgId, TestNormalMsgWithMsgIdAsync
#[tokio::test]
async fn the_id_is_the_same_before_the_send_in_the_receipt_and_at_the_consumer() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let message = Message::new(&topic, "x");
    let id = message.id().to_owned();
    let receipt = site.producer(&topic).await.send(message).await.unwrap();
    assert_eq!(receipt.message_id, id);
    assert_eq!(take_one(&consumer).await.id, id);
}

/// e2e-v4: BatchProducerTest
#[tokio::test]
async fn a_batch_is_consumed_message_by_message() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let batch = numbered(&topic, COUNT).collect();
    let receipts = producer.send_batch(batch).await.unwrap();
    let sent: Vec<_> = receipts.into_iter().map(|it| it.message_id).collect();
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
}
