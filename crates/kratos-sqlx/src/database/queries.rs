//! Every statement, for every database.

use std::future::Future;

use sqlx::Pool;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub(crate) done: bool,
    pub(crate) left_millis: i64,
}

/// The statements. Its module is private, so nobody else implements it.
pub trait Queries: sqlx::Database {
    fn migrate(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Writes that it is done; false if that is there already.
    fn once(
        connection: &mut Self::Connection,
        scope: &str,
        id: &str,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Fails if a statement of the transaction has failed: some databases then take a commit for a
    /// roll-back, and say nothing.
    fn is_whole(connection: &mut Self::Connection)
    -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Deletes at most so many of what was done longer ago than that.
    fn prune_once(
        pool: &Pool<Self>,
        scope: &str,
        keep_millis: i64,
        at_most: i64,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Takes the mark if nobody has it, or it has expired.
    fn begin(
        pool: &Pool<Self>,
        scope: &str,
        id: &str,
        holder: &str,
        hold_millis: i64,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    fn look(
        pool: &Pool<Self>,
        scope: &str,
        id: &str,
    ) -> impl Future<Output = sqlx::Result<Option<Found>>> + Send;

    fn extend(
        pool: &Pool<Self>,
        scope: &str,
        id: &str,
        holder: &str,
        hold_millis: i64,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    fn done(
        pool: &Pool<Self>,
        scope: &str,
        id: &str,
        holder: &str,
        keep_millis: i64,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    fn clear(
        pool: &Pool<Self>,
        scope: &str,
        id: &str,
        holder: &str,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Deletes at most so many marks that have expired.
    fn prune_marks(
        pool: &Pool<Self>,
        at_most: i64,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
macro_rules! queries {
    ($database:ty, now: $now:literal, begin: $begin:literal, lock: $lock:literal, whole: $whole:literal,
     end: $end:literal) => {
        impl Queries for $database {
            async fn is_whole(connection: &mut Self::Connection) -> sqlx::Result<()> {
                sqlx::raw_sql($whole).execute(connection).await.map(drop)
            }

            async fn migrate(pool: &Pool<Self>) -> sqlx::Result<()> {
                let mut tx = pool.begin_with($begin).await?;
                // Two that make the same table at the same time are an error on some databases.
                sqlx::raw_sql($lock).execute(&mut *tx).await?;
                sqlx::raw_sql(concat!(
                    "CREATE TABLE IF NOT EXISTS kratos_once (scope TEXT NOT NULL, id TEXT NOT NULL, \
                     done_ms BIGINT NOT NULL, PRIMARY KEY (scope, id))",
                    $end,
                    "; CREATE INDEX IF NOT EXISTS kratos_once_done ON kratos_once (scope, done_ms); \
                     CREATE TABLE IF NOT EXISTS kratos_marks (scope TEXT NOT NULL, id TEXT NOT NULL, \
                     holder TEXT, until_ms BIGINT NOT NULL, PRIMARY KEY (scope, id))",
                    $end,
                    "; CREATE INDEX IF NOT EXISTS kratos_marks_until ON kratos_marks (until_ms)"
                ))
                .execute(&mut *tx)
                .await?;
                tx.commit().await
            }

            async fn once(
                connection: &mut Self::Connection,
                scope: &str,
                id: &str,
            ) -> sqlx::Result<bool> {
                let done = sqlx::query(concat!(
                    "INSERT INTO kratos_once (scope, id, done_ms) VALUES ($1, $2, ",
                    $now,
                    ") ON CONFLICT (scope, id) DO NOTHING"
                ));
                let done = done.bind(scope).bind(id).execute(connection).await?;
                Ok(done.rows_affected() > 0)
            }

            async fn prune_once(
                pool: &Pool<Self>,
                scope: &str,
                keep_millis: i64,
                at_most: i64,
            ) -> sqlx::Result<u64> {
                let pruned = sqlx::query(concat!(
                    "DELETE FROM kratos_once WHERE scope = $1 AND id IN (SELECT id FROM kratos_once \
                     WHERE scope = $1 AND done_ms < ",
                    $now,
                    " - $2 LIMIT $3)"
                ));
                let pruned = pruned.bind(scope).bind(keep_millis).bind(at_most);
                Ok(pruned.execute(pool).await?.rows_affected())
            }

            async fn begin(
                pool: &Pool<Self>,
                scope: &str,
                id: &str,
                holder: &str,
                hold_millis: i64,
            ) -> sqlx::Result<bool> {
                let taken = sqlx::query(concat!(
                    "INSERT INTO kratos_marks (scope, id, holder, until_ms) VALUES ($1, $2, $3, ",
                    $now,
                    " + $4) ON CONFLICT (scope, id) DO UPDATE SET holder = excluded.holder, \
                     until_ms = excluded.until_ms WHERE kratos_marks.until_ms <= ",
                    $now
                ));
                let taken = taken.bind(scope).bind(id).bind(holder).bind(hold_millis);
                Ok(taken.execute(pool).await?.rows_affected() > 0)
            }

            async fn look(
                pool: &Pool<Self>,
                scope: &str,
                id: &str,
            ) -> sqlx::Result<Option<Found>> {
                let found = sqlx::query_as(concat!(
                    "SELECT holder IS NULL, until_ms - ",
                    $now,
                    " FROM kratos_marks WHERE scope = $1 AND id = $2"
                ));
                let found: Option<(bool, i64)> =
                    found.bind(scope).bind(id).fetch_optional(pool).await?;
                Ok(found.map(|(done, left_millis)| Found { done, left_millis }))
            }

            async fn extend(
                pool: &Pool<Self>,
                scope: &str,
                id: &str,
                holder: &str,
                hold_millis: i64,
            ) -> sqlx::Result<bool> {
                let extended = sqlx::query(concat!(
                    "UPDATE kratos_marks SET until_ms = ",
                    $now,
                    " + $4 WHERE scope = $1 AND id = $2 AND holder = $3"
                ));
                let extended = extended.bind(scope).bind(id).bind(holder).bind(hold_millis);
                Ok(extended.execute(pool).await?.rows_affected() > 0)
            }

            async fn done(
                pool: &Pool<Self>,
                scope: &str,
                id: &str,
                holder: &str,
                keep_millis: i64,
            ) -> sqlx::Result<bool> {
                let done = sqlx::query(concat!(
                    "UPDATE kratos_marks SET holder = NULL, until_ms = ",
                    $now,
                    " + $4 WHERE scope = $1 AND id = $2 AND holder = $3"
                ));
                let done = done.bind(scope).bind(id).bind(holder).bind(keep_millis);
                Ok(done.execute(pool).await?.rows_affected() > 0)
            }

            async fn clear(
                pool: &Pool<Self>,
                scope: &str,
                id: &str,
                holder: &str,
            ) -> sqlx::Result<bool> {
                let cleared = sqlx::query(
                    "DELETE FROM kratos_marks WHERE scope = $1 AND id = $2 AND holder = $3",
                );
                let cleared = cleared.bind(scope).bind(id).bind(holder);
                Ok(cleared.execute(pool).await?.rows_affected() > 0)
            }

            async fn prune_marks(pool: &Pool<Self>, at_most: i64) -> sqlx::Result<u64> {
                // Once more outside: a mark may be taken again in between.
                let pruned = sqlx::query(concat!(
                    "DELETE FROM kratos_marks WHERE (scope, id) IN (SELECT scope, id FROM \
                     kratos_marks WHERE until_ms <= ",
                    $now,
                    " LIMIT $1) AND until_ms <= ",
                    $now
                ));
                Ok(pruned.bind(at_most).execute(pool).await?.rows_affected())
            }
        }
    };
}

#[cfg(feature = "sqlite")]
queries!(
    sqlx::Sqlite,
    now: "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    begin: "BEGIN IMMEDIATE",
    lock: "SELECT 1",
    // A commit that cannot be done is an error here.
    whole: "",
    end: " WITHOUT ROWID"
);

// The number of the lock is ours alone: "kratos" in ASCII.
#[cfg(feature = "postgres")]
queries!(
    sqlx::Postgres,
    now: "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT",
    begin: "BEGIN",
    lock: "SELECT pg_advisory_xact_lock(118139005464435)",
    // Refused in a transaction that is aborted, whose COMMIT would be a ROLLBACK without an error.
    whole: "SELECT 1",
    end: ""
);
