//! Defects of consuming.

use std::{collections::HashSet, time::Duration};

use kratos::App;
use kratos_broker::{AnyError, Backoff, Delivery, Json, Message, Policy, State, testing::Started};
use kratos_rocketmq::{Client, Server, Subscription};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use tokio::time::sleep;

use super::{Got, get, impatient, running, start, stop};
use crate::site::{GROUP, Gate, PATIENCE, Site, TOPIC, eventually, within};

/// Fails until it is tried for the third time.
async fn fail_twice(State(got): State<Got>, delivery: Delivery) -> Result<(), AnyError> {
    let attempt = delivery.attempt();
    got.add(delivery);
    if attempt < 3 {
        return Err(AnyError::msg("on purpose"));
    }
    Ok(())
}

#[tokio::test]
async fn v2_1_a_failed_handler_is_not_acknowledged() {
    let (site, got) = (Site::new(), Got::default());
    let server = Server::new(site.client.clone())
        .subscribe_with(impatient(), fail_twice)
        .with_state(got.clone());
    let running = start(App::new().resource(site.client.clone()).server(server)).await;
    let ids = site.publish(1).await;
    got.reaches(3).await;
    eventually("it is acknowledged", || site.is_settled()).await;
    let seen: Vec<_> = got
        .all()
        .iter()
        .map(|d| (d.id().clone(), d.attempt()))
        .collect();
    assert_eq!(seen, [1, 2, 3].map(|attempt| (ids[0].clone(), attempt)));
    stop(running).await;
}

#[tokio::test]
async fn v2_11_two_members_on_one_host_share_all_queues() {
    let (site, got) = (Site::new(), Got::default());
    let members = [running(&site, &got).await, running(&site, &got).await];
    let clients: HashSet<_> = site
        .broker
        .connected_clients()
        .into_iter()
        .filter(|client| client.group.is_some())
        .map(|client| client.id)
        .collect();
    assert_eq!(clients.len(), 2, "an id each");
    site.publish(100).await;
    got.reaches(100).await;
    eventually("none is left", || site.is_settled()).await;
    assert_eq!(got.count(), 100, "once each");
    for member in members {
        stop(member).await;
    }
}

#[tokio::test]
async fn v2_21_a_tag_that_is_not_subscribed_to_does_not_come() {
    let (site, got) = (Site::new(), Got::default());
    let server = Server::new(site.client.clone())
        .subscribe_with(Subscription::new(TOPIC, GROUP).tags(["a"]), get)
        .with_state(got.clone());
    let running = start(App::new().resource(site.client.clone()).server(server)).await;
    let publisher = Client::of(site.broker.clone()).publisher();
    for tag in ["b", "a", "b", "a"] {
        let message = Message::new(TOPIC, tag).tag(tag);
        publisher.publish(message).await.unwrap();
    }
    got.reaches(2).await;
    eventually("the rest is passed over", || site.is_settled()).await;
    assert_eq!(got.bodies(), ["a", "a"]);
    stop(running).await;
}

#[tokio::test]
async fn v2_33_a_handler_sees_id_queue_and_attempt() {
    let (site, got) = (Site::new(), Got::default());
    let running = running(&site, &got).await;
    let ids = site.publish(1).await;
    got.reaches(1).await;
    let delivery = got.all().remove(0);
    assert_eq!(*delivery.id(), ids[0]);
    assert_eq!((delivery.topic().as_str(), delivery.attempt()), (TOPIC, 1));
    assert!(delivery.partition().is_some() && delivery.born().is_some());
    stop(running).await;
}

#[tokio::test]
async fn v5_4_a_batch_is_not_followed_by_a_pause() {
    let (site, got) = (Site::new(), Got::default());
    let running = running(&site, &got).await;
    site.publish(300).await;
    // With 16 messages every 3 s it would take a minute.
    within(PATIENCE, got.reaches(300)).await;
    stop(running).await;
}

fn short_leases() -> DevBroker {
    DevBroker::builder()
        .strict(true)
        .min_invisible(Duration::from_secs(1))
        .topic(TOPIC, TopicType::Normal)
        .topic_with_queues("ordered", TopicType::Fifo, 1)
        .group(GROUP, GroupConfig::new())
        .group("in-order", GroupConfig::new().fifo(true))
        .in_memory()
        .unwrap()
}

#[tokio::test]
async fn v5_5_messages_that_wait_behind_a_slow_handler_are_not_redelivered() {
    let (broker, got) = (short_leases(), Got::default());
    let slow = |State(got): State<Got>, delivery: Delivery| async move {
        sleep(Duration::from_millis(800)).await;
        got.add(delivery);
    };
    let subscription = Subscription::new(TOPIC, GROUP)
        .invisible_duration(Duration::from_secs(2))
        .concurrency(1);
    let client = Client::of(broker.clone());
    let server = Server::new(client.clone())
        .subscribe_with(subscription, slow)
        .with_state(got.clone());
    let running = start(App::new().resource(client.clone()).server(server)).await;
    let publisher = client.publisher();
    for n in 0..8 {
        publisher
            .publish(Message::new(TOPIC, n.to_string()))
            .await
            .unwrap();
    }
    got.reaches(8).await;
    eventually("all are acknowledged", || {
        broker.lag(TOPIC, GROUP) == 0 && broker.in_flight(GROUP).is_empty()
    })
    .await;
    assert_eq!(
        got.count(),
        8,
        "once each, though the last waited for three leases"
    );
    assert!(got.all().iter().all(|delivery| delivery.attempt() == 1));
    stop(running).await;
}

#[tokio::test]
async fn v5_11_the_messages_behind_a_failed_one_wait_for_it() {
    let (broker, got) = (short_leases(), Got::default());
    let fail_once = |State(got): State<Got>, delivery: Delivery| async move {
        let fails = delivery.body() == "2" && delivery.attempt() == 1;
        got.add(delivery);
        if fails {
            return Err(AnyError::msg("on purpose"));
        }
        Ok(())
    };
    let policy = Policy::ordered().backoff(Backoff::fixed(Duration::from_millis(50)));
    let subscription = Subscription::new("ordered", "in-order")
        .fifo()
        .ordered_policy(policy);
    let client = Client::of(broker);
    let server = Server::new(client.clone())
        .subscribe_with(subscription, fail_once)
        .with_state(got.clone());
    let running = start(App::new().resource(client.clone()).server(server)).await;
    let publisher = client.publisher();
    for n in 1..=5 {
        let message = Message::new("ordered", n.to_string()).group("g");
        publisher.publish(message).await.unwrap();
    }
    got.reaches(6).await;
    assert_eq!(got.bodies(), ["1", "2", "2", "3", "4", "5"]);
    stop(running).await;
}

#[tokio::test]
async fn v5_23_an_acknowledgement_that_is_refused_is_counted() {
    let (site, gate) = (Site::new(), Gate::new());
    let server = site.server(&gate);
    let counters = server.counters();
    let started = Started::start(server).await;
    site.publish(1).await;
    gate.entered(1).await;
    site.broker.expire_leases(GROUP);
    gate.open.add_permits(2);
    eventually("it is told", || counters.stats().refused == 1).await;
    gate.entered(1).await;
    eventually("it is done again", || site.is_settled()).await;
    assert_eq!(counters.stats().handled, 2);
    started.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn al_3_a_broker_that_stalls_for_a_while_is_consumed_from_again() {
    let (site, got) = (Site::new(), Got::default());
    let running = running(&site, &got).await;
    site.publish(1).await;
    got.reaches(1).await;
    site.broker.freeze();
    sleep(Duration::from_secs(40)).await;
    site.broker.thaw();
    let publisher = Client::of(site.broker.clone()).publisher();
    publisher.publish(Message::new(TOPIC, "x")).await.unwrap();
    // On a paused clock: minutes are free.
    let again = async {
        while got.count() < 2 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    within(Duration::from_secs(120), again).await;
    stop(running).await;
}

#[tokio::test]
async fn sv_14_null_is_a_body_that_cannot_be_decoded() {
    #[derive(serde::Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "what is read is not looked at")]
        number: u64,
    }
    async fn bill(_: Json<Order>) {}
    let site = Site::new();
    let server = Server::new(site.client.clone()).subscribe(TOPIC, GROUP, bill);
    let running = start(App::new().resource(site.client.clone()).server(server)).await;
    let publisher = Client::of(site.broker.clone()).publisher();
    publisher
        .publish(Message::new(TOPIC, "null"))
        .await
        .unwrap();
    eventually("it is a dead letter", || {
        site.broker.dead_letters(GROUP).len() == 1
    })
    .await;
    stop(running).await;
}
