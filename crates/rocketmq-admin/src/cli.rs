//! The commands, and what they print.

mod table;

use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};
use rocketmq_admin::{Admin, Config, GroupSpec, Lag, Position, Result, TopicSpec};

use tokio::time::Instant;

use self::table::{Table, ago};

/// Topics, groups and offsets of an Apache RocketMQ cluster.
#[derive(Debug, Parser)]
#[command(name = "rocketmq-admin")]
pub(crate) struct Cli {
    /// Name servers, HOST:PORT, several with semicolons between.
    #[arg(
        long,
        env = "ROCKETMQ_NAMESRV",
        default_value = "127.0.0.1:9876",
        global = true
    )]
    namesrv: String,
    /// Only the brokers of this cluster.
    #[arg(long, global = true)]
    cluster: Option<String>,
    /// Longest time for one request, such as 5s.
    #[arg(long, default_value = "5s", value_parser = some_time, global = true)]
    timeout: Duration,
    /// Prints nothing but errors.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Topics: create, delete, list, show, wait.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Consumer groups: create, delete, list, show.
    #[command(subcommand)]
    Group(GroupCommand),
    /// How far a group has come, queue by queue.
    Lag {
        /// Group.
        group: String,
        /// Only this topic and its retries; without it every topic that the group has consumed from.
        topic: Option<String>,
    },
    /// Sets where a group goes on in a topic.
    ResetOffset {
        /// Group.
        group: String,
        /// Topic.
        topic: String,
        #[command(flatten)]
        to: To,
    },
    /// Clusters, brokers, addresses, versions.
    Cluster,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Creates topics, or changes them to this.
    Create {
        /// NAME[:TYPE][:queues=N][:attr.KEY=VALUE]; TYPE: NORMAL (default) FIFO DELAY TRANSACTION
        /// MIXED PRIORITY LITE.
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<TopicSpec>,
        /// Waits this long at most until the name servers know them, such as 10s.
        #[arg(long, value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Deletes topics with their messages; one that is not there is no error.
    Delete {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Lists topics.
    List {
        /// The brokers' own and those of retries and dead letters, too.
        #[arg(long)]
        all: bool,
    },
    /// Shows a topic's settings, route and queues.
    Show { name: String },
    /// Waits until the name servers know brokers for topics.
    Wait {
        #[arg(required = true)]
        names: Vec<String>,
        /// Longest time for all of them together.
        #[arg(long, default_value = "30s", value_parser = duration)]
        within: Duration,
    },
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Creates groups, or changes them to this.
    Create {
        /// NAME[:orderly][:retry=N][:backoff=1s-10s][:steps=1s,5s][:disabled][:attr.KEY=VALUE];
        /// retry: a message is handed out at most N+1 times (default 16).
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<GroupSpec>,
    },
    /// Deletes groups with their offsets and retries; dead letters stay.
    Delete {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Lists groups.
    List {
        /// The brokers' own, too.
        #[arg(long)]
        all: bool,
    },
    /// Shows a group's settings.
    Show { name: String },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// At the oldest message.
    #[arg(long)]
    start: bool,
    /// Behind the newest message.
    #[arg(long)]
    end: bool,
    /// At what was stored this long ago, such as 90s, 30m, 2h, 7d.
    #[arg(long, value_parser = duration)]
    ago: Option<Duration>,
    /// At what was stored at this time, in milliseconds since 1970.
    #[arg(long)]
    millis: Option<u64>,
}

// === impl Cli ===

impl Cli {
    /// Writes what there is to tell to `out`; a whole answer is small.
    pub(crate) async fn run(self, out: &mut Vec<u8>) -> Result<()> {
        let mut config = Config::new(self.namesrv).request_timeout(self.timeout);
        if let Some(cluster) = self.cluster {
            config = config.cluster(cluster);
        }
        let admin = Admin::new(config)?;
        let mut table = Table::new(if self.quiet { None } else { Some(out) });
        match self.command {
            Command::Topic(command) => command.run(&admin, &mut table).await,
            Command::Group(command) => command.run(&admin, &mut table).await,
            Command::Lag { group, topic } => {
                let lag = match topic {
                    Some(topic) => admin.lag_of_topic(&group, &topic).await?,
                    None => admin.lag(&group).await?,
                };
                show_lag(&lag, &mut table);
                Ok(())
            }
            Command::ResetOffset { group, topic, to } => {
                let offsets = admin.reset_offset(&group, &topic, to.position()).await?;
                table.head(&["BROKER", "QUEUE", "OFFSET"]);
                for (queue, offset) in offsets {
                    table.row([queue.broker, queue.id.to_string(), offset.to_string()]);
                }
                Ok(())
            }
            Command::Cluster => {
                let brokers = admin.cluster().await?;
                table.head(&["CLUSTER", "BROKER", "ID", "ADDRESS", "VERSION"]);
                for broker in brokers {
                    for (id, address) in &broker.addresses {
                        let version = match (id, &broker.version) {
                            (0, Some(version)) => version.clone(),
                            (0, None) => "no answer".to_owned(),
                            _ => String::new(),
                        };
                        let (cluster, name) = (broker.cluster.clone(), broker.name.clone());
                        table.row([cluster, name, id.to_string(), address.clone(), version]);
                    }
                }
                Ok(())
            }
        }
    }
}

impl TopicCommand {
    async fn run(self, admin: &Admin, table: &mut Table<'_>) -> Result<()> {
        match self {
            Self::Create { specs, wait } => {
                for spec in &specs {
                    admin.create_topic(spec).await?;
                    table.line(spec);
                }
                for spec in specs.iter().filter(|_| wait.is_some()) {
                    admin
                        .wait_for_topic(spec.name(), wait.unwrap_or_default())
                        .await?;
                }
            }
            Self::Delete { names } => {
                for name in names {
                    admin.delete_topic(&name).await?;
                    table.line(format_args!("topic {name}: deleted"));
                }
            }
            Self::List { all } => {
                let topics = admin.topics().await?.into_iter();
                table.head(&["TOPIC", "TYPE", "READ", "WRITE", "BROKERS"]);
                for it in topics.filter(|it| all || !(it.is_system() || it.is_of_group())) {
                    let kind = it.message_type().map_or("?", |it| it.as_str()).to_owned();
                    let (read, write) = (it.read_queues.to_string(), it.write_queues.to_string());
                    table.row([it.name, kind, read, write, it.brokers.join(" ")]);
                }
            }
            Self::Show { name } => {
                let detail = admin.topic(&name).await?;
                let kind = detail.topic.message_type().map_or("?", |it| it.as_str());
                table.line(format_args!("topic {name}: {kind}"));
                for (key, value) in &detail.topic.attributes {
                    table.line(format_args!("attribute {key}={value}"));
                }
                differs(&detail.topic.different_at, table);
                table.head(&[
                    "CLUSTER",
                    "BROKER",
                    "MASTER",
                    "READ",
                    "WRITE",
                    "PERMISSIONS",
                ]);
                for it in detail.route.brokers {
                    let master = it
                        .addresses
                        .get(&0)
                        .map_or("none", String::as_str)
                        .to_owned();
                    let (read, write) = (it.read_queues.to_string(), it.write_queues.to_string());
                    let permissions = it.permissions.to_string();
                    table.row([it.cluster, it.broker, master, read, write, permissions]);
                }
                table.head(&["BROKER", "QUEUE", "MIN", "MAX", "UPDATED"]);
                for it in detail.queues {
                    let (min, max) = (it.min_offset.to_string(), it.max_offset.to_string());
                    let updated = ago(it.updated_at);
                    table.row([it.queue.broker, it.queue.id.to_string(), min, max, updated]);
                }
            }
            Self::Wait { names, within } => {
                let began = Instant::now();
                for name in names {
                    let left = within.saturating_sub(began.elapsed());
                    admin.wait_for_topic(&name, left).await?;
                    table.line(format_args!("topic {name}: known"));
                }
            }
        }
        Ok(())
    }
}

impl GroupCommand {
    async fn run(self, admin: &Admin, table: &mut Table<'_>) -> Result<()> {
        match self {
            Self::Create { specs } => {
                for spec in &specs {
                    admin.create_group(spec).await?;
                    table.line(spec);
                }
            }
            Self::Delete { names } => {
                for name in names {
                    admin.delete_group(&name).await?;
                    table.line(format_args!("group {name}: deleted"));
                }
            }
            Self::List { all } => {
                let groups = admin.groups().await?.into_iter();
                table.head(&["GROUP", "ORDER", "RETRY", "BACK-OFF", "BROKERS"]);
                for it in groups.filter(|it| all || !it.is_system()) {
                    let order = if it.orderly { "orderly" } else { "" }.to_owned();
                    let (retry, backoff) = (it.retry_max_times.to_string(), it.backoff.to_string());
                    table.row([it.name, order, retry, backoff, it.brokers.join(" ")]);
                }
            }
            Self::Show { name } => {
                let group = admin.group(&name).await?;
                let order = if group.orderly { ", orderly" } else { "" };
                let off = if group.consume_enable {
                    ""
                } else {
                    ", disabled"
                };
                let (retry, backoff) = (group.retry_max_times, &group.backoff);
                table.line(format_args!(
                    "group {name}: retry {retry}{order}, {backoff}{off}"
                ));
                for (key, value) in &group.attributes {
                    table.line(format_args!("attribute {key}={value}"));
                }
                table.line(format_args!("brokers {}", group.brokers.join(" ")));
                differs(&group.different_at, table);
            }
        }
        Ok(())
    }
}

impl To {
    fn position(&self) -> Position {
        let millis = self.millis.map(Duration::from_millis);
        let at = match (self.ago, millis) {
            (Some(ago), _) => SystemTime::now().checked_sub(ago),
            (_, Some(millis)) => SystemTime::UNIX_EPOCH.checked_add(millis),
            _ if self.end => return Position::End,
            _ => None,
        };
        // What no clock can say is before everything.
        at.map_or(Position::Start, Position::Time)
    }
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|e| format!("{e}: expected numbers with units, such as 1m30s or 500ms"))
}

fn some_time(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("nothing is done in no time".to_owned()),
        some => Ok(some),
    }
}

fn show_lag(lag: &Lag, table: &mut Table<'_>) {
    table.head(&[
        "TOPIC", "BROKER", "QUEUE", "STORED", "CONSUMED", "LAG", "UNTIL",
    ]);
    for it in &lag.queues {
        table.row([
            it.queue.topic.clone(),
            it.queue.broker.clone(),
            it.queue.id.to_string(),
            it.broker_offset.to_string(),
            it.consumer_offset.to_string(),
            it.lag().to_string(),
            ago(it.consumed_until),
        ]);
    }
    table.line(format_args!("lag {}", lag.total()));
}

fn differs(brokers: &[String], table: &mut Table<'_>) {
    if !brokers.is_empty() {
        table.line(format_args!("set up otherwise at {}", brokers.join(" ")));
    }
}
