//! The simple consumer, and consumers of several brokers.

use std::time::Duration;

use rocketmq_devbroker::DevBroker;
use rocketmq_grpc::{
    Client, Config, Connector, Consumer, Filter, Message, Settlement, SimpleConsumer,
    SimpleConsumerConfig,
};
use rocketmq_proto::v2::{self as pb, Code, settings::PubSub};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{
    Fake, GROUP, Item, TOPIC, consumer_config, eventually, message, messages, route, status,
};

const LEASE: Duration = Duration::from_secs(15);

fn config() -> SimpleConsumerConfig {
    SimpleConsumerConfig::new(GROUP)
        .subscribe(TOPIC, Filter::tags("*"))
        .await_duration(Duration::from_secs(10))
}

async fn simple(fake: &Fake) -> SimpleConsumer {
    fake.client().simple_consumer(config()).await.unwrap()
}

/// Two brokers, each a server of its own; the first is the access point as well.
fn two_brokers() -> (Fake, Fake, Client) {
    let (first, second) = (Fake::start(), Fake::start());
    first.state().brokers = vec!["one", "two"];
    let (one, two) = (first.link.clone(), second.link.clone());
    let connector = Connector::new(tower::service_fn(move |uri: http::Uri| {
        let host = uri.host().unwrap_or_default().to_owned();
        let connected = match host.as_str() {
            "two" => two.connect(&host),
            _ => one.connect(&host),
        };
        std::future::ready(connected)
    }));
    let client = Client::with_connector(Fake::config(), connector).unwrap();
    (first, second, client)
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn it_says_what_it_is_and_asks_with_the_duration_of_the_call() {
    let fake = Fake::start();
    let consumer = simple(&fake).await;
    fake.push(messages(0..2));
    let leases = consumer.receive(2, LEASE).await.unwrap();
    let left = leases[0].deadline() - Instant::now();
    assert!(left > LEASE - Duration::from_secs(1) && left <= LEASE);
    for lease in leases {
        consumer.ack(lease).await.unwrap();
    }
    let state = fake.state();
    let settings = &state.seen.settings[0];
    assert_eq!(settings.client_type(), pb::ClientType::SimpleConsumer);
    let Some(PubSub::Subscription(subscription)) = &settings.pub_sub else {
        panic!("{settings:?}");
    };
    let entry = &subscription.subscriptions[0];
    assert_eq!(entry.topic.as_ref().unwrap().name, TOPIC);
    assert_eq!(entry.expression.as_ref().unwrap().expression, "*");
    let request = &state.seen.receives[0];
    assert!(!request.auto_renew && request.batch_size == 2);
    assert_eq!(request.invisible_duration.as_ref().unwrap().seconds, 15);
    assert!(request.attempt_id.as_ref().is_some_and(|it| !it.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_receive_without_messages_ends_with_the_await_duration() {
    let fake = Fake::start();
    let consumer = simple(&fake).await;
    let start = Instant::now();
    assert!(consumer.receive(8, LEASE).await.unwrap().is_empty());
    let took = start.elapsed();
    assert!((10..11).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receive_of_one_message_does_not_wait_for_a_broker_that_has_none() {
    for has_it in [0, 1] {
        let (first, second, client) = two_brokers();
        let consumer = client.simple_consumer(config()).await.unwrap();
        let start = Instant::now();
        [&first, &second][has_it].push(vec![message("it")]);
        let leases = consumer.receive(1, LEASE).await.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(leases.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_call_asked_for_is_returned_by_the_next() {
    let fake = Fake::start();
    let consumer = simple(&fake).await;
    let dropped = consumer.receive(4, LEASE);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), dropped)
            .await
            .is_err()
    );
    fake.push(messages(0..3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = fake.calls("receive");
    let leases = consumer.receive(2, Duration::from_secs(60)).await.unwrap();
    assert_eq!((leases.len(), fake.calls("receive")), (2, asked));
    assert!(
        leases[0].deadline() <= Instant::now() + LEASE,
        "the lease that it was asked with"
    );
    assert_eq!(consumer.receive(2, LEASE).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_while_nobody_waits() {
    let fake = Fake::start();
    let consumer = simple(&fake).await;
    assert!(consumer.receive(4, LEASE).await.unwrap().is_empty());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = fake.calls("receive");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(fake.calls("receive"), asked);
}

#[tokio::test(start_paused = true)]
async fn a_changed_duration_replaces_the_handle_and_a_failure_keeps_it() {
    let fake = Fake::start();
    let consumer = simple(&fake).await;
    fake.push(messages(0..1));
    let mut lease = consumer.receive(1, LEASE).await.unwrap().remove(0);
    let before = lease.deadline();
    let refused = |code| {
        Ok(pb::ChangeInvisibleDurationResponse {
            status: status(code),
            receipt_handle: String::new(),
        })
    };
    fake.state().changes = [refused(Code::IllegalInvisibleTime)].into();
    let minute = Duration::from_secs(60);
    let failed = consumer.change_invisible_duration(&mut lease, minute).await;
    assert!(failed.is_err() && lease.deadline() == before);
    let changed = consumer.change_invisible_duration(&mut lease, minute).await;
    assert!(changed.unwrap() > before);
    consumer.ack(lease).await.unwrap();
    let state = fake.state();
    assert_eq!(state.seen.changes[1].receipt_handle, "h-0");
    assert_eq!(state.seen.acks[0][0].receipt_handle, "h-0+");
}

#[tokio::test(start_paused = true)]
async fn subscriptions_change_at_run_time_and_the_server_is_told_at_once() {
    let fake = Fake::start();
    let consumer = simple(&fake).await;
    assert!(consumer.subscribe("unknown", Filter::all()).await.is_err());
    fake.state().routes = [route(Code::Ok, &["fake"])].into();
    consumer
        .subscribe("refunds", Filter::tags("a || b"))
        .await
        .unwrap();
    let told = |fake: &Fake| {
        let state = fake.state();
        let Some(PubSub::Subscription(it)) = &state.seen.settings.last().unwrap().pub_sub else {
            panic!("{:?}", state.seen.settings);
        };
        let topics = it.subscriptions.iter();
        topics
            .map(|it| it.topic.clone().unwrap().name)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&fake), [TOPIC, "refunds"]);
    let waiting = consumer.receive(8, LEASE);
    let _ = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    let asked = |fake: &Fake, topic: &str| {
        let state = fake.state();
        let receives = state.seen.receives.iter();
        let of = |it: &&pb::ReceiveMessageRequest| {
            let queue = it.message_queue.as_ref().unwrap();
            queue.topic.as_ref().unwrap().name == topic
        };
        receives.filter(of).count()
    };
    assert_eq!((asked(&fake, TOPIC), asked(&fake, "refunds")), (1, 1));

    consumer.unsubscribe(TOPIC);
    eventually("the server is told", || told(&fake) == ["refunds"]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = asked(&fake, TOPIC);
    assert!(consumer.receive(8, LEASE).await.unwrap().is_empty());
    assert_eq!(asked(&fake, TOPIC), before);
    assert!(asked(&fake, "refunds") > 1);
}

#[tokio::test(start_paused = true)]
async fn arguments_that_cannot_work_are_refused_here() {
    let fake = Fake::start();
    let client = fake.client();
    let none = SimpleConsumerConfig::new(GROUP);
    assert!(client.simple_consumer(none).await.unwrap_err().is_invalid());
    let consumer = simple(&fake).await;
    for (max, lease) in [(0, 15), (1, 9), (1, 43_201)] {
        let lease = Duration::from_secs(lease);
        assert!(consumer.receive(max, lease).await.unwrap_err().is_invalid());
    }
    assert!(
        consumer
            .subscribe("a.b", Filter::all())
            .await
            .unwrap_err()
            .is_invalid()
    );
    let bar = consumer.subscribe(TOPIC, Filter::tags("a | b")).await;
    assert!(bar.unwrap_err().is_invalid());
    assert_eq!(fake.calls("receive"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_a_receive_that_waits_and_hands_back_what_nobody_took() {
    let fake = Fake::start();
    let consumer = std::sync::Arc::new(simple(&fake).await);
    fake.push(messages(0..3));
    let first = consumer.receive(4, LEASE).await.unwrap();
    assert!(!first.is_empty());
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.receive(4, LEASE).await }
    });
    eventually("it waits", || fake.calls("receive") == 2).await;
    let start = Instant::now();
    consumer.close(in_seconds(5)).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert!(waiting.await.unwrap().unwrap().is_empty());
    assert!(
        consumer
            .receive(4, LEASE)
            .await
            .is_ok_and(|it| it.is_empty())
    );
    assert_eq!(fake.state().seen.calls.last(), Some(&"termination"));
}

#[tokio::test]
async fn all_topics_are_received_from_on_the_dev_broker() {
    let broker = DevBroker::start().await;
    let link = broker.connector();
    let connector = Connector::new(tower::service_fn(move |_| {
        std::future::ready(link.connect())
    }));
    let client = Client::with_connector(Config::new("dev:8081"), connector).unwrap();
    let config = SimpleConsumerConfig::new("billing")
        .subscribe("orders", Filter::all())
        .subscribe("refunds", Filter::all());
    let consumer = client.simple_consumer(config).await.unwrap();
    let producer = client.producer(Default::default()).await.unwrap();
    for topic in ["orders", "refunds", "orders"] {
        producer.send(Message::new(topic, "x")).await.unwrap();
    }
    let mut topics = Vec::new();
    while topics.len() < 3 {
        for lease in consumer.receive(1, LEASE).await.unwrap() {
            topics.push(lease.message().topic.to_string());
            consumer.ack(lease).await.unwrap();
        }
    }
    topics.sort();
    assert_eq!(topics, ["orders", "orders", "refunds"]);
    consumer.close(in_seconds(5)).await.unwrap();
    assert!(broker.in_flight("billing").is_empty());
}

async fn receive(consumer: &Consumer, count: usize) -> Vec<rocketmq_grpc::Lease> {
    let mut leases = Vec::new();
    while leases.len() < count {
        leases.extend(consumer.receive(TOPIC, 64).await.unwrap());
    }
    leases
}

#[tokio::test(start_paused = true)]
async fn settlements_go_to_the_broker_that_the_message_came_from() {
    let (first, second, client) = two_brokers();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    first.push((0..4).map(|n| message(&format!("one-{n}"))).collect());
    second.push((0..4).map(|n| message(&format!("two-{n}"))).collect());
    let how = [
        Settlement::Ack,
        Settlement::HandBack,
        Settlement::DeadLetter,
        Settlement::RetryAfter(Duration::from_secs(1)),
    ];
    for mut lease in receive(&consumer, 8).await {
        let id = lease.message().id.clone();
        consumer.extend(&mut lease, LEASE).await.unwrap();
        let n: usize = id[4..].parse().unwrap();
        consumer.settle(lease, how[n]);
    }
    let mut settled = Vec::new();
    while settled.len() < 8 {
        settled.extend(consumer.settled().await);
    }
    assert!(settled.iter().all(|it| it.result.is_ok()), "{settled:?}");
    for (fake, name) in [(&first, "one"), (&second, "two")] {
        let state = fake.state();
        let acked = state.seen.acks.iter().flatten().map(|it| &it.message_id);
        let changed = state.seen.changes.iter().map(|it| &it.message_id);
        let all: Vec<_> = acked.chain(changed).chain(&state.seen.dead).collect();
        assert!(
            all.len() == 4 + 4 && all.iter().all(|it| it.starts_with(name)),
            "{all:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_dies_does_not_stop_the_other() {
    let (first, second, client) = two_brokers();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    second.push(messages(0..1));
    let orphan = receive(&consumer, 1).await.remove(0);
    second.link.refuse(true);
    second.link.cut();
    consumer.settle(orphan, Settlement::Ack);
    for n in 1..20 {
        first.push(messages(n..n + 1));
        let leases = receive(&consumer, 1).await;
        consumer.settle(leases.into_iter().next().unwrap(), Settlement::Ack);
    }
    let mut confirmed = 0;
    while confirmed < 19 {
        confirmed += consumer
            .settled()
            .await
            .iter()
            .filter(|it| it.result.is_ok())
            .count();
    }
    // Back again, it is used again.
    second.link.refuse(false);
    second.push(messages(50..51));
    assert_eq!(receive(&consumer, 1).await[0].message().id, "50");
}

#[tokio::test(start_paused = true)]
async fn an_ack_after_an_extension_whose_answer_was_lost_is_not_called_confirmed() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(messages(0..1));
    let mut lease = receive(&consumer, 1).await.remove(0);
    fake.state().changes = [Err(Status::unavailable("lost"))].into();
    consumer.extend(&mut lease, LEASE).await.unwrap();
    let error = consumer.ack(lease).await.unwrap_err();
    assert!(
        error.is_receipt_expired() && error.to_string().contains("extension"),
        "{error}"
    );
    assert_eq!(fake.calls("ack"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_size_and_a_long_poll_that_the_server_sets_at_run_time_are_obeyed() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let seconds = prost_types::Duration {
        seconds: 7,
        nanos: 0,
    };
    let command = rocketmq_proto::v2::telemetry_command::Command::Settings(pb::Settings {
        pub_sub: Some(PubSub::Subscription(pb::Subscription {
            receive_batch_size: Some(5),
            long_polling_timeout: Some(seconds),
            ..Default::default()
        })),
        ..Default::default()
    });
    fake.command(&command);
    eventually("the settings", || {
        consumer.settings().receive_batch_size == 5
    })
    .await;
    fake.push(vec![Item::Status(Code::Ok), message("1")]);
    receive(&consumer, 1).await;
    let state = fake.state();
    let request = state.seen.receives.last().unwrap();
    assert_eq!(request.batch_size, 5);
    assert_eq!(request.long_polling_timeout.as_ref().unwrap().seconds, 7);
}
