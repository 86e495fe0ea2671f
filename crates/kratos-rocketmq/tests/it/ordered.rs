//! Ordered consumption by a whole App: drained, dropped, started again; and what else goes through
//! the driver.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos::App;
use kratos_broker::{AnyError, Backoff, Delivery, Message, Policy, State};
use kratos_rocketmq::{Client, Server, Subscription};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use tokio::time::sleep;

use crate::site::{Running, eventually};

const TOPIC: &str = "accounts";
const GROUP: &str = "ledger";
const GROUPS: usize = 4;
const EACH: usize = 20;

fn broker() -> DevBroker {
    DevBroker::builder()
        .strict(true)
        .min_invisible(Duration::from_secs(1))
        .topic_with_queues(TOPIC, TopicType::Fifo, 2)
        .topic("news", TopicType::Normal)
        .group(GROUP, GroupConfig::new().fifo(true))
        .group("plain", GroupConfig::new())
        .in_memory()
        .unwrap()
}

/// What was done, by message group.
#[derive(Clone, Default)]
struct Done(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

impl Done {
    fn first_times(&self) -> usize {
        let groups = self.0.lock().unwrap();
        let distinct = |numbers: &Vec<usize>| numbers.iter().collect::<HashSet<_>>().len();
        groups.values().map(distinct).sum()
    }

    fn assert_in_order(&self) {
        for (group, numbers) in &*self.0.lock().unwrap() {
            let mut seen = HashSet::new();
            let mut first = numbers.clone();
            first.retain(|number| seen.insert(*number));
            assert!(first.iter().copied().eq(0..EACH), "{group}: {numbers:?}");
        }
    }
}

async fn slowly(State(done): State<Done>, delivery: Delivery) -> Result<(), AnyError> {
    sleep(Duration::from_millis(10)).await;
    let number: usize = std::str::from_utf8(delivery.body())?.parse()?;
    if number % 7 == 5 && delivery.attempt() == 1 {
        return Err(AnyError::msg("fails at first"));
    }
    let group = delivery.message_group().unwrap_or_default().to_owned();
    done.0
        .lock()
        .unwrap()
        .entry(group)
        .or_default()
        .push(number);
    Ok(())
}

fn fifo() -> Subscription {
    let policy = Policy::ordered().backoff(Backoff::fixed(Duration::from_millis(50)));
    Subscription::new(TOPIC, GROUP)
        .fifo()
        .invisible_duration(Duration::from_secs(3))
        .ordered_policy(policy)
}

fn app(broker: &DevBroker, done: &Done) -> App {
    let client = Client::of(broker.clone());
    let server = Server::new(client.clone())
        .subscribe_with(fifo().concurrency(4), slowly)
        .with_state(done.clone());
    App::new().resource(client).server(server)
}

/// Lets the group count from here, then publishes all.
async fn publish(broker: &DevBroker) {
    let running = Running::start(app(broker, &Done::default()));
    running.ready().await;
    sleep(Duration::from_millis(300)).await;
    running.signals.send();
    running.ended().await.0.unwrap();
    let publisher = Client::of(broker.clone()).publisher();
    for number in 0..EACH {
        for group in 0..GROUPS {
            let message = Message::new(TOPIC, number.to_string()).group(format!("g{group}"));
            publisher.publish(message).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_app_that_is_drained_in_the_middle_of_retries_and_started_again_keeps_the_order() {
    let (broker, done) = (broker(), Done::default());
    publish(&broker).await;
    for round in 1..=3 {
        let so_far = done.first_times();
        let running = Running::start(app(&broker, &done));
        running.ready().await;
        let goal = if round < 3 {
            so_far + 15
        } else {
            GROUPS * EACH
        };
        eventually("it gets on", || {
            done.first_times() >= goal.min(GROUPS * EACH)
        })
        .await;
        running.signals.send();
        running.ended().await.0.unwrap();
    }
    done.assert_in_order();
    eventually("all is settled", || broker.lag(TOPIC, GROUP) == 0).await;
}

#[tokio::test]
async fn an_app_that_dies_and_is_started_again_keeps_the_order() {
    let (broker, done) = (broker(), Done::default());
    publish(&broker).await;
    let running = Running::start(app(&broker, &done));
    running.ready().await;
    eventually("it gets on", || done.first_times() >= 20).await;
    running.kill();
    let again = Running::start(app(&broker, &done));
    again.ready().await;
    eventually("all are done", || done.first_times() >= GROUPS * EACH).await;
    done.assert_in_order();
    again.signals.send();
    again.ended().await.0.unwrap();
}

#[tokio::test]
async fn a_group_of_the_other_kind_is_refused_with_the_command_that_mends_it() {
    let broker = broker();
    let wrong = [
        (
            Subscription::new(TOPIC, GROUP),
            "subscribe with fifo()",
            "group create ledger ",
        ),
        (
            Subscription::new("news", "plain").fifo(),
            "fifo() subscription",
            "group create plain:orderly ",
        ),
    ];
    for (subscription, what, command) in wrong {
        let client = Client::of(broker.clone());
        let server = Server::new(client.clone())
            .subscribe_with(subscription, slowly)
            .with_state(Done::default());
        let app = App::new().resource(client).server(server);
        let error = Running::start(app).ended().await.0.unwrap_err();
        let said = kratos::error_chain(&error).to_string();
        assert!(said.contains(what) && said.contains(command), "{said}");
    }
}

#[tokio::test]
async fn headers_that_rocketmq_would_not_carry_come_back_as_they_were() {
    #[derive(Clone, Default)]
    struct Got(Arc<Mutex<Vec<Delivery>>>);
    async fn take(State(got): State<Got>, delivery: Delivery) {
        got.0.lock().unwrap().push(delivery);
    }
    let (broker, got) = (broker(), Got::default());
    let client = Client::of(broker.clone());
    let server = Server::new(client.clone())
        .subscribe("news", "plain", take)
        .with_state(got.clone());
    let running = Running::start(App::new().resource(client.clone()).server(server));
    running.ready().await;
    sleep(Duration::from_millis(300)).await;
    let odd = [
        ("TTL", "60"),
        ("empty", ""),
        ("lines", "a\r\nb"),
        ("x-escaped-a", "=1"),
        ("plain", "ä"),
    ];
    let message = odd
        .into_iter()
        .fold(Message::new("news", "x"), |m, (name, value)| {
            m.header(name, value)
        });
    client.publisher().publish(message).await.unwrap();
    eventually("it comes", || !got.0.lock().unwrap().is_empty()).await;
    let delivery = got.0.lock().unwrap().remove(0);
    for (name, value) in odd {
        assert_eq!(delivery.headers().get(name), Some(value), "{name}");
    }
    let spaced = Message::new("news", "x").key("order 7");
    let error = client.publisher().publish(spaced).await.unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().contains("order 7"),
        "{error}"
    );
    running.signals.send();
    running.ended().await.0.unwrap();
}

#[tokio::test]
async fn a_broadcast_on_a_cluster_without_its_admin_address_is_refused() {
    let config = kratos_rocketmq::Config {
        endpoints: Some("127.0.0.1:1".to_owned()),
        ..Default::default()
    };
    let client = Client::new(config).unwrap();
    let server = Server::new(client)
        .subscribe_with(Subscription::new("news", "caches").broadcast(), slowly)
        .with_state(Done::default());
    let bound = kratos::Server::bind(server, kratos_broker::testing::start_context()).await;
    let said = kratos::error_chain(&bound.unwrap_err()).to_string();
    assert!(
        said.contains("rocketmq.admin") && said.contains("caches"),
        "{said}"
    );
}
