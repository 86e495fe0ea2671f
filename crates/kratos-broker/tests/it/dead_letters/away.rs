//! A topic that takes no dead letters, for now or for good.

use kratos::Health;
use kratos_broker::{
    Attempt, DeadLetter, Delivery, Message, Order, Policy, Router, Server, Subscription,
    memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};

use super::{held_for_a_minute, to_topic, watch};
use crate::support::{Log, failed, millis, publish, publish_numbers, secs, server, text, until};

#[tokio::test(start_paused = true)]
async fn while_the_topic_is_away_the_lease_is_kept_and_the_key_waits() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                if delivery.body() == "bad" {
                    return failed();
                }
                done.add(text(&delivery));
                Ok(())
            }
        }
    };
    let subscription = to_topic()
        .order(Order::ByKey)
        .invisible_duration(secs(10))
        .ordered_policy(Policy::ordered().max_attempts(1));
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let (counters, controls) = (server.counters(), server.controls());
    let started = Started::start(server).await;
    for (body, key) in [("bad", "a"), ("behind", "a"), ("other", "b")] {
        publish(&broker, Message::new("t", body).key(key)).await;
    }
    broker.fail_publishes(5);
    until("another key goes on", || done.len() == 1).await;
    until("it is tried again", || {
        counters.stats().dead_letter_failed == 4
    })
    .await;
    assert_eq!(done.all(), ["other"], "its key waits");
    assert!(matches!(started.health(), Health::Degraded(reason) if reason.contains("topic dead")));
    assert_eq!(controls.subscriptions()[0].dead_lettering, 1);
    until("the one behind it runs", || done.len() == 2).await;
    until("all is settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(started.health(), Health::Serving);
    let stats = counters.stats();
    assert_eq!((stats.received, stats.leases_lost), (3, 0));
    assert_eq!((stats.dead_lettered, stats.dead_letter_failed), (1, 5));
    started.stop(secs(5)).await.unwrap();
    let (dead, watcher) = watch(&broker, "dead").await;
    until("it is there", || dead.len() == 1).await;
    watcher.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn publishing_is_given_up_with_the_lease_at_its_maximum() {
    let broker = Broker::new();
    let tries = Log::default();
    let handler = {
        let tries = tries.clone();
        move |Attempt(attempt): Attempt| {
            let tries = tries.clone();
            async move {
                tries.add((attempt, Instant::now()));
                failed()
            }
        }
    };
    let subscription = held_for_a_minute();
    publish_numbers(&broker, 1).await;
    broker.fail_publishes(u32::MAX);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    until("it comes again", || tries.len() == 2).await;
    let [(1, first), (2, second)] = tries.all()[..] else {
        panic!("{:?}", tries.all())
    };
    let held = (second - first).as_secs();
    assert!((60..=71).contains(&held), "held for {held} s");
    broker.fail_publishes(0);
    until("it is published", || broker.backlog("t", "g") == 0).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_hands_back_what_cannot_be_published() {
    let broker = Broker::new();
    let subscription = to_topic().policy(Policy::new().max_attempts(1));
    let router = Router::new().subscribe_with(subscription, || async { failed() });
    let server = server(&broker, router);
    let counters = server.counters();
    publish_numbers(&broker, 40).await;
    broker.fail_publishes(u32::MAX);
    let started = Started::start(server).await;
    until("all have failed", || counters.stats().failed == 40).await;
    sleep(secs(60)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (40, 0));
    let stats = counters.stats();
    assert_eq!((stats.dead_lettered, stats.handed_back), (0, 40));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_publish_under_way_end() {
    let broker = Broker::new();
    let subscription = to_topic().policy(Policy::new().max_attempts(1));
    let router = Router::new().subscribe_with(subscription, || async {
        sleep(secs(2)).await;
        failed()
    });
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 10).await;
    until("all run", || broker.held("t", "g") == 10).await;
    sleep(millis(100)).await;
    broker.fail_publishes(0);
    started.stop(secs(20)).await.unwrap();
    assert_eq!(broker.backlog("t", "g"), 0, "published and acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_trying_where_others_are_done_behind_and_reports_what_it_cannot_do() {
    let broker = Broker::new().batches_are_units(1);
    let handler = |delivery: Delivery| async move {
        if delivery.body() == "a0" {
            return failed();
        }
        Ok(())
    };
    let mut ids = Vec::new();
    for group in ["a", "b"] {
        ids.push(publish(&broker, Message::new("t", format!("{group}0")).group(group)).await);
    }
    let subscription = Subscription::new("t", "g")
        .fifo()
        .dead_letter(DeadLetter::topic("dead"));
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let counters = server.counters();
    let started = Started::start(server).await;
    broker.fail_publishes(u32::MAX);
    until("it is tried", || counters.stats().dead_letter_failed > 1).await;
    let begin = Instant::now();
    let error = started.stop(secs(10)).await.unwrap_err();
    assert!(begin.elapsed() <= secs(10), "{:?}", begin.elapsed());
    assert_eq!(error.abandoned_ids(), ids, "both come again");
    assert_eq!(broker.held("t", "g"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_topic_never_takes_is_moved_by_the_broker() {
    let broker = Broker::new();
    let subscription = to_topic().policy(Policy::new().max_attempts(1));
    let router = Router::new().subscribe_with(subscription, || async { failed() });
    let server = Server::new(broker.clone()).routes(router);
    let counters = server.counters();
    let started = Started::start(server).await;
    // A publisher of ours would have refused it.
    let message = Message::new("t", "x").header("bad\u{1}", "x");
    kratos_broker::Driver::publish(&broker, message)
        .await
        .unwrap();
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    assert_eq!(counters.stats().dead_lettered, 1);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn trouble_with_dead_letters_ends_with_the_last_letter() {
    let broker = Broker::new().max_attempts(1); // the broker gives up by itself when the lease is over
    let subscription = held_for_a_minute();
    publish_numbers(&broker, 1).await;
    broker.fail_publishes(u32::MAX);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, || async { failed() }),
    ))
    .await;
    until("the broker has moved it", || {
        broker.dead_letters("g").len() == 1
    })
    .await;
    broker.fail_publishes(0);
    sleep(secs(60)).await;
    assert_eq!(started.health(), Health::Serving);
    started.stop(secs(5)).await.unwrap();
}
