//! The two tables, in SQLite.

use std::{fs, path::PathBuf, time::Duration};

use kratos::{Check, Description, Error, Finding, Resource, Result, StartContext};
use report_proto::{AcceptStatusReportData, RealTimeWarehousingData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{
    ConnectOptions, Row, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};
use tokio::time::Instant;

/// Connections to the database: one writes at a time, the others read.
const CONNECTIONS_MAX: u32 = 4;

/// How long a statement waits for another writer before the message is retried.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a handler waits for a connection before the message is retried.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS realtime_warehousing (
    message_id  TEXT PRIMARY KEY,
    trace_id    TEXT NOT NULL,
    event_name  TEXT NOT NULL,
    report_data TEXT NOT NULL,
    create_time TEXT NOT NULL,
    received_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    deliveries  INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS realtime_warehousing_received
    ON realtime_warehousing (received_at);
CREATE TABLE IF NOT EXISTS acceptance_status (
    message_id     TEXT PRIMARY KEY,
    trace_id       TEXT NOT NULL,
    data_name      TEXT NOT NULL,
    report_type    TEXT NOT NULL,
    report_data    TEXT NOT NULL,
    error_reason   TEXT NOT NULL,
    error_handling TEXT NOT NULL,
    status         INTEGER NOT NULL,
    part_event     TEXT NOT NULL,
    part_date      TEXT NOT NULL,
    received_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    deliveries     INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS acceptance_status_received
    ON acceptance_status (received_at);
";

// A message that comes again is counted, not stored again.
const INSERT_EVENT: &str = "
INSERT INTO realtime_warehousing (message_id, trace_id, event_name, report_data, create_time)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (message_id) DO UPDATE SET deliveries = deliveries + 1
RETURNING deliveries";

const INSERT_STATUS: &str = "
INSERT INTO acceptance_status (message_id, trace_id, data_name, report_type, report_data,
    error_reason, error_handling, status, part_event, part_date)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (message_id) DO UPDATE SET deliveries = deliveries + 1
RETURNING deliveries";

const NEWEST: &str = "
SELECT * FROM (
    SELECT message_id, trace_id, 'event' AS kind, event_name, report_data,
        create_time AS created_at, NULL AS status, received_at, deliveries
    FROM realtime_warehousing ORDER BY received_at DESC LIMIT ?1)
UNION ALL
SELECT * FROM (
    SELECT message_id, trace_id, 'user' AS kind, part_event AS event_name, report_data,
        part_date AS created_at, status, received_at, deliveries
    FROM acceptance_status ORDER BY received_at DESC LIMIT ?1)
ORDER BY received_at DESC LIMIT ?1";

/// Where the reports are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The SQLite file; made if it is not there.
    pub path: PathBuf,
}

/// The reports' tables. Cheap to clone; connects when the App opens it.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    pool: SqlitePool,
}

/// Which topic a report came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `logger_report_event`.
    Event,
    /// `logger_report_user`.
    User,
}

/// A stored report, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The broker's id of the message.
    pub message_id: String,
    /// The trace that the report was posted in.
    pub trace_id: String,
    /// Event or user.
    pub kind: Kind,
    /// The event that was reported.
    pub event_name: String,
    /// What was reported: JSON text.
    pub report_data: String,
    /// When it was posted, RFC 3339.
    pub created_at: String,
    /// The acceptance status of a user report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i64>,
    /// When it was stored, RFC 3339.
    pub received_at: String,
    /// How often the message was delivered; more than 1: duplicates that were absorbed.
    pub deliveries: i64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "saver.sqlite".into(),
        }
    }
}

// === impl Store ===

impl Store {
    /// A store that is not connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(&config.path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // The message is acknowledged after the commit, so the commit must survive a crash.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        Self {
            path: config.path,
            pool,
        }
    }

    /// Stores an event; answers how often its message has come, this time included.
    ///
    /// # Errors
    ///
    /// What SQLite says: locked, gone, full. Nothing is stored then.
    pub async fn save_event(
        &self,
        message_id: &str,
        trace_id: &str,
        event: &RealTimeWarehousingData,
    ) -> sqlx::Result<i64> {
        sqlx::query(INSERT_EVENT)
            .bind(message_id)
            .bind(trace_id)
            .bind(event.event_name())
            .bind(event.report_data())
            .bind(event.create_time())
            .fetch_one(&self.pool)
            .await?
            .try_get(0)
    }

    /// Stores a user report; answers how often its message has come, this time included.
    ///
    /// # Errors
    ///
    /// As [`save_event`](Self::save_event).
    pub async fn save_status(
        &self,
        message_id: &str,
        trace_id: &str,
        status: &AcceptStatusReportData,
    ) -> sqlx::Result<i64> {
        sqlx::query(INSERT_STATUS)
            .bind(message_id)
            .bind(trace_id)
            .bind(status.data_name())
            .bind(status.report_type())
            .bind(status.report_data())
            .bind(status.error_reason())
            .bind(status.error_handling())
            .bind(status.status())
            .bind(status.part_event())
            .bind(status.part_date())
            .fetch_one(&self.pool)
            .await?
            .try_get(0)
    }

    /// The newest `limit` reports of both tables, newest first.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn newest(&self, limit: u32) -> sqlx::Result<Vec<Report>> {
        sqlx::query(NEWEST)
            .bind(limit)
            .try_map(|row: SqliteRow| report(&row))
            .fetch_all(&self.pool)
            .await
    }
}

impl Resource for Store {
    fn name(&self) -> &str {
        "store"
    }

    fn describe(&self) -> Description {
        let path = self.path.clone();
        let database = Check::new("database", move || ask(path.clone()));
        Description::new("database").check(database)
    }

    async fn open(&mut self, _cx: StartContext) -> Result<()> {
        let failed = |error: sqlx::Error| {
            let hint = "set store.path to a file in a folder that this process may write";
            Error::msg(format!(
                "cannot open the database {}: {hint}",
                self.path.display()
            ))
            .with_source(error)
        };
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        }
        sqlx::raw_sql(SCHEMA)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn close(self, by: Instant) -> Result<()> {
        let closed = tokio::time::timeout_at(by, self.pool.close()).await;
        closed.map_err(|_| Error::msg("a connection to the database was still in use"))
    }
}

/// Looks at the file, and makes none.
async fn ask(path: PathBuf) -> Result<String, Finding> {
    if !path.exists() {
        return Ok(format!(
            "{} is not there: the start makes it",
            path.display()
        ));
    }
    let options = SqliteConnectOptions::new().filename(&path);
    let connected = options.busy_timeout(BUSY_TIMEOUT).connect().await;
    let asked = match connected {
        Ok(mut database) => sqlx::raw_sql("SELECT count(*) FROM sqlite_schema")
            .execute(&mut database)
            .await
            .map(drop),
        Err(error) => Err(error),
    };
    asked.map(|()| path.display().to_string()).map_err(|error| {
        let wrong = format!("{}: {}", path.display(), kratos::error_chain(&error));
        Finding::new(
            wrong,
            "set store.path to a SQLite database, or to no file yet",
        )
    })
}

fn report(row: &SqliteRow) -> sqlx::Result<Report> {
    let kind = match row.try_get("kind")? {
        "event" => Kind::Event,
        _ => Kind::User,
    };
    Ok(Report {
        message_id: row.try_get("message_id")?,
        trace_id: row.try_get("trace_id")?,
        kind,
        event_name: row.try_get("event_name")?,
        report_data: row.try_get("report_data")?,
        created_at: row.try_get("created_at")?,
        status: row.try_get("status")?,
        received_at: row.try_get("received_at")?,
        deliveries: row.try_get("deliveries")?,
    })
}
