//! Several addresses of one proxy, addresses that are rewritten, namespaces.

use std::time::Duration;

use rocketmq_grpc::{Client, Message, ProducerConfig};
use rocketmq_proto::v2::{self as pb, Code};

use crate::fake::{Fake, TOPIC, consumer_config, eventually, message, status};

fn config(endpoints: &str) -> rocketmq_grpc::Config {
    rocketmq_grpc::Config::new(endpoints)
        .request_timeout(Duration::from_secs(1))
        .heartbeat_interval(Duration::from_secs(2))
}

/// A route that names both addresses, as a proxy of a cluster does.
fn both(fake: &Fake) {
    let addresses = ["one", "two"].map(|host| pb::Address {
        host: host.to_owned(),
        port: 1,
    });
    let mut queue = crate::fake::route(Code::Ok, &["x"])
        .unwrap()
        .message_queues
        .remove(0);
    queue.broker.as_mut().unwrap().endpoints = Some(pb::Endpoints {
        scheme: pb::AddressScheme::DomainName.into(),
        addresses: addresses.into(),
    });
    let answer = pb::QueryRouteResponse {
        status: status(Code::Ok),
        message_queues: vec![queue],
    };
    fake.state().routes = (0..100).map(|_| Ok(answer.clone())).collect();
}

#[tokio::test(start_paused = true)]
async fn a_client_stays_with_one_address_and_moves_to_the_other_when_it_is_lost_and_back() {
    let fake = Fake::start();
    both(&fake);
    let client = Client::with_connector(config("one:1;two:1"), fake.link.connector()).unwrap();
    let producer = client
        .producer(ProducerConfig::new().topic(TOPIC))
        .await
        .unwrap();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    for _ in 0..20 {
        producer.send(Message::new(TOPIC, "x")).await.unwrap();
    }
    assert_eq!(fake.link.hosts(), ["one"], "one connection, to the first");

    for (lost, other) in [("one", "two"), ("two", "one")] {
        fake.link.refuse_host(lost);
        fake.link.cut();
        eventually("the consumer notices", || !consumer.is_connected()).await;
        eventually("the other address", || consumer.is_connected()).await;
        producer.send(Message::new(TOPIC, "x")).await.unwrap();
        fake.push(vec![message("1")]);
        let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
        consumer.ack(lease).await.unwrap();
        assert_eq!(fake.link.hosts().last(), Some(&other.to_owned()));
        // The first one is back, and nobody moves without need.
        fake.link.refuse_host("");
        let before = fake.link.connections();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(fake.link.connections(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_half_open_is_left_for_the_other() {
    let fake = Fake::start();
    both(&fake);
    let client = Client::with_connector(config("one:1;two:1"), fake.link.connector()).unwrap();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    fake.link.refuse_host("one");
    fake.link.freeze();
    eventually("the other address", || {
        fake.link.hosts().last().is_some_and(|it| it == "two")
    })
    .await;
    eventually("the session", || consumer.is_connected()).await;
    fake.push(vec![message("1")]);
    consumer.receive(TOPIC, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn addresses_of_routes_are_rewritten_and_the_configured_ones_are_not() {
    let fake = Fake::start();
    fake.state().brokers = vec!["inside-a", "inside-b"];
    let config = config("fake:1")
        .rewrite_addresses(|host, port| (host.replace("inside", "outside"), port + 1000));
    let client = Client::with_connector(config, fake.link.connector()).unwrap();
    let producer = client
        .producer(ProducerConfig::new().topic(TOPIC))
        .await
        .unwrap();
    let receipt = producer.send(Message::new(TOPIC, "x")).await.unwrap();
    let to = receipt.endpoints.to_string();
    assert!(to.starts_with("outside-") && to.ends_with(":1001"), "{to}");
    let mut hosts = fake.link.hosts();
    hosts.sort();
    assert_eq!(hosts, ["fake", "outside-a", "outside-b"]);
}

#[tokio::test(start_paused = true)]
async fn the_namespace_is_in_the_headers_and_in_every_name() {
    let fake = Fake::start();
    let config = Fake::config().namespace("shop");
    let client = Client::with_connector(config, fake.link.connector()).unwrap();
    let producer = client
        .producer(ProducerConfig::new().topic(TOPIC))
        .await
        .unwrap();
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    fake.push(vec![message("1"), message("2")]);
    for lease in consumer.receive(TOPIC, 2).await.unwrap() {
        consumer.retry_after(lease, Duration::ZERO).await.unwrap();
    }
    let state = fake.state();
    let namespaces = state.seen.headers.iter();
    assert!(
        namespaces
            .map(|it| it.get("x-mq-namespace").unwrap())
            .all(|it| it == "shop")
    );
    let change = &state.seen.changes[0];
    let receive = &state.seen.receives[0];
    let queue = receive.message_queue.as_ref().unwrap();
    let named = [
        &state.seen.sends[0].topic,
        &change.topic,
        &change.group,
        &receive.group,
        &queue.topic,
    ];
    for resource in named {
        assert_eq!(resource.as_ref().unwrap().resource_namespace, "shop");
    }
    for settings in &state.seen.settings {
        use pb::settings::PubSub;
        let names: Vec<_> = match settings.pub_sub.clone().unwrap() {
            PubSub::Publishing(it) => it.topics,
            PubSub::Subscription(it) => it
                .subscriptions
                .into_iter()
                .filter_map(|it| it.topic)
                .chain(it.group)
                .collect(),
        };
        assert!(!names.is_empty() && names.iter().all(|it| it.resource_namespace == "shop"));
    }
}
