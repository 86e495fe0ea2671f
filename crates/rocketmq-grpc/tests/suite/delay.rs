//! Messages that are due later.

use std::time::{Duration, SystemTime};

use rocketmq_grpc::Message;
use tokio::time::Instant;

use crate::{
    listener::{assert_each_once, take_one},
    site::{CLOCKS, Group, Kind, Site, numbered, send_at_once, send_each},
};

const COUNT: usize = 10;
const DELAY: Duration = Duration::from_secs(3);
/// The real server counts in seconds.
const EARLY: Duration = Duration::from_secs(1);

async fn comes_when_due(at_once: bool) {
    let (site, topic, group) = Site::with(Kind::Delay, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let due = Instant::now() + DELAY;
    let messages = numbered(&topic, COUNT).map(|it| it.delay(DELAY));
    let sent = match at_once {
        true => send_at_once(&producer, messages).await,
        false => send_each(&producer, messages).await,
    };
    listener.wait_for(1).await;
    assert!(Instant::now() + EARLY > due, "came too early");
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
}

/// DelayMessageTest.testDelay_Send_PushConsume (there 10 s); Go: TestDelayMsg
#[tokio::test]
async fn delayed_messages_sent_one_by_one_come_when_they_are_due() {
    comes_when_due(false).await;
}

/// DelayMessageTest.testDelay_SendAsync_PushConsume; Go: TestDelayMsgAsync
#[tokio::test]
async fn delayed_messages_sent_at_once_come_when_they_are_due() {
    comes_when_due(true).await;
}

/// DelayMessageTest.testDelayTime15SecondsAgo
#[tokio::test]
async fn a_message_that_was_due_in_the_past_comes_at_once() {
    let (site, topic, group) = Site::with(Kind::Delay, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let past = SystemTime::now() - Duration::from_secs(20);
    let messages = numbered(&topic, COUNT).map(|it| it.deliver_at(past));
    let sent = send_each(&producer, messages).await;
    listener.wait_for(COUNT).await;
    assert_each_once(&listener.stop().await, &sent);
}

/// DelayMessageTest.testDelayTime24hAfter
#[tokio::test]
async fn a_message_that_is_due_in_more_than_a_day_is_refused() {
    let (site, topic, _) = Site::with(Kind::Delay, Group::PLAIN).await;
    let day = Duration::from_secs(24 * 60 * 60 + 60);
    let late = Message::new(&topic, "x").delay(day);
    let error = site.producer(&topic).await.send(late).await.unwrap_err();
    assert_eq!(error.code_name(), Some("ILLEGAL_DELIVERY_TIME"));
    assert!(!error.is_retryable() && !error.may_be_stored());
}

/// GrpcBaseIT.testSimpleConsumerSendAndRecvDelayMessage
#[tokio::test]
async fn a_simple_consumer_gets_a_delayed_message_with_its_time() {
    let (site, topic, group) = Site::with(Kind::Delay, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let message = Message::new(&topic, "x").delay(DELAY);
    let due = message.delivery_time().unwrap();
    site.producer(&topic).await.send(message).await.unwrap();
    let got = take_one(&consumer).await;
    assert!(SystemTime::now() + EARLY > due);
    let told = got.deliver_at.expect("a delivery time");
    let apart = told.duration_since(due).unwrap_or_else(|it| it.duration());
    assert!(apart < CLOCKS, "{apart:?}");
}

/// GrpcBaseIT.testSimpleConsumerSendAndRecallDelayMessage
#[tokio::test]
async fn a_recalled_message_never_comes() {
    let (site, topic, group) = Site::with(Kind::Delay, Group::PLAIN).await;
    let listener = site.listen(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let send = async |body: &'static str, delay| {
        let message = Message::new(&topic, body).delay(delay);
        producer.send(message).await.unwrap()
    };
    let recalled = send("recalled", DELAY).await;
    let handle = recalled.recall_handle.expect("a recall handle");
    let id = producer.recall(&topic, &handle).await.unwrap();
    assert_eq!(id, recalled.message_id);
    // Due after the other.
    let marker = send("marker", DELAY + 2 * EARLY).await;
    listener.wait_for(1).await;
    assert_each_once(&listener.stop().await, &[marker.message_id]);
}
