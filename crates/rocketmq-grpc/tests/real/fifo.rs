//! Orderly groups on the real server: what a batch is, and that each message group is handled in
//! order and once. What was measured, with raw calls, is written beside the tests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use rocketmq_grpc::{
    Consumer, ConsumerConfig, Filter, Lease, Message, Producer, PushConsumer, Settlement,
};
use tokio::time::Instant;

use crate::server::{Place, in_seconds, until_known};

const LEASE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(15);

/// Sent one after the other: `k1-2` is the second of group `k1`.
async fn send(place: &Place, producer: &Producer, bodies: &[&str]) {
    for body in bodies {
        let group = body.split('-').next().unwrap();
        let message = Message::new(&place.topic, body.to_string()).group(group);
        producer.send(message).await.unwrap();
    }
}

fn body(lease: &Lease) -> String {
    String::from_utf8(lease.message().body.to_vec()).unwrap()
}

fn bodies(leases: &[Lease]) -> Vec<String> {
    leases.iter().map(body).collect()
}

/// The whole batch of a topic with one queue.
async fn batch(place: &Place, consumer: &Consumer, within: Duration) -> Vec<Lease> {
    let received = tokio::time::timeout(within, consumer.receive(&place.topic, 32)).await;
    received.expect("nothing came in time").unwrap()
}

/// A topic with one queue, and one batch of four in hand.
async fn four_in_hand() -> (Place, Producer, Consumer, Vec<Lease>) {
    let place = Place::fifo(1, "");
    let consumer = place.consumer(LEASE).await;
    assert!(consumer.settings().fifo);
    // Sent while nobody waits, so that one receive brings all.
    consumer.close(in_seconds(5)).await.unwrap();
    let producer = place.producer().await;
    send(&place, &producer, &["k1-1", "k2-1", "k1-2", "k2-2"]).await;
    let consumer = place.consumer_of_rest(LEASE).await;
    let leases = batch(&place, &consumer, SOON).await;
    assert_eq!(bodies(&leases), ["k1-1", "k2-1", "k1-2", "k2-2"]);
    let places: Vec<_> = leases.iter().map(|it| it.batch().unwrap()).collect();
    assert!(
        places
            .iter()
            .all(|it| it.batch == places[0].batch && it.len == 4)
    );
    (place, producer, consumer, leases)
}

/// An acknowledged message needs no extension while an earlier one of its batch is extended: measured
/// with leases of 10 s over 40 s. The extension of an acknowledged one is answered OK and changes
/// nothing. With only the last of four extended nobody else gets the queue either, but the handles of
/// the others are INVALID_RECEIPT_HANDLE then, and all four come again.
#[tokio::test]
async fn what_is_acknowledged_early_is_covered_by_the_extension_of_what_is_not() {
    let (place, producer, consumer, leases) = four_in_hand().await;
    let other = place.consumer_of_rest(LEASE).await;
    let mut held = leases;
    consumer.settle(held.remove(1), Settlement::Ack);
    let until = Instant::now() + Duration::from_secs(25);
    while Instant::now() < until {
        for lease in &mut held {
            consumer.extend(lease, LEASE).await.unwrap();
        }
        place.silence(&other, Duration::from_secs(5)).await;
    }
    let early = tokio::time::timeout(Duration::from_millis(100), consumer.settled()).await;
    assert!(early.is_err(), "{early:?}");
    held.into_iter()
        .for_each(|it| consumer.settle(it, Settlement::Ack));
    let mut settled = Vec::new();
    while settled.len() < 4 {
        settled.extend(consumer.settled().await);
    }
    assert!(settled.iter().all(|it| it.result.is_ok()), "{settled:?}");
    send(&place, &producer, &["k1-3"]).await;
    tokio::select! {
        leases = batch(&place, &other, SOON) => assert_eq!(bodies(&leases), ["k1-3"]),
        leases = batch(&place, &consumer, SOON) => assert_eq!(bodies(&leases), ["k1-3"]),
    }
}

/// Measured: the order of the hand-backs does not matter; the queue is free 0.1 to 0.3 s after the
/// last one, and all that were not acknowledged come. A single hand-back has no effect
/// before the leases of all others are over. NotifyClientTermination frees nothing.
#[tokio::test]
async fn handed_back_in_any_order_the_rest_of_a_batch_comes_at_once() {
    let (place, _, consumer, mut leases) = four_in_hand().await;
    let other = place.consumer_of_rest(LEASE).await;
    consumer.settle(leases.remove(0), Settlement::Ack);
    leases.reverse();
    leases
        .into_iter()
        .for_each(|it| consumer.settle(it, Settlement::HandBack));
    consumer.close(in_seconds(5)).await.unwrap();
    let again = batch(&place, &other, Duration::from_secs(5)).await;
    assert_eq!(bodies(&again), ["k2-1", "k1-2", "k2-2"]);
    again
        .into_iter()
        .for_each(|it| other.settle(it, Settlement::Ack));
    other.close(in_seconds(5)).await.unwrap();
}

/// Measured: an earlier message that is handed back or retried takes the acknowledged ones behind it
/// along; the delay counts from the last settlement of the batch. The last of a batch comes alone.
#[tokio::test]
async fn what_was_acknowledged_behind_a_retried_message_comes_again_and_is_reported() {
    let (place, _, consumer, mut leases) = four_in_hand().await;
    let last = leases.pop().unwrap();
    let third = leases.pop().unwrap();
    consumer.settle(last, Settlement::Ack);
    consumer.settle(third, Settlement::RetryAfter(Duration::from_secs(2)));
    leases
        .into_iter()
        .for_each(|it| consumer.settle(it, Settlement::Ack));
    let mut settled = Vec::new();
    while settled.len() < 4 {
        settled.extend(consumer.settled().await);
    }
    let failed: Vec<_> = settled.iter().filter(|it| it.result.is_err()).collect();
    assert_eq!(failed.len(), 1, "{settled:?}");
    let again = batch(&place, &consumer, SOON).await;
    assert_eq!(bodies(&again), ["k1-2", "k2-2"]);
    assert_eq!(again[1].message().id, failed[0].message_id);
    again
        .into_iter()
        .for_each(|it| consumer.settle(it, Settlement::Ack));
    consumer.close(in_seconds(5)).await.unwrap();
}

/// Measured: a dead letter counts as settled. If an earlier message comes again afterwards, the dead
/// one does too, although it is in the dead-letter topic already.
#[tokio::test]
async fn a_dead_letter_counts_as_settled() {
    let (place, producer, consumer, mut leases) = four_in_hand().await;
    // Also with the handle of an extension, which names another message on 5.5.0.
    for lease in leases.iter_mut().skip(1) {
        for _ in 0..2 {
            consumer.extend(lease, LEASE).await.unwrap();
        }
    }
    let how = [
        Settlement::Ack,
        Settlement::DeadLetter,
        Settlement::Ack,
        Settlement::DeadLetter,
    ];
    for (lease, how) in leases.into_iter().zip(how) {
        consumer.settle(lease, how);
    }
    let mut settled = Vec::new();
    while settled.len() < 4 {
        settled.extend(consumer.settled().await);
    }
    assert!(settled.iter().all(|it| it.result.is_ok()), "{settled:?}");
    send(&place, &producer, &["k1-3"]).await;
    assert_eq!(bodies(&batch(&place, &consumer, SOON).await), ["k1-3"]);
    let mut dead = place.dead_letters().await;
    dead.sort_by_key(|it| it.body.clone());
    let dead: Vec<_> = dead.iter().map(|it| &it.body[..]).collect();
    assert_eq!(dead, [b"k2-1", b"k2-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_consumer_handles_every_message_group_in_order_also_when_some_fail_at_first() {
    const GROUPS: usize = 8;
    const EACH: usize = 20;
    let place = Place::fifo(4, ":backoff=1s-1s");
    place
        .consumer(LEASE)
        .await
        .close(in_seconds(5))
        .await
        .unwrap();
    let handled: Arc<Mutex<ByGroup>> = Arc::default();
    let start = async || {
        let config = ConsumerConfig::new(&place.group)
            .subscribe(&place.topic, Filter::all())
            .invisible_duration(LEASE);
        let handled = handled.clone();
        PushConsumer::start(&place.client, config, 16, move |message| {
            let handled = handled.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let group = message.group.unwrap();
                let n: usize = String::from_utf8_lossy(&message.body).parse().unwrap();
                if n % 10 == 3 && message.attempt == 1 {
                    return Err("not yet");
                }
                let how = Handled {
                    id: message.id,
                    attempt: message.attempt,
                    queue: message.queue_id,
                    offset: message.queue_offset,
                    at: Instant::now(),
                };
                handled
                    .lock()
                    .unwrap()
                    .entry(group)
                    .or_default()
                    .push((n, how));
                Ok(())
            }
        })
        .await
    };
    let first = until_known(start).await;
    let producer = place.producer().await;
    for n in 0..EACH {
        for group in 0..GROUPS {
            let message = Message::new(&place.topic, n.to_string()).group(format!("g{group}"));
            producer.send(message).await.unwrap();
        }
    }
    let count = || {
        handled
            .lock()
            .unwrap()
            .values()
            .map(Vec::len)
            .sum::<usize>()
    };
    let by = in_seconds(60);
    while count() < GROUPS * EACH / 3 {
        assert!(Instant::now() < by, "{}", count());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stopping = Instant::now();
    // What was done behind a message that failed on the way out comes again.
    let again = match first.stop(in_seconds(10)).await {
        Ok(()) => Vec::new(),
        Err(abandoned) => abandoned.message_ids().to_vec(),
    };
    let stopped = Instant::now();
    let second = start().await.unwrap();
    let all = || {
        let handled = handled.lock().unwrap();
        let mut ids: Vec<_> = handled
            .values()
            .flatten()
            .map(|it| it.1.id.clone())
            .collect();
        ids.sort();
        ids.dedup();
        ids.len() == GROUPS * EACH
    };
    while !all() {
        assert!(Instant::now() < by, "{} of {}", count(), GROUPS * EACH);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.stop(in_seconds(10)).await.unwrap();
    println!("stopped in {:?}", stopped - stopping);
    let handled = handled.lock().unwrap();
    assert_eq!(handled.len(), GROUPS);
    for (group, order) in handled.iter() {
        let mut seen = Vec::new();
        for (n, how) in order {
            if !seen.contains(n) {
                seen.push(*n);
                continue;
            }
            // On a machine without a free core one was seen that had not been told.
            println!(
                "{n} of {group} twice, told: {}, {how:?}",
                again.contains(&how.id)
            );
        }
        assert_eq!(seen, (0..EACH).collect::<Vec<_>>(), "{group}: {order:?}");
    }
}

/// The messages of each group, by number, in the order in which they were handled.
type ByGroup = HashMap<String, Vec<(usize, Handled)>>;

/// Of a message, by a handler that said OK.
#[derive(Debug)]
#[expect(dead_code, reason = "for the failure's text")]
struct Handled {
    id: String,
    attempt: u32,
    queue: i32,
    offset: i64,
    at: Instant,
}
