//! What must hold on every database; the test binary says which in its module `site`.

use std::time::Duration;

use kratos_broker::{
    AnyError, Backoff, Json, Message, MessageId, Policy, Publisher, Router, Server, State,
    Subscription,
    idempotent::{Begun, IdempotentLayer, Store},
    memory::Broker,
    testing::{Started, eventually},
};
use kratos_sqlx::{Once, SqlStore, migrate};
use sqlx::Pool;

use crate::site::{Db, database, save, saved};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A duration that is short for a person, and long for a database.
const SHORT: Duration = Duration::from_millis(600);

/// Of a mark or a lease that is not to expire while it is extended.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// Writes `id`, once.
async fn run(once: &Once<Db>, id: &str) -> sqlx::Result<Option<()>> {
    once.run(id, async |connection| save(connection, id).await)
        .await
}

async fn handle(
    State(once): State<Once<Db>>,
    id: MessageId,
    Json(what): Json<String>,
) -> Result<(), AnyError> {
    let saved = once.run(&id, async |connection| Ok(save(connection, &what).await?));
    saved.await.map(drop)
}

async fn handle_plainly(
    State(pool): State<Pool<Db>>,
    Json(what): Json<String>,
) -> Result<(), AnyError> {
    let mut connection = pool.acquire().await?;
    Ok(save(&mut connection, &what).await?)
}

#[tokio::test]
async fn tables_are_made_by_many_at_once() {
    let (pool, _kept) = database().await;
    let all = (0..8).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { migrate(&pool).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    let once = Once::new(pool.clone(), "g");
    assert!(run(&once, "a").await.unwrap().is_some());
}

#[tokio::test]
async fn write_and_mark_are_there_both_or_neither() {
    let (pool, _kept) = database().await;
    migrate(&pool).await.unwrap();
    let once = Once::new(pool.clone(), "g");
    let failed = once.run("a", async |connection| {
        save(connection, "a").await?;
        Err::<(), _>(AnyError::msg("on purpose"))
    });
    assert_eq!(failed.await.unwrap_err().to_string(), "on purpose");
    assert_eq!(saved(&pool).await, 0, "rolled back");

    let dropped = once.run("a", async |connection| {
        save(connection, "a").await?;
        std::future::pending::<()>().await;
        Ok::<_, AnyError>(())
    });
    assert!(tokio::time::timeout(SHORT, dropped).await.is_err());
    assert_eq!(saved(&pool).await, 0, "rolled back");

    let done = run(&once, "a").await.unwrap();
    assert_eq!((done, saved(&pool).await), (Some(()), 1));
    let again = run(&once, "a").await.unwrap();
    assert_eq!((again, saved(&pool).await), (None, 1));
    let other = Once::new(pool.clone(), "another");
    assert_eq!(run(&other, "a").await.unwrap(), Some(()));
}

#[tokio::test]
async fn of_duplicates_at_the_same_time_one_writes() {
    let (pool, _kept) = database().await;
    migrate(&pool).await.unwrap();
    let once = Once::new(pool.clone(), "g");
    // The first fails, once the others wait for it.
    let begun = tokio::sync::Notify::new();
    let failing = once.run("a", async |connection| {
        save(connection, "a").await?;
        begun.notify_one();
        tokio::time::sleep(SHORT).await;
        Err::<(), _>(AnyError::msg("on purpose"))
    });
    let others = async {
        begun.notified().await;
        let all = (0..12).map(|_| run(&once, "a"));
        futures_util::future::join_all(all).await
    };
    let (failed, others) = tokio::join!(failing, others);
    assert!(failed.is_err());
    let wrote = others
        .into_iter()
        .filter(|it| matches!(it, Ok(Some(_))))
        .count();
    assert_eq!((wrote, saved(&pool).await), (1, 1));
}

#[tokio::test]
async fn old_marks_are_forgotten_in_bounded_steps() {
    let (pool, _kept) = database().await;
    migrate(&pool).await.unwrap();
    let (once, store) = (Once::new(pool.clone(), "g"), SqlStore::new(pool.clone()));
    let other = Once::new(pool.clone(), "other");
    run(&other, "a").await.unwrap();
    for id in 0..10 {
        run(&once, &id.to_string()).await.unwrap();
        let begun = store.begin("g", &id.to_string(), Duration::ZERO).await;
        assert!(matches!(begun, Ok(Begun::New(_))));
    }
    let held = store.begin("g", "held", PATIENCE).await.unwrap();
    tokio::time::sleep(SHORT).await;
    assert_eq!(once.prune(PATIENCE, 100).await.unwrap(), 0, "too young");
    assert_eq!(once.prune(SHORT / 2, 6).await.unwrap(), 6);
    assert_eq!(once.prune(SHORT / 2, 6).await.unwrap(), 4);
    assert_eq!(store.prune(6).await.unwrap(), 6);
    assert_eq!(store.prune(6).await.unwrap(), 4);
    assert!(matches!(held, Begun::New(_)));
    let held = store.begin("g", "held", PATIENCE).await.unwrap();
    assert!(matches!(held, Begun::InFlight { .. }));
    assert!(
        run(&other, "a").await.unwrap().is_none(),
        "of another scope"
    );
    assert!(run(&once, "1").await.unwrap().is_some(), "forgotten");
}

#[tokio::test]
async fn the_store_keeps_the_laws() {
    let (pool, _kept) = database().await;
    migrate(&pool).await.unwrap();
    let store = SqlStore::new(pool);
    let all = (0..12).map(|_| store.begin("g", "a", PATIENCE));
    let all = futures_util::future::join_all(all).await;
    let (mut first, mut others) = (Vec::new(), 0);
    for begun in all {
        match begun.unwrap() {
            Begun::New(mark) => first.push(mark),
            Begun::InFlight { left } => {
                assert!(left <= PATIENCE && left > PATIENCE / 2, "{left:?}");
                others += 1;
            }
            Begun::Done => panic!("none is done"),
        }
    }
    assert_eq!((first.len(), others), (1, 11));
    let first = first.remove(0);
    assert!(store.extend(&first, SHORT).await.unwrap());
    tokio::time::sleep(SHORT * 2).await;
    let Begun::New(second) = store.begin("g", "a", PATIENCE).await.unwrap() else {
        panic!("the first has expired");
    };
    assert!(
        !store.extend(&first, SHORT).await.unwrap(),
        "it is the second's"
    );
    assert!(
        !store.done(first, PATIENCE).await.unwrap(),
        "it is the second's"
    );
    assert!(store.done(second, PATIENCE).await.unwrap());
    let again = store.begin("g", "a", PATIENCE).await.unwrap();
    assert!(matches!(again, Begun::Done));

    let Begun::New(first) = store.begin("g", "b", PATIENCE).await.unwrap() else {
        panic!("b is new");
    };
    assert!(store.done(first, SHORT).await.unwrap());
    tokio::time::sleep(SHORT * 2).await;
    let Begun::New(second) = store.begin("g", "b", PATIENCE).await.unwrap() else {
        panic!("it was kept long enough");
    };
    assert!(store.clear(second).await.unwrap());
    let again = store.begin("g", "b", PATIENCE).await.unwrap();
    assert!(matches!(again, Begun::New(_)));
}

pub(crate) fn subscription() -> Subscription {
    // 16 attempts in more than 20 s, however long a slow machine takes between two steps.
    let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(2));
    let policy = Policy::new().backoff(backoff);
    Subscription::new("orders", "g")
        .policy(policy)
        .invisible_duration(Duration::from_secs(1))
}

pub(crate) async fn publish(broker: &Broker, what: &str) {
    let message = Message::json("orders", &what).unwrap().key(what);
    Publisher::new(broker.clone())
        .publish(message)
        .await
        .unwrap();
}

pub(crate) async fn settled(broker: &Broker) {
    eventually("all is settled", PATIENCE, || {
        broker.backlog("orders", "g") == 0
    })
    .await;
    assert!(broker.dead_letters("g").is_empty());
}

/// The acknowledgement of what was committed is lost, as when the process dies in between.
#[tokio::test]
async fn what_comes_again_after_the_commit_is_not_written_again() {
    let (pool, _kept) = database().await;
    migrate(&pool).await.unwrap();
    let broker = Broker::new();
    let router = Router::new()
        .subscribe_with(subscription(), handle)
        .with_state(Once::new(pool.clone(), "g"));
    let started = Started::start(Server::new(broker.clone()).routes(router)).await;
    broker.refuse_settlements(1);
    for n in 0..5 {
        publish(&broker, &n.to_string()).await;
    }
    settled(&broker).await;
    assert_eq!(saved(&pool).await, 5);
    started.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn the_layer_handles_once_across_two_processes() {
    let (pool, _kept) = database().await;
    migrate(&pool).await.unwrap();
    let broker = Broker::new();
    let mut processes = Vec::new();
    let layer = IdempotentLayer::new(SqlStore::new(pool.clone()), "g")
        .key(|delivery| delivery.keys().first().cloned())
        .hold(UNDISTURBED);
    let stats = layer.stats();
    for _ in 0..2 {
        let router = Router::new()
            .layer(layer.clone())
            .subscribe_with(
                subscription().invisible_duration(UNDISTURBED),
                handle_plainly,
            )
            .with_state(pool.clone());
        let server = Server::new(broker.clone()).routes(router);
        processes.push(Started::start(server).await);
    }
    for n in 0..40 {
        publish(&broker, &(n % 8).to_string()).await;
    }
    settled(&broker).await;
    assert_eq!(
        (saved(&pool).await, stats.handled(), stats.duplicates()),
        (8, 8, 32)
    );
    for process in processes {
        process.stop(PATIENCE).await.unwrap();
    }
}
