use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use rocketmq_grpc::{ConsumerConfig, Filter, PushConsumer, Settlement};
use tokio::time::Instant;

use crate::server::{Place, Seen, in_seconds, until_known};

const LEASE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_idle_consumer_stops_in_less_than_a_second() {
    let place = Place::new("");
    let consumer = place.consumer(LEASE).await;
    let stopping = Instant::now();
    consumer.stop_receiving().await;
    assert!(consumer.receive(&place.topic, 1).await.unwrap().is_empty());
    consumer.close(in_seconds(5)).await.unwrap();
    println!("idle stop: {:?}", stopping.elapsed());
    assert!(stopping.elapsed() < Duration::from_secs(1));
    assert!(consumer.settled().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing_and_acknowledges_each_message_once() {
    const MESSAGES: usize = 1000;
    let place = Place::new("");
    let first = place.consumer(LEASE).await;
    let ids = place.send(MESSAGES).await;
    let mut done = Seen::default();

    // The first takes a third, stops in the midst of its receives, and finishes what it has.
    while done.0.len() < MESSAGES / 3 {
        for lease in first.receive(&place.topic, 64).await.unwrap() {
            done.add(&lease);
            first.settle(lease, Settlement::Ack);
        }
    }
    let stopping = Instant::now();
    first.stop_receiving().await;
    loop {
        let leases = first.receive(&place.topic, 64).await.unwrap();
        if leases.is_empty() {
            break;
        }
        for lease in leases {
            done.add(&lease);
            first.settle(lease, Settlement::Ack);
        }
    }
    first.close(in_seconds(10)).await.unwrap();
    println!(
        "stop under load: {:?}, {} done",
        stopping.elapsed(),
        done.0.len()
    );

    let second = place.consumer_of_rest(LEASE).await;
    let by = in_seconds(60);
    while done.0.len() < MESSAGES {
        let received = tokio::time::timeout_at(by, second.receive(&place.topic, 64)).await;
        for lease in received.expect("messages were lost").unwrap() {
            done.add(&lease);
            second.settle(lease, Settlement::Ack);
        }
    }
    place.silence(&second, Duration::from_secs(5)).await;
    second.close(in_seconds(5)).await.unwrap();
    done.assert_each_once(&ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_consumer_stopped_under_load_finishes_its_handlers() {
    const MESSAGES: usize = 200;
    let place = Place::new("");
    place
        .consumer(LEASE)
        .await
        .close(in_seconds(5))
        .await
        .unwrap();
    let done = Arc::new(Mutex::new(Vec::new()));
    let start = async || {
        let config = ConsumerConfig::new(&place.group).subscribe(&place.topic, Filter::all());
        let done = done.clone();
        PushConsumer::start(&place.client, config, 8, move |message| {
            let done = done.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                done.lock().unwrap().push(message.id);
                Ok::<_, Infallible>(())
            }
        })
        .await
    };
    let first = until_known(start).await;
    let ids = place.send(MESSAGES).await;
    let count = || done.lock().unwrap().len();
    let poll = Duration::from_millis(20);
    while count() < MESSAGES / 4 {
        tokio::time::sleep(poll).await;
    }
    first.stop(in_seconds(10)).await.unwrap();
    let second = start().await.unwrap();
    let by = in_seconds(90);
    while count() < MESSAGES {
        assert!(Instant::now() < by, "{} of {MESSAGES}", count());
        tokio::time::sleep(poll).await;
    }
    second.stop(in_seconds(10)).await.unwrap();
    let mut done = done.lock().unwrap().clone();
    let mut ids = ids;
    done.sort();
    ids.sort();
    assert_eq!(done, ids, "each once");
}
