//! Concurrency, order and back-pressure.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kratos_broker::{
    AnyError, Backoff, Delivery, Message, Order, Policy, Router, memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};

use crate::support::{
    Log, failed, millis, publish, publish_numbers, secs, server, subscription, text, until,
};

#[tokio::test(start_paused = true)]
async fn runs_as_many_at_once_as_there_are_lanes_and_never_more() {
    let broker = Broker::new();
    let (running, most, done) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Log::default(),
    );
    let handler = {
        let (running, most, done) = (running.clone(), most.clone(), done.clone());
        move |delivery: Delivery| {
            let (running, most, done) = (running.clone(), most.clone(), done.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(millis(50)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                done.add(text(&delivery));
            }
        }
    };
    let router = Router::new().subscribe_with(subscription().concurrency(7), handler);
    let started = Started::start(server(&broker, router)).await;
    let begin = Instant::now();
    publish_numbers(&broker, 70).await;
    until("all are done", || done.len() == 70).await;
    assert_eq!(most.load(Ordering::SeqCst), 7);
    assert!(
        begin.elapsed() < millis(900),
        "ten rounds of 50 ms: {:?}",
        begin.elapsed()
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_key_stay_in_order_while_some_fail_and_other_keys_go_on() {
    const KEYS: usize = 8;
    const EACH: usize = 40;
    let broker = Broker::new();
    let done = Log::<(String, u32)>::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                let number: u32 = text(&delivery).parse()?;
                sleep(millis(u64::from(number % 3))).await;
                if number % 10 == 3 && delivery.attempt() < 3 {
                    return Err(AnyError::msg("on purpose"));
                }
                done.add((delivery.keys()[0].clone(), number));
                Ok(())
            }
        }
    };
    let subscription = subscription()
        .order(Order::ByKey)
        .concurrency(4)
        .prefetch(100);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    for number in 0..EACH {
        for key in 0..KEYS {
            publish(
                &broker,
                Message::new("t", number.to_string()).key(format!("k{key}")),
            )
            .await;
        }
    }
    until("all are done", || done.len() == KEYS * EACH).await;
    let mut of_key: HashMap<String, Vec<u32>> = HashMap::new();
    for (key, number) in done.all() {
        of_key.entry(key).or_default().push(number);
    }
    for (key, numbers) in of_key {
        assert!(
            numbers.is_sorted() && numbers.len() == EACH,
            "{key}: {numbers:?}"
        );
    }
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_parks_its_slot_only_and_ends_as_a_dead_letter() {
    let broker = Broker::new();
    let (tries, done) = (Log::<(Instant, u32)>::default(), Log::default());
    let handler = {
        let (tries, done) = (tries.clone(), done.clone());
        move |delivery: Delivery| {
            let (tries, done) = (tries.clone(), done.clone());
            async move {
                if text(&delivery) == "bad" {
                    tries.add((Instant::now(), delivery.attempt()));
                    return failed();
                }
                done.add((text(&delivery), Instant::now()));
                Ok(())
            }
        }
    };
    let policy = Policy::ordered()
        .max_attempts(3)
        .backoff(Backoff::fixed(secs(2)));
    let subscription = subscription()
        .order(Order::ByKey)
        .concurrency(1)
        .ordered_policy(policy);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    let begin = Instant::now();
    publish(&broker, Message::new("t", "bad").key("stuck")).await;
    publish(&broker, Message::new("t", "behind").key("stuck")).await;
    publish(&broker, Message::new("t", "other").key("free")).await;
    publish(&broker, Message::new("t", "keyless")).await;
    until("three are done", || done.len() == 3).await;
    let names: Vec<_> = done.all().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["other", "keyless", "behind"]);
    assert!(done.all()[1].1 - begin < millis(100), "others do not wait");
    let attempts: Vec<_> = tries
        .all()
        .iter()
        .map(|(at, n)| ((*at - begin).as_secs(), *n))
        .collect();
    assert_eq!(attempts, [(0, 1), (2, 2), (4, 3)]);
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn never_holds_more_than_lanes_and_prefetch() {
    let broker = Broker::new();
    let most = Log::default();
    let handler = {
        let (broker, most) = (broker.clone(), most.clone());
        move || {
            let (broker, most) = (broker.clone(), most.clone());
            async move {
                most.add(broker.held("t", "g"));
                sleep(millis(10)).await;
            }
        }
    };
    let subscription = subscription().concurrency(2).prefetch(3);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    publish_numbers(&broker, 100).await;
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(most.all().into_iter().max(), Some(5));
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn holds_no_more_bytes_than_allowed_plus_one_message() {
    let broker = Broker::new();
    let most = Log::default();
    let handler = {
        let (broker, most) = (broker.clone(), most.clone());
        move || {
            let (broker, most) = (broker.clone(), most.clone());
            async move {
                most.add(broker.held("t", "g"));
                sleep(millis(10)).await;
            }
        }
    };
    let subscription = subscription()
        .concurrency(1)
        .prefetch(50)
        .prefetch_bytes(1_000);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    for _ in 0..20 {
        publish(&broker, Message::new("t", vec![0; 400])).await;
    }
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert!(most.all().into_iter().max() <= Some(3), "{:?}", most.all());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_group_waits_for_the_settlement_of_the_one_before() {
    let broker = Broker::new();
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move {
                log.add(format!("start {}", text(&delivery)));
                sleep(millis(20)).await;
                log.add(format!("end {}", text(&delivery)));
            }
        }
    };
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    ))
    .await;
    for n in 0..3 {
        publish(&broker, Message::new("t", n.to_string()).group("one")).await;
    }
    until("all are done", || log.len() == 6).await;
    assert_eq!(
        log.all(),
        ["start 0", "end 0", "start 1", "end 1", "start 2", "end 2"]
    );
    started.stop(secs(5)).await.unwrap();
}
