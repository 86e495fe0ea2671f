//! A database that is locked, and one that is gone.

use std::time::Duration;

use kratos::{App, Phase, Signals};
use kratos_broker::{
    AnyError, Json, MessageId, Router, Server, State,
    memory::Broker,
    testing::{Started, eventually},
};
use kratos_sqlx::{Once, Upkeep, migrate};
use sqlx::{Connection, SqliteConnection, sqlite::SqlitePoolOptions};

use crate::{
    laws::{PATIENCE, publish, settled, subscription},
    site::{Db, database, options, save, saved},
};

async fn handle(
    State(once): State<Once<Db>>,
    id: MessageId,
    Json(what): Json<String>,
) -> Result<(), AnyError> {
    let saved = once.run(&id, async |connection| Ok(save(connection, &what).await?));
    saved.await.map(drop)
}

#[tokio::test]
async fn a_locked_database_costs_retries_and_no_write_is_lost_or_doubled() {
    let (first, folder) = database().await;
    migrate(&first).await.unwrap();
    let hasty = options(&folder).busy_timeout(Duration::from_millis(50));
    let pool = SqlitePoolOptions::new().connect_lazy_with(hasty.clone());
    let broker = Broker::new();
    let router = Router::new()
        .subscribe_with(subscription(), handle)
        .with_state(Once::new(pool, "g"));
    let server = Server::new(broker.clone()).routes(router);
    let counters = server.counters();
    let started = Started::start(server).await;
    let mut other = SqliteConnection::connect_with(&hasty).await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    for n in 0..3 {
        publish(&broker, &n.to_string()).await;
    }
    eventually("all have failed", PATIENCE, || counters.stats().failed >= 3).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    settled(&broker).await;
    assert_eq!(saved(&first).await, 3);
    started.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn without_its_table_every_message_is_retried_and_upkeep_makes_it_at_the_start() {
    let (pool, _folder) = database().await;
    let broker = Broker::new();
    let once = Once::new(pool.clone(), "g");
    let router = Router::new()
        .subscribe_with(subscription(), handle)
        .with_state(once.clone());
    let server = Server::new(broker.clone()).routes(router);
    let counters = server.counters();
    let started = Started::start(server).await;
    publish(&broker, "x").await;
    eventually("it has failed", PATIENCE, || counters.stats().failed >= 1).await;
    assert_eq!(saved(&pool).await, 0);

    let (signals, source) = Signals::channel();
    let app = App::new()
        .signals(source)
        .resource(Upkeep::new(pool.clone()).keep(&once, PATIENCE));
    let handle = app.handle();
    let app = tokio::spawn(app.run());
    assert_eq!(handle.reached(Phase::Ready).await, Phase::Ready);
    settled(&broker).await;
    assert_eq!(saved(&pool).await, 1);
    signals.send();
    app.await.unwrap().unwrap();
    started.stop(PATIENCE).await.unwrap();
}
