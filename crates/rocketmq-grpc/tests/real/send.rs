//! Every type of message, and what the server does with it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use rocketmq_grpc::{Consumer, Lease, Message, Producer, ProducerConfig};
use rocketmq_proto::v2::Code;
use tokio::time::Instant;

use crate::server::{Place, in_seconds, until_known};

const LEASE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(15);

/// So many, acknowledged, in the order in which they came.
async fn receive(place: &Place, consumer: &Consumer, count: usize) -> Vec<Lease> {
    let by = in_seconds(30);
    let mut leases = Vec::new();
    while leases.len() < count {
        let received = consumer.receive(&place.topic, 32);
        let received = tokio::time::timeout_at(by, received).await;
        leases.extend(received.expect("not all came").unwrap());
    }
    leases
}

#[tokio::test]
async fn messages_of_a_group_are_stored_in_one_queue_in_the_order_of_their_sends() {
    let place = Place::of(":FIFO:queues=4", "");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    for n in 0..40 {
        let group = format!("account-{}", n % 5);
        let message = Message::new(&place.topic, n.to_string()).group(group);
        producer.send(message).await.unwrap();
    }
    let mut by_group = BTreeMap::<_, Vec<_>>::new();
    for lease in receive(&place, &consumer, 40).await {
        let view = lease.message();
        let n: usize = std::str::from_utf8(&view.body).unwrap().parse().unwrap();
        let place = (view.queue_id, view.queue_offset, n);
        by_group
            .entry(view.group.clone().unwrap())
            .or_default()
            .push(place);
    }
    assert_eq!(by_group.len(), 5);
    for (group, mut places) in by_group {
        places.sort_unstable();
        assert!(
            places.iter().all(|it| it.0 == places[0].0),
            "{group}: {places:?}"
        );
        assert!(places.is_sorted_by_key(|it| it.2), "{group}: {places:?}");
        assert_eq!(places.len(), 8);
    }
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn a_delayed_message_comes_at_its_time_and_one_of_the_past_at_once() {
    let place = Place::of(":DELAY", "");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    let ago = SystemTime::now() - Duration::from_secs(3600);
    let past = Message::new(&place.topic, "past").deliver_at(ago);
    let ancient = Message::new(&place.topic, "1970").deliver_at(SystemTime::UNIX_EPOCH);
    let start = Instant::now();
    let receipt = producer.send(past).await.unwrap();
    println!("of the past: {receipt:?}");
    println!("of 1970: {:?}", producer.send(ancient).await);
    let lease = place.receive_one(&consumer, SOON).await;
    println!(
        "past after {:?}, due {:?}",
        start.elapsed(),
        lease.message().deliver_at
    );
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    consumer.ack(lease).await.unwrap();

    let start = Instant::now();
    let later = Message::new(&place.topic, "later").delay(Duration::from_secs(4));
    let due = later.delivery_time().unwrap();
    producer.send(later).await.unwrap();
    let lease = loop {
        let lease = place.receive_one(&consumer, SOON).await;
        if lease.message().body == "later" {
            break lease;
        }
    };
    let took = start.elapsed();
    println!("4 s after {took:?}");
    assert!((3_000..9_000).contains(&took.as_millis()), "{took:?}");
    let told = lease.message().deliver_at.unwrap();
    let difference = told
        .duration_since(due)
        .or(due.duration_since(told))
        .unwrap();
    assert!(difference < Duration::from_secs(2), "{told:?} {due:?}");

    for far in [Duration::from_secs(90_000), Duration::MAX] {
        let far = Message::new(&place.topic, "far").delay(far);
        let error = producer.send(far).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(Code::IllegalDeliveryTime.into()),
            "{error}"
        );
        assert!(!error.is_retryable());
    }
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn a_recalled_message_is_not_delivered_and_a_delivered_one_is_not_recalled() {
    let place = Place::of(":DELAY", "");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    let delayed = |seconds: u64| {
        let message = Message::new(&place.topic, seconds.to_string());
        message.delay(Duration::from_secs(seconds))
    };
    let recalled = producer.send(delayed(8)).await.unwrap();
    let kept = producer.send(delayed(2)).await.unwrap();
    let (handle, late) = (recalled.recall_handle.unwrap(), kept.recall_handle.unwrap());
    let id = producer.recall(&place.topic, &handle).await.unwrap();
    assert_eq!(id, recalled.message_id);
    println!(
        "recalled twice: {:?}",
        producer.recall(&place.topic, &handle).await
    );

    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().id, kept.message_id);
    consumer.ack(lease).await.unwrap();
    let error = producer.recall(&place.topic, &late).await.unwrap_err();
    println!("after delivery: {error:?}");
    assert!(error.code().is_some(), "{error:?}");
    let error = producer.recall("another_topic", &handle).await.unwrap_err();
    println!("of another topic: {error:?}");
    let error = producer
        .recall(&place.topic, "no handle")
        .await
        .unwrap_err();
    println!("no handle: {error:?}");
    place.silence(&consumer, Duration::from_secs(10)).await;
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn messages_of_a_priority_topic_have_their_priority() {
    let place = Place::of(":PRIORITY:queues=4", "");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    for priority in [0, 1, 2, 3, 3, 2, 1, 0, 9] {
        let message = Message::new(&place.topic, priority.to_string()).priority(priority);
        producer.send(message).await.unwrap();
    }
    let mut came = Vec::new();
    for lease in receive(&place, &consumer, 9).await {
        let view = lease.message();
        println!("priority {:?} from queue {}", view.priority, view.queue_id);
        assert_eq!(view.body, view.priority.unwrap().to_string());
        came.push(view.priority.unwrap());
    }
    came.sort_unstable();
    assert_eq!(came, [0, 0, 1, 1, 2, 2, 3, 3, 9]);
    let plain = producer.send(Message::new(&place.topic, "plain")).await;
    println!("a NORMAL message: {plain:?}");
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn a_message_of_a_lite_topic_is_taken_by_topics_of_that_type_only() {
    let place = Place::of(":LITE", "");
    let producer = place.producer().await;
    let message = Message::new(&place.topic, "x").lite_topic("session-7");
    let receipt = producer.send(message).await.unwrap();
    println!("{receipt:?}");
    let error = producer
        .send(Message::new(&place.topic, "x"))
        .await
        .unwrap_err();
    assert!(error.is_wrong_topic_type(), "{error:?}");
}

#[tokio::test]
async fn the_messages_of_a_batch_come_one_by_one_under_their_own_ids() {
    let place = Place::of(":NORMAL:queues=4", "");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    let messages: Vec<_> = (0..10)
        .map(|n| {
            Message::new(&place.topic, n.to_string())
                .tag("t")
                .property("n", n.to_string())
        })
        .collect();
    let receipts = producer.send_batch(messages.clone()).await.unwrap();
    let mut came = receive(&place, &consumer, 10).await;
    came.sort_by_key(|it| it.message().queue_offset);
    for (n, lease) in came.iter().enumerate() {
        let view = lease.message();
        assert_eq!(view.id, messages[n].id());
        assert_eq!(
            (&view.id, view.queue_offset),
            (&receipts[n].message_id, receipts[n].offset)
        );
        assert_eq!(view.properties["n"], n.to_string());
        assert_eq!(
            (view.tag.as_deref(), &view.body),
            (Some("t"), messages[n].body())
        );
        assert_eq!(view.queue_id, came[0].message().queue_id);
    }
    // As large as it may be, and a little larger.
    let half = |less: usize| Message::new(&place.topic, vec![0; (2 << 20) - less]);
    producer
        .send_batch(vec![half(400), half(400)])
        .await
        .unwrap();
    let error = producer
        .send_batch(vec![half(200), half(200)])
        .await
        .unwrap_err();
    assert!(error.is_invalid(), "{error:?}");
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn a_compressed_body_comes_as_it_was_and_may_be_larger_than_the_limit() {
    let place = Place::new("");
    let consumer = place.consumer(LEASE).await;
    let config = || {
        ProducerConfig::new()
            .topic(&place.topic)
            .compress_above(1000)
    };
    let start = async || place.client.producer(config()).await;
    let producer: Producer = until_known(start).await;
    for size in [1001, 6 << 20] {
        let body: Vec<u8> = (0..size).map(|n: u32| (n >> 10) as u8).collect();
        let message = Message::new(&place.topic, body.clone());
        producer.send(message).await.unwrap();
        let lease = place.receive_one(&consumer, SOON).await;
        assert_eq!(lease.message().body, body);
        consumer.ack(lease).await.unwrap();
    }
    consumer.close(in_seconds(5)).await.unwrap();
}
