use std::time::Duration;

use rocketmq_grpc::{ConsumerConfig, Filter, Lease, Message, ProducerConfig, Settlement};
use tokio::time::Instant;

use crate::server::{Place, Seen, client, in_seconds, unique, until_known};

const LEASE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_are_consumed_once() {
    let place = Place::new("");
    let consumer = place.consumer(LEASE).await;
    let ids = place.send(1000).await;
    let (mut seen, mut settled) = (Seen::default(), 0);
    let by = in_seconds(60);
    while settled < ids.len() {
        tokio::select! {
            leases = consumer.receive(&place.topic, 100), if seen.0.len() < ids.len() => {
                for lease in leases.unwrap() {
                    seen.add(&lease);
                    consumer.settle(lease, Settlement::Ack);
                }
            }
            reports = consumer.settled() => {
                reports.iter().for_each(|it| assert!(it.result.is_ok(), "{it:?}"));
                settled += reports.len();
            }
            () = tokio::time::sleep_until(by) => panic!("{} seen, {settled} settled", seen.0.len()),
        }
    }
    seen.assert_each_once(&ids);
    place.silence(&consumer, Duration::from_secs(3)).await;
    consumer.close(in_seconds(5)).await.unwrap();
    assert_eq!(consumer.stats().failed_settlements, 0);
}

#[tokio::test]
async fn what_was_sent_is_what_comes() {
    let place = Place::new("");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    let message = Message::new(&place.topic, vec![0, 159, 255])
        .tag("created")
        .key("a")
        .key("b")
        .property(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .property("имя", "😱");
    let receipt = producer.send(message.clone()).await.unwrap();
    assert_eq!(receipt.message_id, message.id());

    let lease = place.receive_one(&consumer, SOON).await;
    let got = lease.message();
    assert_eq!(
        (got.id.as_str(), &got.body[..]),
        (message.id(), &[0, 159, 255][..])
    );
    assert_eq!(got.tag.as_deref(), Some("created"));
    assert_eq!(got.keys, ["a", "b"]);
    assert_eq!(got.properties["имя"], "😱");
    assert!(got.properties.contains_key("traceparent"));
    assert_eq!((got.attempt, &*got.topic), (1, place.topic.as_str()));
    assert!(got.born_at.is_some() && got.stored_at.is_some());
    consumer.ack(lease).await.unwrap();
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn tags_that_were_not_subscribed_to_do_not_come() {
    let place = Place::new("");
    let config =
        || ConsumerConfig::new(&place.group).subscribe(&place.topic, Filter::tags("a || b"));
    let consumer = until_known(async || place.client.consumer(config()).await).await;
    let _ = tokio::time::timeout(
        Duration::from_millis(500),
        consumer.receive(&place.topic, 1),
    )
    .await;
    let producer = place.producer().await;
    for tag in ["c", "a", "b"] {
        producer
            .send(Message::new(&place.topic, tag).tag(tag))
            .await
            .unwrap();
    }
    let mut tags = Vec::new();
    while tags.len() < 2 {
        let lease = place.receive_one(&consumer, SOON).await;
        tags.push(lease.message().tag.clone().unwrap());
        consumer.ack(lease).await.unwrap();
    }
    tags.sort();
    assert_eq!(tags, ["a", "b"]);
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn unknown_topics_and_groups_are_typed_errors_with_a_remedy() {
    let client = client();
    let missing = format!("rg_missing_{}", unique());
    let error = client
        .producer(ProducerConfig::new().topic(&missing))
        .await
        .unwrap_err();
    assert!(
        error.is_unknown_topic() && !error.is_retryable(),
        "{error:?}"
    );
    let producer = client.producer(ProducerConfig::new()).await.unwrap();
    let error = producer
        .send(Message::new(&missing, "x"))
        .await
        .unwrap_err();
    assert!(
        error.is_unknown_topic() && !error.may_be_stored(),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("topic create {missing}:")),
        "{error}"
    );

    let place = Place::new("");
    place.producer().await;
    let config = ConsumerConfig::new(&missing).subscribe(&place.topic, Filter::all());
    let error = place.client.consumer(config).await.unwrap_err();
    assert!(
        error.is_unknown_group() && !error.is_retryable(),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("group create {missing} "))
    );
    let config = ConsumerConfig::new(&place.group).subscribe(&missing, Filter::all());
    assert!(
        place
            .client
            .consumer(config)
            .await
            .unwrap_err()
            .is_unknown_topic()
    );
}

#[tokio::test]
async fn a_lease_that_is_extended_three_times_is_delivered_once() {
    let place = Place::new(":backoff=1s");
    let (one, other) = (
        place.consumer(Duration::from_secs(10)).await,
        place.consumer(LEASE).await,
    );
    place.send(1).await;
    let mut received = Vec::new();
    for (who, other) in [(&one, &other), (&other, &one)] {
        if let Ok(leases) =
            tokio::time::timeout(Duration::from_secs(6), who.receive(&place.topic, 1)).await
        {
            received.push((leases.unwrap().remove(0), who, other));
            break;
        }
    }
    let (mut lease, holder, other) = received.pop().unwrap();
    for _ in 0..6 {
        let asked_at = Instant::now();
        let deadline = holder
            .extend(&mut lease, Duration::from_secs(10))
            .await
            .unwrap();
        assert!(deadline >= asked_at + Duration::from_secs(10) && deadline == lease.deadline());
        place.silence(other, Duration::from_secs(5)).await;
    }
    holder.ack(lease).await.unwrap();
    place.silence(other, Duration::from_secs(14)).await;
    one.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn a_message_handed_back_comes_again_and_a_retry_is_not_early() {
    let place = Place::new(":backoff=1s");
    let consumer = place.consumer(LEASE).await;
    place.send(1).await;
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().attempt, 1);
    consumer.hand_back(lease).await.unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().attempt, 2);

    let failed_at = Instant::now();
    consumer
        .retry_after(lease, Duration::from_secs(5))
        .await
        .unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    assert!(
        failed_at.elapsed() >= Duration::from_secs(5),
        "{:?}",
        failed_at.elapsed()
    );
    assert_eq!(lease.message().attempt, 3);
    consumer.ack(lease).await.unwrap();
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn an_ack_after_the_lease_is_refused_and_the_message_comes_again() {
    let place = Place::new("");
    let consumer = place.consumer(Duration::from_secs(10)).await;
    place.send(1).await;
    let lease = place.receive_one(&consumer, SOON).await;
    tokio::time::sleep_until(lease.deadline() + Duration::from_millis(1500)).await;
    let error = consumer.ack(lease).await.unwrap_err();
    assert!(error.is_receipt_expired(), "{error}");
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().attempt, 2);
    consumer.ack(lease).await.unwrap();
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_is_moved_once_and_keeps_its_id_and_properties() {
    let place = Place::new("");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    let message = Message::new(&place.topic, "poison").property("p", "v");
    producer.send(message.clone()).await.unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    consumer.dead_letter(lease).await.unwrap();

    let dead = place.dead_letters().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].id, message.id());
    assert_eq!(dead[0].properties["p"], "v");
    place.silence(&consumer, Duration::from_secs(5)).await;
}

/// Measured with the handles that a proxy in local mode returns for extensions, as they are:
/// settlements are answered OK and not kept, and a dead letter moves the first message of the log.
#[tokio::test]
async fn extended_messages_of_one_batch_are_settled_for_good() {
    let place = Place::of(":NORMAL:queues=1", "");
    let lease = Duration::from_secs(10);
    let first = place.consumer(lease).await;
    first.close(in_seconds(5)).await.unwrap();
    let ids = place.send(8).await;
    let holder = place.consumer_of_rest(lease).await;
    let (mut held, mut seen) = (Vec::new(), Seen::default());
    while held.len() < ids.len() {
        held.extend(holder.receive(&place.topic, 32).await.unwrap());
    }
    for (at, held) in held.iter_mut().enumerate() {
        seen.add(held);
        // Half of them a second time, with the handle of the first.
        for _ in 0..=at % 2 {
            holder.extend(held, lease).await.unwrap();
        }
    }
    seen.assert_each_once(&ids);
    let mut take = || held.pop().unwrap();
    let (back, late, dead) = ([take(), take()], [take(), take()], [take(), take()]);
    let id = |it: &Lease| it.message().id.clone();
    let mut due: Vec<_> = back.iter().chain(&late).map(id).collect();
    let mut dead_ids: Vec<_> = dead.iter().map(id).collect();
    for lease in back {
        holder.hand_back(lease).await.unwrap();
    }
    for lease in late {
        let delay = Duration::from_secs(3);
        holder.retry_after(lease, delay).await.unwrap();
    }
    for lease in dead {
        holder.dead_letter(lease).await.unwrap();
    }
    for lease in held {
        holder.ack(lease).await.unwrap();
    }

    let mut again = Vec::new();
    // Longer than any of the leases.
    let by = in_seconds(17);
    while let Ok(leases) = tokio::time::timeout_at(by, holder.receive(&place.topic, 32)).await {
        for lease in leases.unwrap() {
            again.push(lease.message().id.clone());
            holder.ack(lease).await.unwrap();
        }
    }
    again.sort();
    due.sort();
    assert_eq!(again, due);
    holder.close(in_seconds(5)).await.unwrap();

    let mut buried = place.dead_letters().await;
    buried.sort_by(|one, other| one.id.cmp(&other.id));
    dead_ids.sort();
    assert!(buried.iter().map(|it| &it.id).eq(&dead_ids), "{buried:?}");
}

#[tokio::test]
async fn the_largest_message_comes_again_and_can_be_a_dead_letter() {
    let place = Place::new(":backoff=1s");
    let consumer = place.consumer(LEASE).await;
    let producer = place.producer().await;
    let message = Message::new(&place.topic, vec![b'x'; 4 << 20]);
    let message = message.property("p", "v".repeat((16 << 10) - 1));
    producer.send(message.clone()).await.unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    consumer.hand_back(lease).await.unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().attempt, 2);
    let soon = Duration::from_secs(2);
    consumer.retry_after(lease, soon).await.unwrap();
    let lease = place.receive_one(&consumer, SOON).await;
    assert_eq!(lease.message().attempt, 3);
    assert_eq!(lease.message().body.len(), 4 << 20);
    consumer.dead_letter(lease).await.unwrap();
    let dead = place.dead_letters().await;
    assert_eq!(dead.len(), 1);
    assert_eq!((&*dead[0].id, dead[0].body.len()), (message.id(), 4 << 20));
    consumer.close(in_seconds(5)).await.unwrap();
}
