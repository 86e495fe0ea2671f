//! How far a group has come, and setting it back: what the admin port says while a consumer is at it.

use std::time::Duration;

use rocketmq_admin::{Admin, Position};
use rocketmq_grpc::{Consumer, Lease, Message};
use tokio::time::Instant;

use crate::server::{Place, admin, client, in_seconds, name_server, unique};

const LEASE: Duration = Duration::from_secs(10);
/// A lease, and what the server may add.
const BACK_WITHIN: Duration = Duration::from_secs(40);

async fn lag(admin: &Admin, place: &Place) -> u64 {
    let lag = admin.lag_of_topic(&place.group, &place.topic).await;
    lag.unwrap().total()
}

async fn lag_becomes(admin: &Admin, place: &Place, wanted: u64) {
    let by = Instant::now() + BACK_WITHIN;
    loop {
        let now = lag(admin, place).await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < by, "lag {now}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn take(consumer: &Consumer, topic: &str, count: usize) -> Vec<Lease> {
    let mut leases = Vec::new();
    while leases.len() < count {
        let more = consumer.receive(topic, count - leases.len());
        let more = tokio::time::timeout(BACK_WITHIN, more).await;
        leases.extend(more.expect("nothing came in time").unwrap());
    }
    leases
}

async fn ack_all(consumer: &Consumer, leases: Vec<Lease>) {
    for lease in leases {
        consumer.ack(lease).await.unwrap();
    }
}

fn bodies(leases: &[Lease]) -> Vec<String> {
    let body = |it: &Lease| String::from_utf8(it.message().body.to_vec()).unwrap();
    let mut bodies: Vec<_> = leases.iter().map(body).collect();
    bodies.sort();
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_counts_what_was_not_handed_out_and_what_came_back() {
    let place = Place::new(":backoff=1s-1s");
    let admin = Admin::new(name_server()).unwrap();
    let consumer = place.consumer(LEASE).await;
    place.send(10).await;
    lag_becomes(&admin, &place, 10).await;

    // Held is not lag, acknowledged or not.
    let mut held = take(&consumer, &place.topic, 6).await;
    assert!(lag(&admin, &place).await <= 4);
    ack_all(&consumer, held.split_off(2)).await;
    assert!(lag(&admin, &place).await <= 4);

    // What lapses is lag again, in the topic of the group's retries. A receive that went on behind
    // the caller's back may hold more, which lapses as well.
    consumer.stop_receiving().await;
    drop(held);
    lag_becomes(&admin, &place, 6).await;
    let retries = format!("%RETRY%{}_{}", place.group, place.topic);
    let by_topic = admin.lag(&place.group).await.unwrap();
    assert!(by_topic.by_topic()[retries.as_str()] >= 2, "{by_topic:?}");
    consumer.close(in_seconds(5)).await.unwrap();
    // The retries go with the group.
    admin.delete_group(&place.group).await.unwrap();
    let topics = admin.topics().await.unwrap();
    assert!(topics.iter().all(|it| it.name != retries));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_brings_back_what_was_done_and_skips_what_waits() {
    let place = Place::new("");
    let admin = Admin::new(name_server()).unwrap();
    let consumer = place.consumer(LEASE).await;
    place.send(8).await;
    let first = take(&consumer, &place.topic, 8).await;
    let all = bodies(&first);
    ack_all(&consumer, first).await;

    let to = Position::Start;
    let offsets = admin.reset_offset(&place.group, &place.topic, to).await;
    assert!(offsets.unwrap().values().all(|it| *it == 0));
    // The same consumer gets them, with no restart.
    let again = take(&consumer, &place.topic, 8).await;
    assert_eq!(bodies(&again), all);
    ack_all(&consumer, again).await;
    consumer.close(in_seconds(5)).await.unwrap();

    place.send(5).await;
    lag_becomes(&admin, &place, 5).await;
    let to = Position::End;
    let offsets = admin.reset_offset(&place.group, &place.topic, to).await;
    assert_eq!(offsets.unwrap().values().sum::<u64>(), 13);
    assert_eq!(lag(&admin, &place).await, 0);
    let consumer = place.consumer_of_rest(LEASE).await;
    place.silence(&consumer, Duration::from_secs(3)).await;
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_to_a_time_brings_back_what_was_stored_since() {
    let place = Place::new("");
    let admin = Admin::new(name_server()).unwrap();
    let consumer = place.consumer(LEASE).await;
    let old = place.send(3).await;
    let leases = take(&consumer, &place.topic, 3).await;
    let newest = leases.iter().filter_map(|it| it.message().stored_at).max();
    ack_all(&consumer, leases).await;
    let between = newest.unwrap() + Duration::from_millis(500);
    tokio::time::sleep_until(in_seconds(1)).await;
    let new = place.send(4).await;
    ack_all(&consumer, take(&consumer, &place.topic, 4).await).await;

    let to = Position::Time(between);
    admin
        .reset_offset(&place.group, &place.topic, to)
        .await
        .unwrap();
    let leases = take(&consumer, &place.topic, 4).await;
    assert!(
        leases.iter().all(|it| new.contains(&it.message().id)),
        "{old:?} {leases:?}"
    );
    ack_all(&consumer, leases).await;
    lag_becomes(&admin, &place, 0).await;
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_of_an_orderly_group_counts_what_is_held() {
    let name = unique();
    let (topic, group) = (format!("rg_t_{name}"), format!("rg_g_{name}"));
    admin(&["topic", &format!("{topic}:FIFO:queues=1")]);
    admin(&["group", &format!("{group}:orderly")]);
    let place = Place {
        client: client(),
        topic,
        group,
    };
    let admin = Admin::new(name_server()).unwrap();
    let producer = place.producer().await;
    for n in 0..4 {
        let message = Message::new(&place.topic, n.to_string()).group("g");
        producer.send(message).await.unwrap();
    }
    producer.close(in_seconds(5)).await;

    // All were stored before the first receive, so they come in one batch.
    let consumer = place.consumer_of_rest(LEASE).await;
    let mut held = take(&consumer, &place.topic, 4).await;
    assert_eq!(lag(&admin, &place).await, 4);
    let last = held.split_off(3);
    ack_all(&consumer, held).await;
    lag_becomes(&admin, &place, 1).await;
    ack_all(&consumer, last).await;
    lag_becomes(&admin, &place, 0).await;
    consumer.close(in_seconds(5)).await.unwrap();
}
