//! The simple consumer, and filters, on the real server.

use std::time::Duration;

use rocketmq_grpc::{ConsumerConfig, Filter, Message, SimpleConsumerConfig};
use tokio::time::Instant;

use crate::server::{Place, in_seconds, until_known};

const LEASE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_simple_consumer_receives_from_all_its_topics_and_changes_durations() {
    let (place, other) = (Place::new(""), Place::new(""));
    let config = || {
        SimpleConsumerConfig::new(&place.group)
            .subscribe(&place.topic, Filter::all())
            .await_duration(Duration::from_secs(6))
    };
    let consumer = until_known(async || place.client.simple_consumer(config()).await).await;
    other.producer().await;
    consumer
        .subscribe(&other.topic, Filter::all())
        .await
        .unwrap();
    let start = Instant::now();
    assert!(consumer.receive(1, LEASE).await.unwrap().is_empty());
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(6) && took < Duration::from_secs(7),
        "{took:?}"
    );

    // One place, and the message is in the one or the other.
    for from in [&place, &other, &place] {
        from.send(1).await;
        let start = Instant::now();
        let mut leases = consumer.receive(1, LEASE).await.unwrap();
        println!("received after {:?}", start.elapsed());
        assert_eq!(leases.len(), 1);
        let mut lease = leases.remove(0);
        assert_eq!(&*lease.message().topic, from.topic);
        let changed = consumer.change_invisible_duration(&mut lease, Duration::from_secs(30));
        assert!(changed.await.unwrap() > Instant::now() + Duration::from_secs(29));
        consumer.ack(lease).await.unwrap();
    }
    // Shortened: it comes again.
    place.send(1).await;
    let mut lease = consumer.receive(1, LEASE).await.unwrap().remove(0);
    let shortened = consumer.change_invisible_duration(&mut lease, Duration::from_secs(1));
    shortened.await.unwrap();
    // The server takes its time: a receive ends sooner, with nothing.
    let again = tokio::time::timeout(Duration::from_secs(40), async {
        loop {
            if let Some(again) = consumer.receive(1, LEASE).await.unwrap().pop() {
                return again;
            }
        }
    });
    let again = again.await.expect("it comes again");
    assert_eq!(
        (again.message().id.as_str(), again.message().attempt),
        (&*lease.message().id, 2)
    );
    consumer.ack(again).await.unwrap();

    consumer.unsubscribe(&other.topic);
    // What was on its way when it left still comes: by the end of this, nothing is.
    assert!(consumer.receive(1, LEASE).await.unwrap().is_empty());
    other.send(1).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(12) {
        assert!(consumer.receive(1, LEASE).await.unwrap().is_empty());
    }
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn messages_are_filtered_by_a_condition_and_by_tags_of_one_hash() {
    let cases = [
        (
            Filter::sql("price > 20 AND region = 'eu'"),
            ["dear"].as_slice(),
        ),
        (Filter::sql("price BETWEEN 5 AND 15"), &["cheap"]),
        (Filter::sql("unknown IS NOT NULL"), &[]),
        (Filter::tags(" AaAa "), &["cheap"]),
        (Filter::tags("aaaa"), &[]),
    ];
    let mut places = Vec::new();
    for (filter, wanted) in cases {
        let place = Place::new("");
        let config = || ConsumerConfig::new(&place.group).subscribe(&place.topic, filter.clone());
        let consumer = until_known(async || place.client.consumer(config()).await).await;
        let _ = tokio::time::timeout(
            Duration::from_millis(300),
            consumer.receive(&place.topic, 8),
        )
        .await;
        let producer = place.producer().await;
        for (body, price, tag) in [("cheap", "10", "AaAa"), ("dear", "30", "BBBB")] {
            let message = Message::new(&place.topic, body).tag(tag);
            let message = message.property("price", price).property("region", "eu");
            producer.send(message).await.unwrap();
        }
        places.push((place, consumer, filter, wanted));
    }
    for (place, consumer, filter, wanted) in &places {
        let mut got = Vec::new();
        let by = Instant::now() + Duration::from_secs(if wanted.is_empty() { 3 } else { 8 });
        while got.len() <= wanted.len() {
            let received = tokio::time::timeout_at(by, consumer.receive(&place.topic, 8)).await;
            let Ok(leases) = received else { break };
            for lease in leases.unwrap() {
                got.push(String::from_utf8_lossy(&lease.message().body).into_owned());
                consumer.ack(lease).await.unwrap();
            }
        }
        assert_eq!(&got, wanted, "{filter:?}");
    }
}
