//! The lease keeper, and what a lost lease does.

use kratos_broker::{
    Attempt, Backoff, Cancelled, Message, Policy, Router, memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};

use crate::{
    failures::OnDrop,
    support::{Log, failed, publish, publish_numbers, secs, server, subscription, text, until},
};

#[tokio::test(start_paused = true)]
async fn a_lost_lease_cancels_the_handler_and_settles_nothing() {
    let broker = Broker::new();
    let (runs, dropped) = (Log::default(), Log::default());
    let handler = {
        let (runs, dropped) = (runs.clone(), dropped.clone());
        move |Attempt(attempt): Attempt, Cancelled(token): Cancelled| {
            let (runs, dropped) = (runs.clone(), dropped.clone());
            async move {
                runs.add(attempt);
                if attempt == 1 {
                    let _guard = OnDrop(dropped, token);
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    let server = server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    );
    let counters = server.counters();
    let started = Started::start(server).await;
    let id = publish(&broker, kratos_broker::Message::new("t", "x")).await;
    until("it runs", || runs.len() == 1).await;
    assert!(broker.lose_lease("g", &id));
    until("it is done", || {
        broker.backlog("t", "g") == 0 && dropped.len() == 1
    })
    .await;
    assert_eq!(
        dropped.all(),
        [true],
        "the token fired, then the future was dropped"
    );
    assert_eq!(runs.all(), [1, 2]);
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!((stats.leases_lost, stats.handled, stats.failed), (1, 1, 0));
    assert_eq!(
        (stats.confirmed, stats.refused),
        (1, 0),
        "one settlement in all"
    );
}

#[tokio::test(start_paused = true)]
async fn renewal_stops_at_the_maximum_and_the_message_comes_again() {
    let broker = Broker::new();
    let runs = Log::default();
    let handler = {
        let runs = runs.clone();
        move |Attempt(attempt): Attempt| {
            let runs = runs.clone();
            async move {
                runs.add(Instant::now());
                if attempt == 1 {
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    let subscription = subscription()
        .invisible_duration(secs(10))
        .max_hold(secs(60));
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    publish_numbers(&broker, 1).await;
    until("it is done", || broker.backlog("t", "g") == 0).await;
    let [first, second] = runs.all()[..] else {
        panic!("two runs")
    };
    let held = (second - first).as_secs();
    assert!((60..=71).contains(&held), "held for {held} s");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_keep_their_leases() {
    let broker = Broker::new();
    let runs = Log::default();
    let handler = {
        let runs = runs.clone();
        move |Attempt(attempt): Attempt| {
            let runs = runs.clone();
            async move {
                sleep(secs(20)).await;
                runs.add(attempt);
            }
        }
    };
    let subscription = subscription().invisible_duration(secs(10)).concurrency(1);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    publish_numbers(&broker, 20).await;
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(
        runs.all(),
        [1; 20],
        "each once, though the last waited 380 s"
    );
    started.stop(secs(25)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_does_not_wait_for_a_message_that_is_lost_while_it_waits_for_its_retry() {
    let broker = Broker::new();
    let runs = Log::default();
    let handler = {
        let runs = runs.clone();
        move |delivery: kratos_broker::Delivery| {
            let runs = runs.clone();
            async move {
                runs.add((text(&delivery), delivery.attempt(), Instant::now()));
                if delivery.body() == "a" && delivery.attempt() == 1 {
                    return failed();
                }
                Ok(())
            }
        }
    };
    let policy = Policy::ordered().backoff(Backoff::fixed(secs(3000)));
    let subscription = subscription().ordered_policy(policy);
    let router = Router::new().subscribe_with(subscription, handler);
    let started = Started::start(server(&broker, router)).await;
    let a = publish(&broker, Message::new("t", "a").key("k").group("g1")).await;
    until("it has failed", || runs.len() == 1).await;
    let begin = Instant::now();
    assert!(broker.lose_lease("g", &a));
    until("it has come again", || runs.len() == 2).await;
    let (body, attempt, at) = runs.all()[1].clone();
    assert_eq!((body.as_str(), attempt), ("a", 2));
    assert!(at - begin < secs(60), "{:?}", at - begin);
    started.stop(secs(5)).await.unwrap();
}
