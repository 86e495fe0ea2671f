//! The harm: what, when, to whom, drawn from a seed.

use std::{fmt, path::Path, time::Duration};

use sqlx::{
    Connection, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use super::{
    Fault,
    broker::Broker,
    fleet::{Fleet, Kind},
    now_ms,
};

/// Between two harms, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 1_000..4_000;
/// For how long the database is locked, in milliseconds.
const LOCK_MS: std::ops::Range<u64> = 1_000..6_000;
/// How long a handler waits for the database.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// Everything has come up and works before the first harm.
const FIRST: Duration = Duration::from_secs(3);

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS handled (
    at INTEGER NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, message_id TEXT NOT NULL,
    process TEXT NOT NULL, attempt INTEGER NOT NULL)";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Harm {
    Stopped,
    Killed,
    Frozen,
    DatabaseLocked,
    BrokerRestarted,
}

/// What was done to whom, and when.
#[derive(Debug)]
pub(super) struct Blow {
    pub(super) harm: Harm,
    /// The process; empty where it is everybody.
    pub(super) process: String,
    pub(super) from: u64,
    pub(super) until: u64,
}

pub(super) struct Storm {
    dice: Dice,
    pub(super) broker: Broker,
    database: SqliteConnection,
    pub(super) blows: Vec<Blow>,
}

/// The database of a run; connects when it is first used.
pub(super) fn database(folder: &Path) -> Result<SqlitePool, sqlx::Error> {
    Ok(SqlitePoolOptions::new()
        .max_connections(4)
        .connect_lazy_with(options(folder)))
}

fn options(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder.join("handled.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Processes die here, not machines.
        .synchronous(SqliteSynchronous::Off)
        .busy_timeout(BUSY_TIMEOUT)
}

// === impl Storm ===

impl Storm {
    pub(super) async fn new(seed: u64, broker: Broker, folder: &Path) -> Result<Self, Fault> {
        let options = options(folder).busy_timeout(Duration::from_secs(30));
        let mut database = SqliteConnection::connect_with(&options).await?;
        sqlx::query(SCHEMA).execute(&mut database).await?;
        Ok(Self {
            dice: Dice(seed),
            broker,
            database,
            blows: Vec::new(),
        })
    }

    /// Harms for so long; not longer than until a process ends that nobody harmed.
    pub(super) async fn rage(&mut self, fleet: &mut Fleet, time: Duration) -> Result<(), Fault> {
        sleep(FIRST).await;
        let start = Instant::now();
        let mut spare_broker_until = start + self.broker.rest() / 3;
        while start.elapsed() < time {
            match self.dice.roll(100) {
                0..30 => self.one(fleet, Kind::Consumer, Harm::Stopped).await?,
                30..48 => self.one(fleet, Kind::Consumer, Harm::Killed).await?,
                48..58 => self.one(fleet, Kind::Producer, Harm::Stopped).await?,
                58..66 => self.one(fleet, Kind::Producer, Harm::Killed).await?,
                66..78 => self.one(fleet, Kind::Consumer, Harm::Frozen).await?,
                78..82 => self.one(fleet, Kind::Producer, Harm::Frozen).await?,
                82..90 => self.lock_database().await?,
                _ if Instant::now() >= spare_broker_until => {
                    self.restart_broker().await?;
                    spare_broker_until = Instant::now() + self.broker.rest();
                }
                _ => {}
            }
            sleep(Duration::from_millis(self.dice.within(PAUSE_MS))).await;
            fleet.check_alive()?;
        }
        Ok(())
    }

    async fn one(&mut self, fleet: &mut Fleet, kind: Kind, harm: Harm) -> Result<(), Fault> {
        let all = fleet.of(kind);
        let at = all[usize::try_from(self.dice.roll(all.len() as u64))?];
        let (process, from) = (fleet.name(at), now_ms());
        match harm {
            Harm::Stopped => fleet.stop(at).await?,
            Harm::Killed => fleet.kill(at).await?,
            Harm::Frozen => fleet.freeze(at),
            Harm::DatabaseLocked | Harm::BrokerRestarted => {}
        }
        self.struck(harm, process, from);
        Ok(())
    }

    async fn lock_database(&mut self) -> Result<(), Fault> {
        let time = Duration::from_millis(self.dice.within(LOCK_MS));
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut self.database)
            .await?;
        let from = now_ms();
        sleep(time).await;
        sqlx::query("ROLLBACK").execute(&mut self.database).await?;
        self.struck(Harm::DatabaseLocked, String::new(), from);
        Ok(())
    }

    async fn restart_broker(&mut self) -> Result<(), Fault> {
        let (kill, from) = (self.dice.roll(2) == 0, now_ms());
        self.broker.restart(kill).await?;
        self.struck(Harm::BrokerRestarted, String::new(), from);
        Ok(())
    }

    fn struck(&mut self, harm: Harm, process: String, from: u64) {
        self.blows.push(Blow {
            harm,
            process,
            from,
            until: now_ms(),
        });
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "SIGTERM",
            Self::Killed => "SIGKILL",
            Self::Frozen => "frozen connection",
            Self::DatabaseLocked => "database locked",
            Self::BrokerRestarted => "broker restarted",
        })
    }
}

/// SplitMix64: the same harm for the same seed, though not at the same microsecond.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.roll(range.end - range.start)
    }
}
