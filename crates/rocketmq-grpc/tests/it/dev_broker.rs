use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use rocketmq_devbroker::DevBroker;
use rocketmq_grpc::{
    Client, Config, Connector, Consumer, ConsumerConfig, Filter, Lease, Message, ProducerConfig,
    PushConsumer, Settlement,
};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

async fn client() -> Client {
    let broker = DevBroker::start().await;
    let link = broker.connector();
    let connector = Connector::new(tower::service_fn(move |_| {
        std::future::ready(link.connect())
    }));
    Client::with_connector(Config::new("dev:8081"), connector).unwrap()
}

async fn consumer(client: &Client, group: &str, filter: Filter) -> Consumer {
    let config = ConsumerConfig::new(group).subscribe("orders", filter);
    client.consumer(config).await.unwrap()
}

async fn send(client: &Client, messages: impl IntoIterator<Item = Message>) {
    let producer = client
        .producer(ProducerConfig::new().topic("orders"))
        .await
        .unwrap();
    for message in messages {
        producer.send(message).await.unwrap();
    }
}

async fn receive_one(consumer: &Consumer, topic: &str) -> Lease {
    let received = tokio::time::timeout(SOON, consumer.receive(topic, 1)).await;
    received.expect("nothing came").unwrap().remove(0)
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_are_consumed_once_by_each_of_two_groups() {
    const COUNT: usize = 1000;
    let client = client().await;
    let consumers = [
        consumer(&client, "a", Filter::all()).await,
        consumer(&client, "b", Filter::all()).await,
    ];
    send(
        &client,
        (0..COUNT).map(|n| Message::new("orders", n.to_string())),
    )
    .await;
    for consumer in consumers {
        let (mut seen, mut settled) = (HashMap::<String, usize>::new(), 0);
        while settled < COUNT {
            tokio::select! {
                leases = consumer.receive("orders", 128), if seen.len() < COUNT => {
                    for lease in leases.unwrap() {
                        *seen.entry(lease.message().id.clone()).or_default() += 1;
                        consumer.settle(lease, Settlement::Ack);
                    }
                }
                reports = consumer.settled() => {
                    assert!(reports.iter().all(|it| it.result.is_ok()), "{reports:?}");
                    settled += reports.len();
                }
                () = tokio::time::sleep(SOON) => panic!("{} seen, {settled} settled", seen.len()),
            }
        }
        assert!(seen.len() == COUNT && seen.values().all(|it| *it == 1));
        consumer.close(in_seconds(5)).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_sent_is_what_comes_and_other_tags_do_not() {
    let client = client().await;
    let consumer = consumer(&client, "g", Filter::tags("a || b")).await;
    let message = Message::new("orders", vec![0, 255])
        .tag("b")
        .key("k")
        .property("p", "v");
    send(
        &client,
        [Message::new("orders", "x").tag("c"), message.clone()],
    )
    .await;
    let lease = receive_one(&consumer, "orders").await;
    let got = lease.message();
    assert_eq!(
        (got.id.as_str(), &got.body[..]),
        (message.id(), &[0, 255][..])
    );
    assert_eq!(
        (got.tag.as_deref(), got.keys.as_slice()),
        (Some("b"), &["k".to_owned()][..])
    );
    assert_eq!((got.properties["p"].as_str(), got.attempt), ("v", 1));
    consumer.ack(lease).await.unwrap();
    consumer.close(in_seconds(5)).await.unwrap();
}

#[tokio::test]
async fn a_message_handed_back_comes_again_and_a_dead_letter_can_be_read() {
    let client = client().await;
    let consumer = consumer(&client, "g", Filter::all()).await;
    let message = Message::new("orders", "poison");
    send(&client, [message.clone()]).await;
    let lease = receive_one(&consumer, "orders").await;
    consumer.hand_back(lease).await.unwrap();
    let mut lease = receive_one(&consumer, "orders").await;
    assert_eq!(lease.message().attempt, 2);
    consumer
        .extend(&mut lease, Duration::from_secs(60))
        .await
        .unwrap();
    consumer.dead_letter(lease).await.unwrap();
    let config = ConsumerConfig::new("undertaker").subscribe("%DLQ%g", Filter::all());
    let undertaker = client.consumer(config).await.unwrap();
    let lease = receive_one(&undertaker, "%DLQ%g").await;
    assert_eq!(lease.message().id, message.id());
    undertaker.ack(lease).await.unwrap();
}

#[tokio::test]
async fn an_idle_consumer_stops_in_less_than_a_second() {
    let client = client().await;
    let consumer = consumer(&client, "g", Filter::all()).await;
    let waiting = consumer.receive("orders", 32);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), waiting)
            .await
            .is_err()
    );
    let start = Instant::now();
    consumer.close(in_seconds(5)).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_consumer_stopped_and_started_under_load_handles_each_message_once() {
    const COUNT: usize = 300;
    let client = client().await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let start = async || {
        let config = ConsumerConfig::new("g").subscribe("orders", Filter::all());
        let done = done.clone();
        let handler = move |message: rocketmq_grpc::MessageView| {
            let done = done.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                done.lock().unwrap().push(message.id);
                Ok::<_, Infallible>(())
            }
        };
        PushConsumer::start(&client, config, 8, handler)
            .await
            .unwrap()
    };
    let count = || done.lock().unwrap().len();
    let first = start().await;
    send(
        &client,
        (0..COUNT).map(|n| Message::new("orders", n.to_string())),
    )
    .await;
    crate::fake::eventually("a quarter", || count() > COUNT / 4).await;
    first.stop(in_seconds(10)).await.unwrap();
    let second = start().await;
    crate::fake::eventually("all", || count() >= COUNT).await;
    second.stop(in_seconds(10)).await.unwrap();
    let mut ids = done.lock().unwrap().clone();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), count()), (COUNT, COUNT));
}
