//! Makes the tables at the start, and keeps them small.

use std::{fmt, time::Duration};

use kratos::{Check, Description, Error, Finding, Resource, Result, StartContext};
use sqlx::Pool;
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{Database, Once, SqlStore, migrate};

/// How often is looked what can be forgotten.
const EVERY: Duration = Duration::from_secs(60);

/// Rows that one statement deletes: writers wait for no more than that.
const ROWS: u32 = 1_000;

/// Statements in a row.
const STATEMENTS: u32 = 100;

/// A [`Resource`] of the App that makes the tables before anything is served, and forgets old marks
/// while it runs: of the [`Once`]s that it is told of, and of [`SqlStore`]s.
///
/// ```
/// use std::time::Duration;
/// use kratos_sqlx::{Once, Upkeep};
/// use sqlx::SqlitePool;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sqlx::Result<()> {
/// let pool = SqlitePool::connect_lazy("sqlite::memory:")?;
/// let once = Once::new(pool.clone(), "billing");
/// let week = Duration::from_secs(7 * 86_400);
/// let app = kratos::App::new().resource(Upkeep::new(pool).keep(&once, week));
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
pub struct Upkeep<DB: Database> {
    pool: Pool<DB>,
    onces: Vec<(Once<DB>, Duration)>,
    stop: CancellationToken,
    pruning: Option<JoinHandle<()>>,
}

// === impl Upkeep ===

impl<DB: Database> Upkeep<DB> {
    /// Of the tables in the database of `pool`, which is not closed with it.
    pub fn new(pool: Pool<DB>) -> Self {
        Self {
            pool,
            onces: Vec::new(),
            stop: CancellationToken::new(),
            pruning: None,
        }
    }

    /// Forgets what was done by `once` longer ago than `keep`: longer than a duplicate can be late.
    /// What no upkeep was told of is kept for ever.
    #[must_use]
    pub fn keep(mut self, once: &Once<DB>, keep: Duration) -> Self {
        self.onces.push((once.clone(), keep));
        self
    }
}

impl<DB: Database> Resource for Upkeep<DB> {
    fn name(&self) -> &str {
        "kratos-sqlx"
    }

    fn describe(&self) -> Description {
        let pool = self.pool.clone();
        let database = Check::new("database answers", move || {
            let pool = pool.clone();
            async move {
                let connected = pool.acquire().await;
                connected.map(|_| String::new()).map_err(|error| {
                    let wrong = kratos::error_chain(&error).to_string();
                    Finding::new(wrong, "start it, or mend the address that the pool has")
                })
            }
        });
        Description::new("database").check(database)
    }

    async fn open(&mut self, _cx: StartContext) -> Result<()> {
        migrate(&self.pool).await.map_err(|error| {
            let may_pass = may_pass(&error);
            let what = "cannot make the tables kratos_once and kratos_marks";
            let error = Error::msg(what).with_source(error);
            if may_pass { error.transient() } else { error }
        })?;
        let work = prune(SqlStore::new(self.pool.clone()), self.onces.clone());
        let stop = self.stop.clone();
        self.pruning = Some(tokio::spawn(async move {
            stop.run_until_cancelled(work).await;
        }));
        Ok(())
    }

    async fn close(self, by: Instant) -> Result<()> {
        self.stop.cancel();
        if let Some(mut pruning) = self.pruning
            && timeout_at(by, &mut pruning).await.is_err()
        {
            pruning.abort();
        }
        Ok(())
    }
}

async fn prune<DB: Database>(store: SqlStore<DB>, onces: Vec<(Once<DB>, Duration)>) {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let mut statements = 0;
        let mut pruned = async || -> sqlx::Result<()> {
            while statements < STATEMENTS && store.prune(ROWS).await? >= ROWS.into() {
                statements += 1;
            }
            for (once, keep) in &onces {
                while statements < STATEMENTS && once.prune(*keep, ROWS).await? >= ROWS.into() {
                    statements += 1;
                }
            }
            Ok(())
        };
        if let Err(error) = pruned().await {
            tracing::warn!(error = %kratos::error_chain(&error), "cannot forget old marks");
        }
    }
}

/// Whether the database may come back by itself.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        // Locked (SQLite), starting up (PostgreSQL).
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code_may_pass(&code)),
        _ => false,
    }
}

/// SQLite's codes are numbers, the low byte of which says what the others say more of; those of
/// PostgreSQL have five characters, which may all be digits.
fn code_may_pass(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6),
        _ => code == "57P03",
    }
}

impl<DB: Database> fmt::Debug for Upkeep<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep")
            .field("onces", &self.onces)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_database_that_is_locked_or_starting_up_may_come_back() {
        // Busy, locked; after a crash, on a snapshot, by a shared cache.
        for code in ["5", "6", "261", "517", "262", "57P03"] {
            assert!(super::code_may_pass(code), "{code}");
        }
        // No such table, full, a syntax error, a number out of range: 22021 ends in 5, too.
        for code in ["1", "13", "42601", "22021", ""] {
            assert!(!super::code_may_pass(code), "{code}");
        }
    }
}
