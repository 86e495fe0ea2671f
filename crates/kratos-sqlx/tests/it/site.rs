//! A database in a file of its own.

use std::time::Duration;

use sqlx::{
    Pool, Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tempfile::TempDir;

pub(crate) type Db = Sqlite;

pub(crate) fn options(folder: &TempDir) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder.path().join("rows.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(20))
}

/// A new database, with a table `saved` of texts.
pub(crate) async fn database() -> (Pool<Db>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let pool = SqlitePoolOptions::new()
        .max_connections(8)
        .connect_with(options(&folder))
        .await
        .unwrap();
    let made = sqlx::raw_sql("CREATE TABLE saved (what TEXT NOT NULL)");
    made.execute(&pool).await.unwrap();
    (pool, folder)
}

pub(crate) async fn save(connection: &mut SqliteConnection, what: &str) -> sqlx::Result<()> {
    let saved = sqlx::query("INSERT INTO saved (what) VALUES ($1)").bind(what);
    saved.execute(connection).await.map(drop)
}

pub(crate) async fn saved(pool: &Pool<Db>) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM saved");
    count.fetch_one(pool).await.unwrap()
}
