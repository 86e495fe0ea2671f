//! Marks of the idempotent layer, in a table.

use std::{fmt, sync::Arc, time::Duration};

use kratos_broker::idempotent::{Begun, Store};
use sqlx::Pool;
use uuid::Uuid;

use crate::Database;

/// A [`Store`] of [`IdempotentLayer`](kratos_broker::idempotent::IdempotentLayer) in a table, for
/// all processes of a service. Cheap to clone.
///
/// Mark and write are two steps here, whatever the handler writes to. Handlers that write to this
/// very database have both in one with [`Once`](crate::Once).
///
/// ```
/// use kratos_broker::{Server, idempotent::IdempotentLayer, memory};
/// use kratos_sqlx::SqlStore;
/// use sqlx::SqlitePool;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sqlx::Result<()> {
/// async fn send_mail() {}
///
/// let pool = SqlitePool::connect_lazy("sqlite::memory:")?;
/// let server = Server::new(memory::Broker::new())
///     .layer(IdempotentLayer::new(SqlStore::new(pool), "mails"))
///     .subscribe("orders", "mails", send_mail);
/// # fn is_server(_: impl kratos::Server) {}
/// # is_server(server);
/// # Ok(())
/// # }
/// ```
pub struct SqlStore<DB: Database> {
    pool: Pool<DB>,
}

/// A mark in a [`SqlStore`].
#[derive(Debug)]
pub struct SqlMark {
    scope: Arc<str>,
    id: String,
    /// Ours alone: an expired mark may be another's.
    holder: String,
}

// === impl SqlStore ===

impl<DB: Database> SqlStore<DB> {
    /// Marks in the database of `pool`. Does no I/O: the table is made by
    /// [`migrate`](crate::migrate) or [`Upkeep`](crate::Upkeep).
    pub fn new(pool: Pool<DB>) -> Self {
        Self { pool }
    }

    /// Forgets marks that have expired, at most `at_most`; answers how many.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn prune(&self, at_most: u32) -> sqlx::Result<u64> {
        DB::prune_marks(&self.pool, at_most.into()).await
    }
}

impl<DB: Database> Store for SqlStore<DB> {
    type Mark = SqlMark;
    type Error = sqlx::Error;

    async fn begin(&self, scope: &str, id: &str, hold: Duration) -> sqlx::Result<Begun<SqlMark>> {
        let holder = Uuid::new_v4().to_string();
        if DB::begin(&self.pool, scope, id, &holder, millis(hold)).await? {
            return Ok(Begun::New(SqlMark {
                scope: scope.into(),
                id: id.to_owned(),
                holder,
            }));
        }
        let found = DB::look(&self.pool, scope, id).await?;
        let left = match found {
            Some(found) if found.done => return Ok(Begun::Done),
            Some(found) => u64::try_from(found.left_millis).unwrap_or(0),
            // Cleared in this moment.
            None => 0,
        };
        Ok(Begun::InFlight {
            left: Duration::from_millis(left),
        })
    }

    async fn extend(&self, mark: &SqlMark, hold: Duration) -> sqlx::Result<bool> {
        let SqlMark { scope, id, holder } = mark;
        DB::extend(&self.pool, scope, id, holder, millis(hold)).await
    }

    async fn done(&self, mark: SqlMark, keep: Duration) -> sqlx::Result<bool> {
        let SqlMark { scope, id, holder } = &mark;
        DB::done(&self.pool, scope, id, holder, millis(keep)).await
    }

    async fn clear(&self, mark: SqlMark) -> sqlx::Result<bool> {
        let SqlMark { scope, id, holder } = &mark;
        DB::clear(&self.pool, scope, id, holder).await
    }
}

impl<DB: Database> Clone for SqlStore<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
        }
    }
}

impl<DB: Database> fmt::Debug for SqlStore<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").finish_non_exhaustive()
    }
}

/// As the tables have them; at most about 30 years, which the sums below can bear.
pub(crate) fn millis(duration: Duration) -> i64 {
    const NEVER: i64 = 1_000 * 86_400 * 365 * 30;
    i64::try_from(duration.as_millis()).map_or(NEVER, |it| it.min(NEVER))
}
