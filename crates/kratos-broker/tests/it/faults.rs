//! A broker that misbehaves.

use kratos::Health;
use kratos_broker::{Message, Publisher, Router, memory::Broker, testing::Started};
use tokio::time::sleep;

use crate::support::{Log, millis, publish_numbers, secs, server, subscription, until};

#[tokio::test(start_paused = true)]
async fn failed_receives_degrade_and_back_off_until_they_work_again() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move || {
            let done = done.clone();
            async move { done.add(()) }
        }
    };
    let server = server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    );
    let counters = server.counters();
    let started = Started::start(server).await;
    assert_eq!(started.health(), Health::Serving);
    broker.disconnect();
    until("it is degraded", || {
        matches!(started.health(), Health::Degraded(_))
    })
    .await;
    sleep(secs(60)).await;
    let failed = counters.stats().receive_failed;
    assert!(
        (5..=40).contains(&failed),
        "no hot loop: {failed} receives in a minute"
    );
    broker.reconnect();
    publish_numbers(&broker, 1).await;
    until("it is handled", || done.len() == 1).await;
    assert_eq!(started.health(), Health::Serving);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_settlement_is_given_up_counted_and_the_message_comes_again() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move || {
            let done = done.clone();
            async move { done.add(()) }
        }
    };
    let server = server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    );
    let counters = server.counters();
    let started = Started::start(server).await;
    broker.refuse_settlements(1);
    publish_numbers(&broker, 1).await;
    until("it is refused", || counters.stats().refused == 1).await;
    until("it comes again", || done.len() == 2).await;
    until("it is done", || broker.backlog("t", "g") == 0).await;
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!(
        (stats.refused, stats.confirmed),
        (1, 1),
        "one answer per settlement, no retry"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_is_in_flight_until_its_settlement_is_confirmed() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let (broker, done) = (broker.clone(), done.clone());
        move || {
            let (broker, done) = (broker.clone(), done.clone());
            async move {
                // From the first message on, no settlement is answered.
                broker.disconnect();
                done.add(());
            }
        }
    };
    publish_numbers(&broker, 50).await;
    let subscription = subscription().concurrency(1).prefetch(3);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    sleep(secs(5)).await;
    assert!(
        done.len() <= 4,
        "no more than there is room for: {}",
        done.len()
    );
    started.stop(secs(5)).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_failed_publish_stores_nothing_and_is_transient() {
    let broker = Broker::new();
    broker.fail_publishes(1);
    let publisher = Publisher::new(broker.clone());
    let error = publisher.publish(Message::new("t", "x")).await.unwrap_err();
    assert!(error.is_transient());
    publisher.publish(Message::new("t", "y")).await.unwrap();
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription(), || async {}),
    ))
    .await;
    until("it is joined", || broker.backlog("t", "g") == 0).await;
    sleep(millis(10)).await;
    started.stop(secs(5)).await.unwrap();
}
