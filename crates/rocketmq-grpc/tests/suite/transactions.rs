//! Messages that come if their transaction was committed. Last on the real server: its broker keeps
//! a core busy from the first commit on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rocketmq_grpc::{Message, MessageView, Producer, ProducerConfig, Resolution};

use crate::{
    listener::{assert_each_once, bodies, take_one},
    message::{BODY_MAX, assert_too_large},
    site::{GLANCE, Group, Kind, Site, in_time, numbered},
};

const COUNT: usize = 10;

/// A producer whose checker answers by the message; how often it was asked.
async fn producer(
    site: &Site,
    topic: &str,
    answer: fn(&MessageView) -> Resolution,
) -> (Producer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let config = ProducerConfig::new()
        .topic(topic)
        .transaction_checker(move |message| {
            count.fetch_add(1, Ordering::Relaxed);
            async move { answer(&message) }
        });
    (site.client.producer(config).await.unwrap(), asked)
}

async fn end_all(
    producer: &Producer,
    messages: impl Iterator<Item = Message>,
    how: Resolution,
) -> Vec<String> {
    let mut ids = Vec::new();
    for message in messages {
        let ended = producer.transaction(message, async || how).await.unwrap();
        assert!(ended.unconfirmed.is_none(), "{ended:?}");
        ids.push(ended.message.message_id);
    }
    ids
}

/// TransactionMessageTest.testTrans_SendCommit_PushConsume; Go: TestTransactionMsg
#[tokio::test]
async fn committed_messages_are_consumed_once() {
    let (site, topic, group) = Site::with(Kind::Transaction, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let (producer, _) = producer(&site, &topic, |_| Resolution::Unknown).await;
    let sent = end_all(&producer, numbered(&topic, COUNT), Resolution::Commit).await;
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
}

/// TransactionMessageTest.testTrans_SendRollback_PushConsume
#[tokio::test]
async fn messages_that_are_rolled_back_never_come() {
    let (site, topic, group) = Site::with_one_queue(Kind::Transaction, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let (producer, asked) = producer(&site, &topic, |_| Resolution::Commit).await;
    end_all(&producer, numbered(&topic, COUNT), Resolution::Rollback).await;
    // Left to the checker, and so not there before the others would have been checked.
    let marker = [Message::new(&topic, "marker")].into_iter();
    let sent = end_all(&producer, marker, Resolution::Unknown).await;
    listener.wait_for(1).await;
    assert_each_once(&listener.stop().await, &sent);
    assert!(asked.load(Ordering::Relaxed) > 0);
}

/// TransactionMessageTest.testTrans_SendCheckerCommit_PushConsume;
/// GrpcBaseIT.testTransactionCheckThenCommit
#[tokio::test]
async fn messages_left_open_come_when_the_checker_commits_them() {
    let (site, topic, group) = Site::with(Kind::Transaction, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let (producer, asked) = producer(&site, &topic, |_| Resolution::Commit).await;
    let sent = end_all(&producer, numbered(&topic, COUNT), Resolution::Unknown).await;
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
    assert!(asked.load(Ordering::Relaxed) >= COUNT);
}

/// TransactionMessageTest.testTrans_CheckerRollback
#[tokio::test]
async fn messages_left_open_never_come_when_the_checker_rolls_them_back() {
    let (site, topic, group) = Site::with(Kind::Transaction, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let (producer, asked) = producer(&site, &topic, |_| Resolution::Rollback).await;
    end_all(&producer, numbered(&topic, COUNT), Resolution::Unknown).await;
    let all_asked = async {
        while asked.load(Ordering::Relaxed) < COUNT {
            tokio::time::sleep(GLANCE).await;
        }
    };
    in_time("checks", all_asked).await;
    let marker = [Message::new(&topic, "marker")].into_iter();
    let sent = end_all(&producer, marker, Resolution::Commit).await;
    listener.wait_for(1).await;
    assert_each_once(&listener.stop().await, &sent);
}

/// TransactionMessageTest.testTrans_SendCheckerPartionCommit
#[tokio::test]
async fn the_checker_may_commit_some_and_roll_back_others() {
    fn half(message: &MessageView) -> Resolution {
        match message.properties.get("paid").map(String::as_str) {
            Some("yes") => Resolution::Commit,
            _ => Resolution::Rollback,
        }
    }
    let (site, topic, group) = Site::with(Kind::Transaction, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let (producer, asked) = producer(&site, &topic, half).await;
    let messages = (0..COUNT).map(|n| {
        let paid = if n % 2 == 0 { "yes" } else { "no" };
        Message::new(&topic, paid).property("paid", paid)
    });
    end_all(&producer, messages, Resolution::Unknown).await;
    let all_asked = async {
        while asked.load(Ordering::Relaxed) < COUNT {
            tokio::time::sleep(GLANCE).await;
        }
    };
    in_time("checks", all_asked).await;
    listener.wait_for(COUNT / 2).await;
    assert_eq!(bodies(&listener.stop().await), ["yes"; COUNT / 2]);
}

/// SimpleTopicTypeTest.testTrans_simple_receive_ackAsync
#[tokio::test]
async fn a_simple_consumer_gets_committed_messages() {
    let (site, topic, group) = Site::with(Kind::Transaction, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let (producer, _) = producer(&site, &topic, |_| Resolution::Unknown).await;
    let sent = end_all(&producer, numbered(&topic, COUNT), Resolution::Commit).await;
    let mut got = Vec::new();
    for _ in 0..COUNT {
        got.push(take_one(&consumer).await);
    }
    assert_each_once(&got, &sent);
}

/// NormalMessageSizeTest: transaction messages
#[tokio::test]
async fn a_transaction_takes_4_mib_and_not_more() {
    let (site, topic, group) = Site::with(Kind::Transaction, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let (producer, _) = producer(&site, &topic, |_| Resolution::Unknown).await;
    let large = Message::new(&topic, vec![b'x'; BODY_MAX + 1]);
    assert_too_large(&producer.begin(large).await.unwrap_err());
    let whole = [Message::new(&topic, vec![b'x'; BODY_MAX])].into_iter();
    end_all(&producer, whole, Resolution::Commit).await;
    assert_eq!(take_one(&consumer).await.body.len(), BODY_MAX);
}
