//! Orderly groups: a queue's batch is one unit.

use std::time::Duration;

use rocketmq_grpc::{Consumer, Lease, Settled, Settlement};
use rocketmq_proto::v2::{self as pb, Code, settings::PubSub, telemetry_command::Command};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, Item, TOPIC, consumer_config, eventually, status};

/// A group that the server says is orderly.
pub(crate) async fn orderly(fake: &Fake, consumer: &Consumer) {
    fake.command(&Command::Settings(pb::Settings {
        pub_sub: Some(PubSub::Subscription(pb::Subscription {
            fifo: Some(true),
            ..Default::default()
        })),
        ..Default::default()
    }));
    eventually("the group is orderly", || consumer.settings().fifo).await;
}

async fn consumer(fake: &Fake) -> Consumer {
    let consumer = fake.client().consumer(consumer_config()).await.unwrap();
    orderly(fake, &consumer).await;
    consumer
}

/// Number `offset` of a queue, of the group `group`.
pub(crate) fn message(queue_id: i32, offset: i64, group: &str) -> Item {
    Item::Message(Box::new(pb::Message {
        topic: None,
        user_properties: Default::default(),
        system_properties: Some(pb::SystemProperties {
            message_id: format!("{queue_id}/{offset}"),
            receipt_handle: Some(format!("h-{queue_id}/{offset}")),
            message_group: Some(group.to_owned()),
            delivery_attempt: Some(1),
            body_encoding: pb::Encoding::Identity.into(),
            queue_id,
            queue_offset: Some(offset),
            ..Default::default()
        }),
        body: "body".into(),
    }))
}

fn queue(queue_id: i32, len: i64) -> impl Iterator<Item = Item> {
    (0..len).map(move |offset| message(queue_id, offset, "g"))
}

async fn batch(fake: &Fake, consumer: &Consumer, len: i64) -> Vec<Lease> {
    fake.push(queue(0, len).collect());
    let leases = consumer.receive(TOPIC, 32).await.unwrap();
    assert_eq!(leases.len(), usize::try_from(len).unwrap());
    leases
}

fn ids(settled: &[Settled]) -> Vec<&str> {
    settled.iter().map(|it| it.message_id.as_str()).collect()
}

async fn nothing_settled(consumer: &Consumer, during: Duration) {
    let settled = tokio::time::timeout(during, consumer.settled()).await;
    assert!(settled.is_err(), "{settled:?}");
}

async fn settled(consumer: &Consumer, count: usize) -> Vec<Settled> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(consumer.settled().await);
    }
    all
}

fn acked(fake: &Fake) -> Vec<String> {
    let state = fake.state();
    let entries = state.seen.acks.iter().flatten();
    entries.map(|it| it.message_id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lease_tells_its_place_in_the_batch_of_its_queue() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    fake.push(queue(3, 2).chain(queue(1, 3)).collect());
    let leases = consumer.receive(TOPIC, 32).await.unwrap();
    let places: Vec<_> = leases.iter().map(|it| it.batch().unwrap()).collect();
    let positions: Vec<_> = places
        .iter()
        .map(|it| (it.queue_id, it.position, it.len))
        .collect();
    assert_eq!(
        positions,
        [(3, 0, 2), (3, 1, 2), (1, 0, 3), (1, 1, 3), (1, 2, 3)]
    );
    assert_eq!(places[0].batch, places[1].batch);
    assert_ne!(places[1].batch, places[2].batch);
    assert_eq!(&*places[0].broker, "broker-fake");
    drop(leases);
}

#[tokio::test(start_paused = true)]
async fn a_group_without_order_has_no_batches() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(queue(0, 1).collect());
    assert_eq!(consumer.receive(TOPIC, 1).await.unwrap()[0].batch(), None);
}

#[tokio::test(start_paused = true)]
async fn an_ack_is_sent_at_once_and_confirmed_when_those_before_it_are() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let mut leases = batch(&fake, &consumer, 3).await.into_iter();
    let (first, second, third) = (
        leases.next().unwrap(),
        leases.next().unwrap(),
        leases.next(),
    );
    consumer.settle(third.unwrap(), Settlement::Ack);
    nothing_settled(&consumer, Duration::from_secs(1)).await;
    assert_eq!(acked(&fake), ["0/2"]);
    consumer.settle(first, Settlement::Ack);
    assert_eq!(ids(&consumer.settled().await), ["0/0"]);
    nothing_settled(&consumer, Duration::from_secs(1)).await;
    consumer.settle(second, Settlement::DeadLetter);
    let rest = settled(&consumer, 2).await;
    assert_eq!(ids(&rest), ["0/1", "0/2"]);
    assert!(rest.iter().all(|it| it.result.is_ok()));
    assert_eq!(consumer.stats().pending_settlements, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_behind_one_that_comes_again_is_reported_as_coming_again() {
    for how in [
        Settlement::HandBack,
        Settlement::RetryAfter(Duration::from_secs(3)),
    ] {
        let fake = Fake::start();
        let consumer = consumer(&fake).await;
        let mut leases = batch(&fake, &consumer, 4).await.into_iter();
        consumer.settle(leases.next().unwrap(), Settlement::Ack);
        assert_eq!(ids(&settled(&consumer, 1).await), ["0/0"]);
        let nacked = leases.next().unwrap();
        consumer.settle(leases.next().unwrap(), Settlement::Ack);
        nothing_settled(&consumer, Duration::from_secs(1)).await;
        consumer.settle(nacked, how);
        let both = settled(&consumer, 2).await;
        assert_eq!(ids(&both), ["0/1", "0/2"]);
        assert!(both[0].result.is_ok());
        let error = both[1].result.as_ref().unwrap_err();
        assert!(
            error.is_receipt_expired() && !error.is_retryable(),
            "{error}"
        );
        // Acknowledged nevertheless: the queue is blocked by what is not.
        consumer.settle(leases.next().unwrap(), Settlement::Ack);
        assert!(settled(&consumer, 1).await[0].result.is_err());
        assert_eq!(acked(&fake), ["0/0", "0/2", "0/3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_behind_a_dropped_lease_is_reported_as_coming_again() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let mut leases = batch(&fake, &consumer, 2).await;
    consumer.settle(leases.pop().unwrap(), Settlement::Ack);
    nothing_settled(&consumer, Duration::from_secs(1)).await;
    drop(leases);
    let reports = consumer.settled().await;
    assert_eq!(ids(&reports), ["0/1"]);
    assert!(reports[0].result.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_ack_waits_as_long_as_the_leases_before_it_are_extended() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let mut leases = batch(&fake, &consumer, 2).await;
    let received_at = Instant::now();
    consumer.settle(leases.pop().unwrap(), Settlement::Ack);
    for _ in 0..3 {
        nothing_settled(&consumer, Duration::from_secs(8)).await;
        let extended = consumer.extend(&mut leases[0], Duration::from_secs(10));
        extended.await.unwrap();
    }
    let reports = consumer.settled().await;
    assert!(reports[0].result.as_ref().unwrap_err().is_receipt_expired());
    let waited = received_at.elapsed();
    assert!((34..36).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_ack_fails_all_behind_it() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let mut leases = batch(&fake, &consumer, 3).await;
    consumer.settle(leases.pop().unwrap(), Settlement::Ack);
    consumer.settle(leases.pop().unwrap(), Settlement::Ack);
    eventually("two are acknowledged", || acked(&fake).len() == 2).await;
    let refused = pb::AckMessageResponse {
        status: status(Code::InvalidReceiptHandle),
        entries: vec![],
    };
    fake.state().acks = [Ok(refused)].into();
    consumer.settle(leases.pop().unwrap(), Settlement::Ack);
    let reports = settled(&consumer, 3).await;
    assert_eq!(ids(&reports), ["0/0", "0/1", "0/2"]);
    assert!(reports.iter().all(|it| it.result.is_err()));
    assert_eq!(consumer.stats().failed_settlements, 3);
}

#[tokio::test(start_paused = true)]
async fn a_broken_answer_is_not_handed_over_and_the_same_attempt_brings_all_of_it() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let mut broken: Vec<_> = queue(0, 2).collect();
    broken.push(Item::Break(Status::unavailable("broken")));
    fake.push(broken);
    fake.push(queue(0, 3).collect());
    let leases = consumer.receive(TOPIC, 32).await.unwrap();
    let places = leases.iter().map(|it| it.batch().unwrap().position);
    assert_eq!(places.collect::<Vec<_>>(), [0, 1, 2]);
    let next = consumer.receive(TOPIC, 32);
    let _ = tokio::time::timeout(Duration::from_secs(1), next).await;
    let state = fake.state();
    let attempts: Vec<_> = state
        .seen
        .receives
        .iter()
        .map(|it| &it.attempt_id)
        .collect();
    assert!(
        attempts
            .iter()
            .all(|it| it.as_ref().is_some_and(|it| !it.is_empty()))
    );
    assert_eq!(attempts[0], attempts[1]);
    assert_ne!(attempts[1], attempts[2], "the answer was complete");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_messages_ends_the_attempt() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    fake.push(vec![Item::Status(Code::MessageNotFound)]);
    let waiting = consumer.receive(TOPIC, 32);
    let _ = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    let state = fake.state();
    assert_ne!(
        state.seen.receives[0].attempt_id,
        state.seen.receives[1].attempt_id
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_message_of_an_orderly_group_is_dead_lettered_and_blocks_nothing() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let mut items: Vec<_> = queue(0, 3).collect();
    if let Item::Message(damaged) = &mut items[1] {
        let system = damaged.system_properties.as_mut().unwrap();
        system.body_digest = Some(pb::Digest {
            r#type: pb::DigestType::Crc32.into(),
            checksum: "1".to_owned(),
        });
    }
    fake.push(items);
    let leases = consumer.receive(TOPIC, 32).await.unwrap();
    let places: Vec<_> = leases.iter().map(|it| it.batch().unwrap()).collect();
    assert_eq!((places[1].position, places[1].len, leases.len()), (2, 3, 2));
    leases
        .into_iter()
        .for_each(|it| consumer.settle(it, Settlement::Ack));
    let reports = settled(&consumer, 2).await;
    assert!(reports.iter().all(|it| it.result.is_ok()), "{reports:?}");
    assert_eq!(fake.state().seen.dead, ["0/1"]);
    assert_eq!(consumer.stats().corrupted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_reports_what_was_done_behind_a_message_that_was_not() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let mut leases = batch(&fake, &consumer, 2).await;
    consumer.settle(leases.pop().unwrap(), Settlement::Ack);
    eventually("it is acknowledged", || acked(&fake).len() == 1).await;
    let start = Instant::now();
    let closed = consumer.close(start + Duration::from_secs(3)).await;
    assert!(closed.is_err() && start.elapsed() <= Duration::from_millis(3100));
    let reports = consumer.settled().await;
    assert_eq!(ids(&reports), ["0/1"]);
    assert!(reports[0].result.is_err());
    assert!(consumer.settled().await.is_empty());
    drop(leases);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_took_is_handed_back_whole() {
    let fake = Fake::start();
    let consumer = consumer(&fake).await;
    let waiting = consumer.receive(TOPIC, 32);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .is_err()
    );
    fake.push(queue(0, 3).collect());
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer
        .close(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
    let state = fake.state();
    let mut back: Vec<_> = state
        .seen
        .changes
        .iter()
        .map(|it| &*it.message_id)
        .collect();
    back.sort_unstable();
    assert_eq!(back, ["0/0", "0/1", "0/2"]);
}
