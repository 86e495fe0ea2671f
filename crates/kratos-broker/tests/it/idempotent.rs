//! The idempotent layer: each message handled once.

mod store;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use kratos_broker::{
    AnyError, Delivery, KillSwitch, Message, Policy, Router, Server, Subscription,
    idempotent::{Begun, IdempotentLayer, MemoryStore, Store},
    memory::Broker,
    testing::Started,
};
use tokio::time::{Instant, sleep};

use crate::support::{Log, failed, publish, secs, server, subscription, text, until};

/// One message group of ids, whatever the broker calls the message.
fn by_key(store: impl Store) -> IdempotentLayer<impl Store> {
    IdempotentLayer::new(store, "g").key(|delivery| delivery.keys().first().cloned())
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_of_a_done_message_is_acknowledged_without_being_handled() {
    let broker = Broker::new();
    let (log, layer) = (Log::default(), by_key(MemoryStore::new()));
    let stats = layer.stats();
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move { log.add(text(&delivery)) }
        }
    };
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription(), handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "first").key("o1")).await;
    until("it is handled", || stats.handled() == 1).await;
    publish(&broker, Message::new("t", "again").key("o1")).await;
    publish(&broker, Message::new("t", "other").key("o2")).await;
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(log.all(), ["first", "other"]);
    assert_eq!((stats.handled(), stats.duplicates()), (2, 1));
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_after_a_lost_acknowledgement_is_not_handled_again() {
    let broker = Broker::new();
    let log = Log::default();
    let layer = IdempotentLayer::new(MemoryStore::new(), "g");
    let stats = layer.stats();
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move { log.add(delivery.attempt()) }
        }
    };
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription().invisible_duration(secs(10)), handler);
    let started = Started::start(server(&broker, router)).await;
    broker.refuse_settlements(1);
    publish(&broker, Message::new("t", "x")).await;
    until("it comes again", || stats.duplicates() == 1).await;
    until("it is settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(log.all(), [1]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_clears_the_mark_and_the_retry_is_handled() {
    let broker = Broker::new();
    let log = Log::default();
    let layer = IdempotentLayer::new(MemoryStore::new(), "g");
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move {
                log.add((delivery.attempt(), Instant::now()));
                match delivery.attempt() {
                    1 => failed(),
                    2 => panic!("on purpose"),
                    3 => {
                        sleep(secs(60)).await;
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
        }
    };
    let subscription = subscription().handler_timeout(secs(20));
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription, handler);
    let started = Started::start(server(&broker, router)).await;
    let began = Instant::now();
    publish(&broker, Message::new("t", "x")).await;
    until("it is settled", || broker.backlog("t", "g") == 0).await;
    let attempts: Vec<u32> = log.all().iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(
        attempts,
        [1, 2, 3, 4],
        "no attempt is spent on waiting for a mark"
    );
    assert!(began.elapsed() < secs(30), "{:?}", began.elapsed());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_in_flight_is_tried_again_when_the_first_is_done() {
    let broker = Broker::new();
    let (log, running) = (Log::default(), Arc::new(AtomicUsize::new(0)));
    let layer = by_key(MemoryStore::new());
    let stats = layer.stats();
    let handler = {
        let (log, running) = (log.clone(), running.clone());
        move |delivery: Delivery| {
            let (log, running) = (log.clone(), running.clone());
            async move {
                assert_eq!(running.fetch_add(1, SeqCst), 0, "two at the same time");
                sleep(secs(200)).await; // longer than the mark lasts without being extended
                running.fetch_sub(1, SeqCst);
                log.add(text(&delivery));
            }
        }
    };
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription(), handler);
    let started = Started::start(server(&broker, router)).await;
    for body in ["one", "two", "three"] {
        publish(&broker, Message::new("t", body).key("o1")).await;
    }
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(log.len(), 1);
    assert_eq!((stats.handled(), stats.duplicates()), (1, 2));
    assert!(stats.in_flight() >= 2 && stats.expired() == 0, "{stats:?}");
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_on_its_last_attempt_waits_rather_than_become_a_dead_letter() {
    let broker = Broker::new();
    let layer = by_key(MemoryStore::new()).hold(secs(5));
    let stats = layer.stats();
    let handler = |_: Delivery| async { sleep(secs(100)).await };
    let policy = Policy::new().max_attempts(1);
    let router = Router::new()
        .layer(layer)
        .subscribe_with(Subscription::new("t", "g").policy(policy), handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "one").key("o1")).await;
    publish(&broker, Message::new("t", "two").key("o1")).await;
    until("both are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!((stats.handled(), stats.duplicates()), (1, 1));
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_mark_of_a_crashed_process_blocks_until_it_expires_and_no_longer() {
    let broker = Broker::new();
    let store = MemoryStore::new();
    let layer = by_key(store.clone());
    let stats = layer.stats();
    // What a process leaves behind that died while it handled the message.
    let began = Instant::now();
    let left = store.begin("g", "key:o1", secs(60)).await.unwrap();
    assert!(matches!(left, Begun::New(_)));
    std::mem::forget(left);
    let handler = |_: Delivery| async {};
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription(), handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "x").key("o1")).await;
    until("it is handled", || stats.handled() == 1).await;
    let waited = began.elapsed();
    assert!((secs(60)..secs(65)).contains(&waited), "{waited:?}");
    assert_eq!(stats.in_flight(), 1, "one attempt is spent on it");
    started.stop(secs(5)).await.unwrap();
}

/// A server whose handler succeeds, behind the layer.
fn behind(
    broker: &Broker,
    layer: IdempotentLayer<impl Store>,
    subscription: Subscription,
) -> Server<Broker> {
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription, |_: Delivery| async {});
    server(broker, router)
}

/// What a process leaves behind that died while it handled these messages.
async fn crashed_in(store: &MemoryStore, count: usize) {
    for n in 0..count {
        let left = store.begin("g", &format!("key:o{n}"), secs(60)).await;
        assert!(matches!(left, Ok(Begun::New(_))));
        std::mem::forget(left);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_crashed_process_left_neither_fails_nor_opens_the_kill_switch() {
    for policy in [
        Policy::new(),
        Policy::new().in_process(5),
        Policy::ordered(),
    ] {
        let broker = Broker::new();
        let store = MemoryStore::new();
        crashed_in(&store, 12).await;
        let layer = by_key(store);
        let stats = layer.stats();
        let subscription = Subscription::new("t", "g")
            .policy(policy)
            .kill_switch(KillSwitch::new());
        let server = behind(&broker, layer, subscription);
        let counters = server.counters();
        let started = Started::start(server).await;
        for n in 0..12 {
            publish(&broker, Message::new("t", "x").key(format!("o{n}"))).await;
        }
        until("all are handled", || stats.handled() == 12).await;
        assert!(stats.in_flight() >= 12, "{stats:?}");
        let seen = counters.stats();
        assert_eq!((seen.failed, seen.switch_opened), (0, 0), "{seen:?}");
        assert!(broker.dead_letters("g").is_empty());
        started.stop(secs(5)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_outlasts_the_time_limit_makes_no_dead_letter_of_a_last_attempt() {
    let broker = Broker::new();
    let store = MemoryStore::new();
    crashed_in(&store, 2).await;
    let layer = by_key(store);
    let stats = layer.stats();
    let subscription = Subscription::new("t", "g")
        .policy(Policy::new().max_attempts(1))
        .handler_timeout(secs(10));
    let started = Started::start(behind(&broker, layer, subscription)).await;
    let began = Instant::now();
    publish(&broker, Message::new("t", "x").key("o0")).await;
    publish(&broker, Message::new("t", "x").key("o1").group("g1")).await;
    until("both are settled", || broker.backlog("t", "g") == 0).await;
    assert!(broker.dead_letters("g").is_empty());
    assert_eq!(stats.handled(), 2);
    assert!(began.elapsed() < secs(65), "{:?}", began.elapsed());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_last_attempt_that_waits_for_a_mark_goes_back_when_the_process_stops() {
    let broker = Broker::new();
    let store = MemoryStore::new();
    crashed_in(&store, 1).await;
    let layer = by_key(store);
    let stats = layer.stats();
    let subscription = Subscription::new("t", "g").policy(Policy::new().max_attempts(1));
    let started = Started::start(behind(&broker, layer, subscription)).await;
    publish(&broker, Message::new("t", "x").key("o0")).await;
    until("it waits", || stats.in_flight() == 1).await;
    started.stop(secs(5)).await.unwrap();
    assert!(broker.dead_letters("g").is_empty());
    assert_eq!(broker.backlog("t", "g"), 1);
}

#[tokio::test(start_paused = true)]
async fn each_group_has_its_own_marks_in_a_shared_store() {
    let broker = Broker::new();
    let store = MemoryStore::new();
    let log = Log::default();
    let note = |group: &'static str| {
        let log = log.clone();
        move |_: Delivery| {
            let log = log.clone();
            async move { log.add(group) }
        }
    };
    let one = Router::new()
        .layer(IdempotentLayer::new(store.clone(), "one"))
        .subscribe("t", "one", note("one"));
    let two = Router::new()
        .layer(IdempotentLayer::new(store, "two"))
        .subscribe("t", "two", note("two"));
    let router = Router::new().merge(one).merge(two);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "x")).await;
    until("both handle it", || log.len() == 2).await;
    started.stop(secs(5)).await.unwrap();
}

/// The laws of a store, on the one that everybody can have.
#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_the_laws_and_its_bound() -> Result<(), AnyError> {
    let store = MemoryStore::with_capacity(3);
    let hold = secs(10);
    let Begun::New(first) = store.begin("g", "a", hold).await? else {
        panic!("a is new");
    };
    let again = store.begin("g", "a", hold).await?;
    assert!(matches!(again, Begun::InFlight { left } if left == hold));
    assert!(
        matches!(store.begin("h", "a", hold).await?, Begun::New(_)),
        "another scope"
    );
    sleep(secs(9)).await;
    assert!(store.extend(&first, hold).await?);
    sleep(secs(9)).await;
    assert!(matches!(
        store.begin("g", "a", hold).await?,
        Begun::InFlight { .. }
    ));
    sleep(secs(2)).await;
    let Begun::New(second) = store.begin("g", "a", hold).await? else {
        panic!("the first has expired");
    };
    assert!(!store.extend(&first, hold).await?, "it is the second's");
    assert!(!store.done(first, secs(60)).await?, "it is the second's");
    assert!(store.done(second, secs(60)).await?);
    assert!(matches!(store.begin("g", "a", hold).await?, Begun::Done));
    sleep(secs(61)).await;
    let Begun::New(third) = store.begin("g", "a", hold).await? else {
        panic!("it was kept long enough");
    };
    assert!(store.clear(third).await?);
    assert!(matches!(store.begin("g", "a", hold).await?, Begun::New(_)));

    for id in 0..100 {
        let Begun::New(mark) = store.begin("many", &id.to_string(), hold).await? else {
            panic!("{id} is new");
        };
        store.done(mark, secs(3600)).await?;
    }
    assert!(store.len() <= 3 + 2, "{}", store.len());
    assert!(matches!(
        store.begin("many", "99", hold).await?,
        Begun::Done
    ));
    assert!(matches!(
        store.begin("many", "96", hold).await?,
        Begun::New(_)
    ));
    Ok(())
}
