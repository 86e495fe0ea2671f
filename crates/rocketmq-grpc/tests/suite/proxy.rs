//! What the server's own tests of its gRPC port try, where a client can be made to do it.

use futures_util::future::join;
use rocketmq_grpc::Message;
use tokio::time::{Duration, Instant, sleep_until};

use crate::{
    fifo::ordered,
    listener::{take, take_long, take_one},
    site::{CLOCKS, Group, Kind, LEASE, PATIENCE, Site, numbered, send_each},
};

/// GrpcBaseIT.testSimpleConsumerSendAndRecv
#[tokio::test]
async fn of_two_acknowledgements_at_once_the_one_whose_lease_is_over_fails() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    send_each(&site.producer(&topic).await, numbered(&topic, 2)).await;
    let mut leases = take(&consumer, 2).await;
    let (mut extended, lapsed) = (leases.remove(0), leases.remove(0));
    let lapsed_id = lapsed.message().id.clone();
    let until = consumer.change_invisible_duration(&mut extended, PATIENCE);
    assert!(until.await.unwrap() > lapsed.deadline());
    sleep_until(lapsed.deadline() + 2 * CLOCKS).await;
    let (good, late) = join(consumer.ack(extended), consumer.ack(lapsed)).await;
    good.unwrap();
    assert!(late.unwrap_err().is_receipt_expired());
    let again = take_one(&consumer).await;
    assert_eq!((again.id, again.attempt), (lapsed_id, 2));
}

/// GrpcBaseIT.testSimpleConsumerSendAndRecv; server issues 8900 and 9583: an acknowledgement after
/// a change of the duration
#[tokio::test]
async fn what_is_acknowledged_after_its_lease_was_changed_never_comes_again() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let producer = site.producer(&topic).await;
    send_each(&producer, numbered(&topic, 1)).await;
    let mut lease = take(&consumer, 1).await.remove(0);
    let begun = Instant::now();
    for _ in 0..2 {
        let changed = consumer.change_invisible_duration(&mut lease, LEASE);
        changed.await.unwrap();
    }
    consumer.ack(lease).await.unwrap();
    // By the time that another comes again, it would have, too.
    let marker = send_each(&producer, [Message::new(&topic, "marker")]).await;
    let held = take(&consumer, 1).await.remove(0);
    assert_eq!(held.message().id, marker[0]);
    let again = take_one(&consumer).await;
    assert!(begun.elapsed() + CLOCKS > LEASE);
    assert_eq!(again.id, marker[0]);
}

/// Clients issues 951 and 759: a message whose duration is made zero
#[tokio::test]
async fn a_message_that_is_made_visible_comes_again_at_once() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let sent = send_each(&site.producer(&topic).await, numbered(&topic, 1)).await;
    let mut lease = take_long(&consumer, 1).await.remove(0);
    let begun = Instant::now();
    let visible = consumer.change_invisible_duration(&mut lease, Duration::ZERO);
    visible.await.unwrap();
    let again = take_one(&consumer).await;
    assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
    assert_eq!((&again.id, again.attempt), (&sent[0], 2));
}

/// GrpcBaseIT.testSimpleConsumerToDLQ
#[tokio::test]
async fn a_message_that_nobody_acknowledges_becomes_a_dead_letter() {
    let of_group = Group {
        retries: 1,
        ..Group::PLAIN
    };
    let (site, topic, group) = Site::with(Kind::Normal, of_group).await;
    let consumer = site.simple(&topic, &group).await;
    let sent = send_each(&site.producer(&topic).await, numbered(&topic, 1)).await;
    for attempt in [1, 2] {
        let lease = take(&consumer, 1).await.remove(0);
        assert_eq!(lease.message().attempt, attempt);
    }
    // The real server moves it when somebody asks.
    let asked = async {
        loop {
            assert_eq!(consumer.receive(1, LEASE).await.unwrap().len(), 0);
        }
    };
    let dead = tokio::select! {
        never = asked => never,
        dead = site.dead_letters(&group) => dead,
    };
    assert_eq!(take_one(&dead).await.id, sent[0]);
}

/// ForwardMessageToDLQActivityTest
#[tokio::test]
async fn a_message_can_be_made_a_dead_letter_at_its_first_attempt() {
    let (site, topic, group) = Site::with(Kind::Normal, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let message = Message::new(&topic, "x").key("k").property("p", "v");
    let id = message.id().to_owned();
    site.producer(&topic).await.send(message).await.unwrap();
    let lease = take_long(&consumer, 1).await.remove(0);
    consumer.dead_letter(lease).await.unwrap();
    let dead = take_one(&site.dead_letters(&group).await).await;
    assert_eq!((dead.id, &*dead.body), (id, &b"x"[..]));
    assert_eq!(dead.properties["p"], "v");
}

/// GrpcBaseIT.testConsumeOrderly
#[tokio::test]
async fn a_queue_in_order_gives_nothing_more_until_what_it_gave_is_settled() {
    let (site, topic, group) = Site::with_one_queue(Kind::Fifo, Group::ORDERLY).await;
    let consumer = site.simple(&topic, &group).await;
    let other = site.simple(&topic, &group).await;
    let producer = site.producer(&topic).await;
    send_each(&producer, (0..2).map(|n| ordered(&topic, n, 1))).await;
    let first = take_long(&consumer, 1).await.remove(0);
    assert_eq!(first.message().body, "000");
    assert_eq!(other.receive(1, LEASE).await.unwrap().len(), 0);
    consumer.ack(first).await.unwrap();
    assert_eq!(take_one(&other).await.body, "001");
}
