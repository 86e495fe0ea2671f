//! Transactions on a real Apache RocketMQ 5, as in `tests/real`, with a binary of their own: after
//! the first commit the broker of 5.5.0 keeps a core busy until it is restarted, so they come last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use rocketmq_grpc::{Message, MessageView, Producer, ProducerConfig, Resolution};
use tokio::time::Instant;

#[expect(dead_code, reason = "shared with the other tests")]
#[path = "../real/server.rs"]
mod server;

use self::server::{Place, client, in_seconds, until_known};

const LEASE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(15);
/// Until the first check: the broker's time-out and check interval, and its mood.
const CHECKED_WITHIN: Duration = Duration::from_secs(40);

fn place() -> Place {
    Place::of(":TRANSACTION", "")
}

/// With a checker that notes what it is asked and says `resolution`.
async fn producer(place: &Place, resolution: Resolution) -> (Producer, Asked) {
    let asked = Asked::default();
    let config = || {
        let asked = asked.clone();
        ProducerConfig::new()
            .topic(&place.topic)
            .transaction_checker(move |message| {
                asked.0.lock().unwrap().push((Instant::now(), message));
                async move { resolution }
            })
    };
    let producer = until_known(async || client().producer(config()).await).await;
    (producer, asked)
}

#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(Instant, MessageView)>>>);

impl Asked {
    fn ids(&self) -> Vec<String> {
        let asked = self.0.lock().unwrap();
        asked.iter().map(|it| it.1.id.clone()).collect()
    }

    async fn first(&self) -> MessageView {
        let by = Instant::now() + CHECKED_WITHIN;
        loop {
            if let Some((_, message)) = self.0.lock().unwrap().first() {
                return message.clone();
            }
            assert!(Instant::now() < by, "the server does not ask");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_commit_delivers_once_and_a_rollback_never() {
    let place = place();
    let consumer = place.consumer(LEASE).await;
    let (producer, asked) = producer(&place, Resolution::Unknown).await;
    let message = || Message::new(&place.topic, "x").key("k").property("p", "v");
    let rolled_back = producer
        .transaction(message(), async || Resolution::Rollback)
        .await;
    assert!(rolled_back.unwrap().unconfirmed.is_none());
    place.silence(&consumer, Duration::from_secs(2)).await;

    let start = Instant::now();
    let committed = producer
        .transaction(message(), async || Resolution::Commit)
        .await
        .unwrap();
    assert!(committed.unconfirmed.is_none());
    let lease = place.receive_one(&consumer, SOON).await;
    println!(
        "delivered {:?} after the send, {:?}",
        start.elapsed(),
        lease.message()
    );
    assert_eq!(lease.message().id, committed.message.message_id);
    assert_eq!(lease.message().properties["p"], "v");
    consumer.ack(lease).await.unwrap();

    let transaction = producer.begin(message()).await.unwrap();
    let receipt = transaction.commit().await.unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().id, receipt.message_id);
    consumer.ack(lease).await.unwrap();
    // Longer than the time after which the server asks. It has been seen to ask about what has ended.
    place.silence(&consumer, Duration::from_secs(12)).await;
    println!("asked about {:?}", asked.ids());
    consumer.close(in_seconds(5)).await.unwrap();
    producer.close(in_seconds(5)).await;
}

#[tokio::test]
async fn what_nobody_ended_is_asked_about_and_delivered_once() {
    let place = place();
    let consumer = place.consumer(LEASE).await;
    let (producer, asked) = producer(&place, Resolution::Commit).await;
    let message = Message::new(&place.topic, "half")
        .key("order-7")
        .property("p", "v");
    let start = Instant::now();
    drop(producer.begin(message.clone()).await.unwrap());
    let view = asked.first().await;
    println!("asked after {:?}: {view:?}", start.elapsed());
    assert_eq!((&*view.id, &*view.topic), (message.id(), &*place.topic));
    assert_eq!(
        (&view.body[..], &view.keys[..]),
        (&b"half"[..], &["order-7".to_owned()][..])
    );
    assert_eq!(view.properties["p"], "v");
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().id, message.id());
    consumer.ack(lease).await.unwrap();
    place.silence(&consumer, Duration::from_secs(15)).await;
    println!("asked {} times", asked.ids().len());
    assert_eq!(asked.ids().len(), 1);
    consumer.close(in_seconds(5)).await.unwrap();
    producer.close(in_seconds(5)).await;
}

#[tokio::test]
async fn after_a_restart_of_the_producer_the_next_one_answers() {
    let place = place();
    let consumer = place.consumer(LEASE).await;
    let (first, _) = producer(&place, Resolution::Unknown).await;
    let message = Message::new(&place.topic, "half");
    drop(first.begin(message.clone()).await.unwrap());
    first.close(in_seconds(5)).await;
    let (second, asked) = producer(&place, Resolution::Commit).await;
    assert_eq!(asked.first().await.id, message.id());
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().id, message.id());
    consumer.ack(lease).await.unwrap();
    consumer.close(in_seconds(5)).await.unwrap();
    second.close(in_seconds(5)).await;
}

#[tokio::test]
async fn a_check_without_an_answer_comes_again_and_never_during_the_local_transaction() {
    let place = place();
    let (producer, asked) = producer(&place, Resolution::Unknown).await;
    let transaction = producer
        .begin(Message::new(&place.topic, "slow"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(asked.ids(), Vec::<String>::new());
    drop(transaction);
    asked.first().await;
    let by = in_seconds(30);
    while asked.ids().len() < 3 {
        assert!(Instant::now() < by, "asked {} times", asked.ids().len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let times: Vec<_> = asked.0.lock().unwrap().iter().map(|it| it.0).collect();
    println!(
        "between checks: {:?}",
        times.windows(2).map(|it| it[1] - it[0]).collect::<Vec<_>>()
    );
    producer.close(in_seconds(5)).await;
}

#[tokio::test]
async fn a_local_transaction_that_takes_long_is_committed_while_the_server_asks() {
    let place = place();
    let consumer = place.consumer(LEASE).await;
    let (producer, asked) = producer(&place, Resolution::Rollback).await;
    let message = Message::new(&place.topic, "late");
    let transaction = producer.begin(message.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(asked.ids(), Vec::<String>::new());
    transaction.commit().await.unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().id, message.id());
    assert_eq!(lease.message().properties, HashMap::new());
    consumer.ack(lease).await.unwrap();
    consumer.close(in_seconds(5)).await.unwrap();
    producer.close(in_seconds(5)).await;
}
