//! A consumer process: an App that writes every message that it handles into the database.

use std::time::Duration;

use kratos::App;
use kratos_broker::{AnyError, Attempt, Backoff, Json, MessageId, Policy, State, Subscription};
use kratos_rocketmq::Server;
use sqlx::SqlitePool;

use super::{LEASE, Names, Note, Role, journal::Journal, now_ms, storm};

/// A locked database must not make dead letters: this is about loss.
const ATTEMPTS: u32 = 64;
const BACKOFF: Backoff = Backoff::exponential(Duration::from_millis(500), Duration::from_secs(2));
/// Attempts in this process, where order is kept.
const ATTEMPTS_IN_ORDER: u32 = 1_000;
/// A broker that is killed on a busy machine is back later than the App would wait by itself.
const START_MAX: Duration = Duration::from_secs(120);
/// What a handler does besides.
const WORK: Duration = Duration::from_millis(5);

#[derive(Clone)]
struct Book {
    pool: SqlitePool,
    process: String,
}

/// Consumes until SIGTERM.
///
/// # Errors
///
/// As those of [`App::run`].
pub async fn consume(role: Role) -> kratos::Result<()> {
    let _telemetry = kratos::telemetry::init(&kratos::telemetry::Config::default())?;
    let names = Names::of(&role.run);
    let client = role.client().map_err(kratos::Error::from_any)?;
    let journal = Journal::open(&role.folder, &role.name).map_err(kratos::Error::from_any)?;
    let book = Book {
        pool: storm::database(&role.folder).map_err(kratos::Error::from_any)?,
        process: role.name,
    };
    let normal = Subscription::new(names.normal.as_str(), names.normal_group.as_str())
        .invisible_duration(LEASE)
        .policy(Policy::new().max_attempts(ATTEMPTS).backoff(BACKOFF));
    let fifo = Subscription::new(names.fifo.as_str(), names.fifo_group.as_str())
        .fifo()
        .invisible_duration(LEASE)
        .ordered_policy(
            Policy::ordered()
                .max_attempts(ATTEMPTS_IN_ORDER)
                .backoff(BACKOFF),
        );
    let server = Server::new(client.clone())
        .subscribe_with(normal, handle)
        .subscribe_with(fifo, handle)
        .with_state(book);
    let counters = server.counters();
    let ended = App::new()
        .name("chaos-consumer")
        .start_timeout(START_MAX)
        .resource(client)
        .server(server)
        .run()
        .await;
    let stats = format!("{:?}", counters.stats());
    journal
        .note("stats", &stats)
        .map_err(kratos::Error::from_any)?;
    ended
}

async fn handle(
    State(book): State<Book>,
    id: MessageId,
    Attempt(attempt): Attempt,
    Json(note): Json<Note>,
) -> Result<(), AnyError> {
    tokio::time::sleep(WORK).await;
    sqlx::query(
        "INSERT INTO handled (at, id, seq, message_id, process, attempt) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(i64::try_from(now_ms())?)
    .bind(note.id)
    .bind(i64::try_from(note.seq)?)
    .bind(id.as_str())
    .bind(&book.process)
    .bind(attempt)
    .execute(&book.pool)
    .await?;
    Ok(())
}
