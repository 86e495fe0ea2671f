//! What the saver has stored.

use std::{collections::HashSet, path::Path, time::Duration};

use sqlx::{Row, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::time::{Instant, sleep};

use crate::poster::Run;

/// A stored report: which one it was, in which trace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) trace_id: String,
}

/// The rows of one run.
pub(crate) struct Rows {
    pool: SqlitePool,
    names: String,
}

impl Rows {
    pub(crate) fn open(database: &Path, run: Run) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .read_only(true);
        let names = format!("{}%", run.prefix());
        Self {
            pool: SqlitePool::connect_lazy_with(options),
            names,
        }
    }

    pub(crate) async fn count(&self) -> i64 {
        let sql = "SELECT (SELECT count(*) FROM realtime_warehousing WHERE event_name LIKE ?1)
            + (SELECT count(*) FROM acceptance_status WHERE data_name LIKE ?1)";
        sqlx::query_scalar(sql)
            .bind(&self.names)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until `expected` rows are there; answers how long that took.
    pub(crate) async fn wait_for(&self, expected: i64, bound: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let count = self.count().await;
            if count >= expected {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < bound,
                "{count} of {expected} rows after {bound:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn all(&self) -> HashSet<Stored> {
        let sql = "SELECT event_name AS name, trace_id FROM realtime_warehousing
            WHERE event_name LIKE ?1
            UNION ALL SELECT data_name AS name, trace_id FROM acceptance_status
            WHERE data_name LIKE ?1";
        let rows = sqlx::query(sql)
            .bind(&self.names)
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter()
            .map(|row| Stored {
                name: row.get("name"),
                trace_id: row.get("trace_id"),
            })
            .collect()
    }

    /// Deliveries beyond the first, and the messages that had any.
    pub(crate) async fn duplicates(&self) -> (i64, i64) {
        let sql = "SELECT coalesce(sum(d - 1), 0), coalesce(sum(d > 1), 0) FROM (
            SELECT deliveries AS d FROM realtime_warehousing WHERE event_name LIKE ?1
            UNION ALL
            SELECT deliveries AS d FROM acceptance_status WHERE data_name LIKE ?1)";
        let row = sqlx::query(sql)
            .bind(&self.names)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        (row.get(0), row.get(1))
    }
}
