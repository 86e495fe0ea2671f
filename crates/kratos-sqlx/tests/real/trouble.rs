//! A server that ends connections, and one that takes none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use kratos_broker::{
    AnyError, Json, MessageId, Router, Server, State,
    memory::Broker,
    testing::{Started, eventually},
};
use kratos_sqlx::{Once, migrate};
use sqlx::{Connection, postgres::PgPoolOptions};

use crate::{
    laws::{PATIENCE, publish, settled, subscription},
    site::{Db, command, database, save, saved, server},
};

#[derive(Clone)]
struct Site {
    once: Once<Db>,
    /// The next connection is ended after its write, before its commit.
    cut: Arc<AtomicBool>,
}

async fn handle(
    State(site): State<Site>,
    id: MessageId,
    Json(what): Json<String>,
) -> Result<(), AnyError> {
    let saved = site.once.run(&id, async |connection| {
        save(connection, &what).await?;
        if site.cut.swap(false, SeqCst) {
            let cut = sqlx::query("SELECT pg_terminate_backend(pg_backend_pid())");
            cut.execute(&mut *connection).await.ok();
            // Whatever that says, the connection is gone.
            connection.ping().await.ok();
        }
        Ok(())
    });
    saved.await.map(drop)
}

#[tokio::test]
async fn a_connection_lost_before_the_commit_is_a_retry_and_one_write() {
    let (pool, _) = database().await;
    migrate(&pool).await.unwrap();
    let broker = Broker::new();
    let site = Site {
        once: Once::new(pool.clone(), "g"),
        cut: Arc::new(AtomicBool::new(true)),
    };
    let router = Router::new()
        .subscribe_with(subscription(), handle)
        .with_state(site);
    let server = Server::new(broker.clone()).routes(router);
    let counters = server.counters();
    let started = Started::start(server).await;
    publish(&broker, "x").await;
    settled(&broker).await;
    assert_eq!(saved(&pool).await, 1);
    assert_eq!(
        counters.stats().failed,
        1,
        "the commit was not taken for one"
    );
    started.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for() {
    let (pool, name) = database().await;
    migrate(&pool).await.unwrap();
    let broker = Broker::new();
    let hasty = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(200))
        .connect_lazy_with(server().database(&name));
    let site = Site {
        once: Once::new(hasty, "g"),
        cut: Arc::default(),
    };
    let router = Router::new()
        .subscribe_with(subscription(), handle)
        .with_state(site);
    let server = Server::new(broker.clone()).routes(router);
    let counters = server.counters();
    let started = Started::start(server).await;
    publish(&broker, "before").await;
    settled(&broker).await;
    command(format!(
        "ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"
    ))
    .await;
    command(format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    ))
    .await;
    for n in 0..3 {
        publish(&broker, &n.to_string()).await;
    }
    eventually("all have failed", PATIENCE, || counters.stats().failed >= 3).await;
    command(format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")).await;
    settled(&broker).await;
    assert_eq!(saved(&pool).await, 4);
    started.stop(PATIENCE).await.unwrap();
}

/// A stricter isolation level makes errors of what waits elsewhere: still one write.
#[tokio::test]
async fn of_duplicates_one_writes_also_when_transactions_are_serializable() {
    let (pool, name) = database().await;
    migrate(&pool).await.unwrap();
    let options = server()
        .database(&name)
        .options([("default_transaction_isolation", "serializable")]);
    let strict = PgPoolOptions::new()
        .max_connections(8)
        .connect_lazy_with(options);
    let once = Once::new(strict, "g");
    let all = (0..16).map(|_| once.run("a", async |connection| save(connection, "a").await));
    let all = futures_util::future::join_all(all).await;
    let wrote = all.iter().filter(|it| matches!(it, Ok(Some(())))).count();
    assert_eq!((wrote, saved(&pool).await), (1, 1), "{all:?}");
    assert!(
        once.run("a", async |connection| save(connection, "a").await)
            .await
            .unwrap()
            .is_none()
    );
}

/// PostgreSQL answers a COMMIT of an aborted transaction as if nothing was wrong.
#[tokio::test]
async fn a_work_that_passes_over_an_sql_error_is_an_error_and_not_done() {
    let (pool, _) = database().await;
    migrate(&pool).await.unwrap();
    let unique = "CREATE UNIQUE INDEX saved_once ON saved (what)";
    sqlx::raw_sql(unique).execute(&pool).await.unwrap();
    let once = Once::new(pool.clone(), "g");
    let work = once.run("a", async |connection| {
        save(&mut *connection, "first").await?;
        save(&mut *connection, "first").await.ok();
        Ok::<_, sqlx::Error>(())
    });
    let done = work.await;
    assert!(done.is_err(), "{done:?}, saved {}", saved(&pool).await);
    let again = once
        .run("a", async |connection| save(connection, "first").await)
        .await;
    assert_eq!((again.unwrap(), saved(&pool).await), (Some(()), 1));
}
