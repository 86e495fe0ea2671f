//! A database of its own on the server.

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Pool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

pub(crate) type Db = Postgres;

pub(crate) fn server() -> PgConnectOptions {
    let url = std::env::var("POSTGRES_URL").expect("POSTGRES_URL names the server: run `make e2e`");
    url.parse().unwrap()
}

/// Asks the server itself.
pub(crate) async fn command(sql: String) {
    let mut connection = PgConnection::connect_with(&server()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// A new database, with a table `saved` of texts; its name.
pub(crate) async fn database() -> (Pool<Db>, String) {
    let name = format!("test_{}", Uuid::new_v4().simple());
    command(format!("CREATE DATABASE {name}")).await;
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect_with(server().database(&name))
        .await
        .unwrap();
    let made = sqlx::raw_sql("CREATE TABLE saved (what TEXT NOT NULL)");
    made.execute(&pool).await.unwrap();
    (pool, name)
}

pub(crate) async fn save(connection: &mut PgConnection, what: &str) -> sqlx::Result<()> {
    let saved = sqlx::query("INSERT INTO saved (what) VALUES ($1)").bind(what);
    saved.execute(connection).await.map(drop)
}

pub(crate) async fn saved(pool: &Pool<Db>) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM saved");
    count.fetch_one(pool).await.unwrap()
}
