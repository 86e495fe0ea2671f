//! Types of messages on the dev broker.

use std::{
    future::ready,
    time::{Duration, SystemTime},
};

use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use rocketmq_grpc::{
    Client, Config, Connector, Consumer, ConsumerConfig, Filter, Lease, Message, Producer,
    ProducerConfig, Resolution,
};

const SOON: Duration = Duration::from_secs(20);

struct Place {
    client: Client,
    _broker: DevBroker,
}

impl Place {
    async fn of(kind: TopicType) -> Self {
        let broker = DevBroker::builder()
            .strict(true)
            .topic("t", kind)
            .group("g", GroupConfig::new())
            .start()
            .await
            .unwrap();
        let link = broker.connector();
        let connector = Connector::new(tower::service_fn(move |_| ready(link.connect())));
        Self {
            client: Client::with_connector(Config::new("dev:8081"), connector).unwrap(),
            _broker: broker,
        }
    }

    async fn producer(&self, config: ProducerConfig) -> Producer {
        self.client.producer(config.topic("t")).await.unwrap()
    }

    async fn consumer(&self) -> Consumer {
        let config = ConsumerConfig::new("g").subscribe("t", Filter::all());
        self.client.consumer(config).await.unwrap()
    }
}

async fn receive(consumer: &Consumer, count: usize) -> Vec<Lease> {
    let mut leases = Vec::new();
    while leases.len() < count {
        let received = tokio::time::timeout(SOON, consumer.receive("t", 32)).await;
        leases.extend(received.expect("not all came").unwrap());
    }
    leases
}

#[tokio::test]
async fn messages_of_a_group_keep_their_order() {
    let place = Place::of(TopicType::Fifo).await;
    let (producer, consumer) = (
        place.producer(ProducerConfig::new()).await,
        place.consumer().await,
    );
    for n in 0..20 {
        let message = Message::new("t", vec![n]).group(format!("g{}", n % 3));
        producer.send(message).await.unwrap();
    }
    let leases = receive(&consumer, 20).await;
    for group in ["g0", "g1", "g2"] {
        let of_group = leases.iter().map(Lease::message);
        let of_group = of_group.filter(|it| it.group.as_deref() == Some(group));
        let mut places: Vec<_> = of_group
            .map(|it| (it.queue_id, it.queue_offset, it.body[0]))
            .collect();
        places.sort_unstable();
        assert!(places.len() >= 6 && places.iter().all(|it| it.0 == places[0].0));
        assert!(places.is_sorted_by_key(|it| it.2), "{places:?}");
    }
    let error = producer.send(Message::new("t", "plain")).await.unwrap_err();
    assert!(error.is_wrong_topic_type(), "{error}");
}

#[tokio::test]
async fn a_delayed_message_waits_and_a_recalled_one_never_comes() {
    let place = Place::of(TopicType::Delay).await;
    let (producer, consumer) = (
        place.producer(ProducerConfig::new()).await,
        place.consumer().await,
    );
    let delayed = |ms| Message::new("t", "x").delay(Duration::from_millis(ms));
    let recalled = producer.send(delayed(1_500)).await.unwrap();
    let kept = delayed(2_000);
    let due = kept.delivery_time().unwrap();
    let kept = producer.send(kept).await.unwrap();
    let past = Message::new("t", "x").deliver_at(SystemTime::UNIX_EPOCH);
    let past = producer.send(past).await.unwrap();
    let handle = recalled.recall_handle.unwrap();
    let id = producer.recall("t", &handle).await.unwrap();
    assert_eq!(id, recalled.message_id);
    let first = receive(&consumer, 1).await;
    assert_eq!(first[0].message().id, past.message_id);
    let second = receive(&consumer, 1).await;
    assert_eq!(second[0].message().id, kept.message_id);
    assert!(SystemTime::now() >= due);
    let late = kept.recall_handle.unwrap();
    producer.recall("t", &late).await.unwrap_err();
}

#[tokio::test]
async fn a_batch_comes_one_by_one_and_compressed_bodies_as_they_were() {
    let place = Place::of(TopicType::Normal).await;
    let config = ProducerConfig::new().compress_above(1000);
    let (producer, consumer) = (place.producer(config).await, place.consumer().await);
    let batch: Vec<_> = (0..5_u8).map(|n| Message::new("t", vec![n])).collect();
    let receipts = producer.send_batch(batch.clone()).await.unwrap();
    let mut came: Vec<_> = receive(&consumer, 5).await;
    // The dev broker may spread a batch over its queues.
    came.sort_by_key(|it| it.message().body[0]);
    for ((lease, message), receipt) in came.iter().zip(&batch).zip(&receipts) {
        let view = lease.message();
        assert_eq!((&*view.id, &view.body), (message.id(), message.body()));
        assert_eq!(view.id, receipt.message_id);
    }
    let large = vec![7; 100_000];
    producer
        .send(Message::new("t", large.clone()))
        .await
        .unwrap();
    assert_eq!(receive(&consumer, 1).await[0].message().body, large);
}

#[tokio::test]
async fn a_committed_message_comes_and_one_that_was_rolled_back_does_not() {
    let place = Place::of(TopicType::Transaction).await;
    let config = ProducerConfig::new().transaction_checker(async |_| Resolution::Unknown);
    let (producer, consumer) = (place.producer(config).await, place.consumer().await);
    let message = |body| Message::new("t", body);
    let rollback = async || Resolution::Rollback;
    let rolled_back = producer.transaction(message("no"), rollback).await.unwrap();
    assert!(rolled_back.unconfirmed.is_none());
    let transaction = producer.begin(message("yes")).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), consumer.receive("t", 1)).await;
    assert!(early.is_err(), "{early:?}");
    let receipt = transaction.commit().await.unwrap();
    let came = receive(&consumer, 1).await;
    assert_eq!(
        (&came[0].message().id, &came[0].message().body[..]),
        (&receipt.message_id, &b"yes"[..])
    );
    let more = tokio::time::timeout(Duration::from_millis(300), consumer.receive("t", 1)).await;
    assert!(more.is_err(), "{more:?}");
}
