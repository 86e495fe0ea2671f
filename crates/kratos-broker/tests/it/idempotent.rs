//! The idempotent layer: each message handled once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
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

/// A store that is away on demand.
#[derive(Clone, Default)]
struct Away {
    inner: MemoryStore,
    away: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store is away")
    }
}

impl std::error::Error for Gone {}

impl Away {
    fn here(&self) -> Result<(), Gone> {
        if self.away.load(SeqCst) {
            Err(Gone)
        } else {
            Ok(())
        }
    }
}

impl Store for Away {
    type Mark = <MemoryStore as Store>::Mark;
    type Error = Gone;

    async fn begin(
        &self,
        scope: &str,
        id: &str,
        hold: Duration,
    ) -> Result<Begun<Self::Mark>, Gone> {
        self.here()?;
        self.inner.begin(scope, id, hold).await.map_err(|_| Gone)
    }

    async fn extend(&self, mark: &Self::Mark, hold: Duration) -> Result<bool, Gone> {
        self.here()?;
        self.inner.extend(mark, hold).await.map_err(|_| Gone)
    }

    async fn done(&self, mark: Self::Mark, keep: Duration) -> Result<bool, Gone> {
        self.here()?;
        self.inner.done(mark, keep).await.map_err(|_| Gone)
    }

    async fn clear(&self, mark: Self::Mark) -> Result<bool, Gone> {
        self.here()?;
        self.inner.clear(mark).await.map_err(|_| Gone)
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_messages_are_retried_and_none_is_handled() {
    let broker = Broker::new();
    let store = Away::default();
    let layer = IdempotentLayer::new(store.clone(), "g");
    let stats = layer.stats();
    store.away.store(true, SeqCst);
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription(), |_: Delivery| async {});
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "x")).await;
    sleep(secs(5)).await;
    assert_eq!((stats.handled(), broker.backlog("t", "g")), (0, 1));
    store.away.store(false, SeqCst);
    until("it is handled", || stats.handled() == 1).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_mark_cannot_be_extended_is_dropped_when_it_expires() {
    let broker = Broker::new();
    let store = Away::default();
    let layer = IdempotentLayer::new(store.clone(), "g").hold(secs(30));
    let stats = layer.stats();
    let dropped = Log::default();
    let handler = {
        let (dropped, away) = (dropped.clone(), store.away.clone());
        move |delivery: Delivery| {
            let (dropped, away) = (dropped.clone(), away.clone());
            async move {
                if delivery.attempt() > 1 {
                    return;
                }
                away.store(true, SeqCst);
                struct Note(Log<Instant>);
                impl Drop for Note {
                    fn drop(&mut self) {
                        self.0.add(Instant::now());
                    }
                }
                let _note = Note(dropped);
                std::future::pending().await
            }
        }
    };
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription(), handler);
    let started = Started::start(server(&broker, router)).await;
    let began = Instant::now();
    publish(&broker, Message::new("t", "x")).await;
    until("it is dropped", || dropped.len() == 1).await;
    assert_eq!(dropped.all()[0] - began, secs(30));
    assert_eq!(stats.expired(), 1);
    store.away.store(false, SeqCst);
    until("the retry is handled", || stats.handled() == 1).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handled_message_is_acknowledged_even_if_the_store_cannot_be_told() {
    let broker = Broker::new();
    let store = Away::default();
    let layer = IdempotentLayer::new(store.clone(), "g");
    let log = Log::default();
    let handler = {
        let (log, away) = (log.clone(), store.away.clone());
        move |delivery: Delivery| {
            let (log, away) = (log.clone(), away.clone());
            async move {
                log.add(delivery.attempt());
                away.store(true, SeqCst);
            }
        }
    };
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription(), handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "x")).await;
    until("it is settled", || broker.backlog("t", "g") == 0).await;
    sleep(secs(100)).await;
    assert_eq!(log.all(), [1]);
    started.stop(secs(5)).await.unwrap();
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

/// Takes its time to say that something is done.
#[derive(Clone)]
struct SlowToEnd(MemoryStore);

impl Store for SlowToEnd {
    type Mark = <MemoryStore as Store>::Mark;
    type Error = <MemoryStore as Store>::Error;

    async fn begin(
        &self,
        scope: &str,
        id: &str,
        hold: Duration,
    ) -> Result<Begun<Self::Mark>, Self::Error> {
        self.0.begin(scope, id, hold).await
    }

    async fn extend(&self, mark: &Self::Mark, hold: Duration) -> Result<bool, Self::Error> {
        self.0.extend(mark, hold).await
    }

    async fn done(&self, mark: Self::Mark, keep: Duration) -> Result<bool, Self::Error> {
        sleep(secs(2)).await;
        self.0.done(mark, keep).await
    }

    async fn clear(&self, mark: Self::Mark) -> Result<bool, Self::Error> {
        self.0.clear(mark).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_succeeded_is_not_run_again_because_its_store_was_slow() {
    let broker = Broker::new();
    let log = Log::default();
    let layer = IdempotentLayer::new(SlowToEnd(MemoryStore::new()), "g");
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move { log.add(delivery.attempt()) }
        }
    };
    let router = Router::new()
        .layer(layer)
        .subscribe_with(subscription().handler_timeout(secs(1)), handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "x")).await;
    until("it is settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(log.all(), [1]);
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}
