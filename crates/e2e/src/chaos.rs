//! Producers and consumers as processes, harmed at random; a checker that knows every message.
//!
//! The orchestrator starts a broker, two producers and three consumers, each behind a TCP relay of
//! its own, and harms one of them every few seconds: SIGTERM, SIGKILL, a connection that dies
//! without a word, a locked database, a restart of the broker. Producers keep a journal: tried,
//! confirmed, failed. Consumers write each message that they handled into a database, in the
//! handler. At the end the two are compared, and every second delivery needs a cause.

mod broker;
mod consumer;
mod fleet;
mod journal;
mod producer;
mod storm;
mod verdict;

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Parser};
use serde::{Deserialize, Serialize};

use self::{broker::Broker, fleet::Fleet, storm::Storm};
pub use self::{consumer::consume, producer::produce};

/// What the orchestrator may fail with.
pub type Fault = Box<dyn Error + Send + Sync>;

/// How long what was confirmed may take to be handled once the harm has ended: a lease, the
/// broker's revival, and a retry.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// For how long a received message stays invisible to others.
const LEASE: Duration = Duration::from_secs(15);

/// The roles of the binary.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    version,
    about = "Harms producers and consumers, and counts what is lost"
)]
pub enum Cli {
    /// Starts everything, harms it, and judges
    Run(Settings),
    /// A producer (started by `run`)
    #[command(hide = true)]
    Produce(Role),
    /// A consumer (started by `run`)
    #[command(hide = true)]
    Consume(Role),
}

/// How to run.
#[derive(Debug, Args)]
pub struct Settings {
    /// Seconds of harm
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What the harm is drawn from; the clock by default
    #[arg(long)]
    seed: Option<u64>,
    /// Harms a real Apache RocketMQ, which ROCKETMQ_DIR and ROCKETMQ_ENDPOINTS name, and which
    /// deploy/rocketmq/up.sh starts again; the dev broker otherwise
    #[arg(long)]
    real: bool,
    /// Messages a second
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Folder of journals, logs and database; a new one by default, removed after a good run
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What a producer or a consumer is told.
#[derive(Debug, Args)]
pub struct Role {
    /// The process, as it signs its work
    #[arg(long)]
    name: String,
    /// The relay that leads to the broker
    #[arg(long)]
    relay: std::net::SocketAddr,
    /// The run, which names topics and groups
    #[arg(long)]
    run: String,
    /// Folder of journals and database
    #[arg(long)]
    folder: PathBuf,
    /// Messages a second, of a producer
    #[arg(long, default_value_t = 100)]
    rate: u32,
}

/// What a message says.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Note {
    /// Unique among all messages.
    id: String,
    /// Its place in its message group; of messages without a group 0.
    seq: u64,
}

/// Topics and groups of one run.
#[derive(Clone, Debug)]
struct Names {
    normal: String,
    fifo: String,
    normal_group: String,
    fifo_group: String,
}

impl Names {
    fn of(run: &str) -> Self {
        Self {
            normal: format!("chaos_{run}_normal"),
            fifo: format!("chaos_{run}_fifo"),
            normal_group: format!("chaos_{run}_g_normal"),
            fifo_group: format!("chaos_{run}_g_fifo"),
        }
    }
}

impl Role {
    fn client(&self) -> Result<kratos_rocketmq::Client, rocketmq_grpc::Error> {
        let relay = self.relay;
        let config = rocketmq_grpc::Config::new(relay.to_string())
            .rewrite_addresses(move |_, _| (relay.ip().to_string(), relay.port()));
        rocketmq_grpc::Client::new(config).map(kratos_rocketmq::Client::around)
    }
}

/// Runs everything; answers whether nothing was lost and nothing is unexplained.
///
/// # Errors
///
/// Something could not be started, or did not end.
#[expect(clippy::print_stdout, reason = "what the command is for")]
pub async fn run(settings: Settings) -> Result<bool, Fault> {
    let seed = settings.seed.unwrap_or_else(now_ms);
    let run = format!("{:x}", now_ms());
    let folder = match &settings.folder {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("chaos-{run}")),
    };
    std::fs::create_dir_all(&folder)?;
    println!("chaos: seed {seed}, folder {}", folder.display());

    let broker = Broker::start(settings.real, &folder, &Names::of(&run)).await?;
    let what = broker.to_string();
    let mut storm = Storm::new(seed, broker, &folder).await?;
    let mut fleet = Fleet::start(&storm.broker, &run, &folder, settings.rate).await?;
    storm
        .rage(&mut fleet, Duration::from_secs(settings.seconds))
        .await?;
    let verdict = verdict::reach(fleet, storm, &folder).await?;
    println!(
        "chaos on {what}, {} s, seed {seed}\n{verdict}",
        settings.seconds
    );
    let good = verdict.is_good();
    if good && settings.folder.is_none() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(good)
}

/// The wall clock, in milliseconds: what several processes agree on.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
