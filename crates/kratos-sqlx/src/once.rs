//! The user's write and the mark that its message is done, in one transaction.

use std::{fmt, sync::Arc, time::Duration};

use sqlx::Pool;

use crate::{Database, store::millis};

/// Runs the write of each message once: the mark that the message is done is committed in the same
/// transaction, so there is both or neither. Cheap to clone; a handler's state.
///
/// It begins the transaction, commits it when the work returned `Ok`, and rolls it back when it did
/// not, or was dropped: there is no commit to forget. What must happen once goes through the
/// connection that the work is given; everything else, before.
///
/// ```
/// use kratos_broker::{AnyError, Json, MessageId, State};
/// use kratos_sqlx::Once;
/// use sqlx::Sqlite;
///
/// #[derive(serde::Deserialize)]
/// struct Order { id: i64, total: i64 }
///
/// async fn save(
///     State(once): State<Once<Sqlite>>,
///     id: MessageId,
///     Json(order): Json<Order>,
/// ) -> Result<(), AnyError> {
///     let saved = once.run(&id, async |connection| {
///         sqlx::query("INSERT INTO orders (id, total) VALUES ($1, $2)")
///             .bind(order.id)
///             .bind(order.total)
///             .execute(connection)
///             .await?;
///         Ok(())
///     });
///     // `None`: it was saved before. Either way the message is done.
///     saved.await.map(drop)
/// }
/// # let _ = kratos_broker::Router::<Once<Sqlite>>::new().subscribe("orders", "billing", save);
/// ```
///
/// Duplicates at the same time wait for each other, on the mark's row: the second runs if the first
/// fails, and finds it done if it succeeds. After a commit of which nobody knows whether it took
/// place, the message comes again, and is done or not.
pub struct Once<DB: Database> {
    pool: Pool<DB>,
    scope: Arc<str>,
}

// === impl Once ===

impl<DB: Database> Once<DB> {
    /// Marks in the database of `pool`, for `scope`: whoever handles a message once. That is the
    /// consumer group, or group and topic where ids are not the broker's; all instances of a service
    /// say the same. Does no I/O: the table is made by [`migrate`](crate::migrate) or
    /// [`Upkeep`](crate::Upkeep).
    pub fn new(pool: Pool<DB>, scope: impl Into<Arc<str>>) -> Self {
        Self {
            pool,
            scope: scope.into(),
        }
    }

    /// Does the work for `id` in a transaction, unless that was done before: `None` then.
    ///
    /// `id` is the message's id, or what the sender calls it, an order number: the former knows
    /// redeliveries, the latter also what was sent twice.
    ///
    /// # Errors
    ///
    /// Those of the work, and what the database says: nothing is written then. After a failed
    /// commit nobody knows; the next run does.
    ///
    /// # Cancel safety
    ///
    /// When the call is dropped, the transaction is rolled back, or was committed.
    pub async fn run<R, E, F>(&self, id: &str, work: F) -> Result<Option<R>, E>
    where
        F: AsyncFnOnce(&mut DB::Connection) -> Result<R, E>,
        E: From<sqlx::Error>,
    {
        let mut transaction = self.pool.begin().await?;
        // Before the work: a second one waits here, and nothing was read that it could change.
        if !DB::once(&mut transaction, &self.scope, id).await? {
            transaction.rollback().await?;
            tracing::debug!(scope = &*self.scope, id, "done before");
            return Ok(None);
        }
        let done = work(&mut transaction).await?;
        // The work may have passed over an SQL error.
        DB::is_whole(&mut transaction).await?;
        transaction.commit().await?;
        Ok(Some(done))
    }

    /// Forgets what was done longer ago than `keep`, at most `at_most` of it; answers how much. A
    /// duplicate that comes later than that is handled.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn prune(&self, keep: Duration, at_most: u32) -> sqlx::Result<u64> {
        DB::prune_once(&self.pool, &self.scope, millis(keep), at_most.into()).await
    }

    /// The database.
    #[must_use]
    pub fn pool(&self) -> &Pool<DB> {
        &self.pool
    }
}

impl<DB: Database> Clone for Once<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            scope: self.scope.clone(),
        }
    }
}

impl<DB: Database> fmt::Debug for Once<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
