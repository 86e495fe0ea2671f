//! A store that is away, or slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use kratos_broker::{
    Delivery, Message, Router,
    idempotent::{Begun, IdempotentLayer, MemoryStore, Store},
    memory::Broker,
    testing::Started,
};
use tokio::time::{Instant, sleep};

use crate::support::{Log, publish, secs, server, subscription, until};

/// A store that is away on demand.
#[derive(Clone, Default)]
struct Away {
    inner: MemoryStore,
    away: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Gone;

/// Takes its time to say that something is done.
#[derive(Clone)]
struct SlowToEnd(MemoryStore);

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
