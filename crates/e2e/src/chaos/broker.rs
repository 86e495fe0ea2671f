//! What the storm blows around: the dev broker as a process, or a real Apache RocketMQ.

use std::{
    env, fmt,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rocketmq_admin::{Admin, GroupSpec, MessageType, TopicSpec};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{Fault, Names};

/// How long a broker may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// How long a new topic takes to be known everywhere.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// Retries that the groups give: a locked database must not make dead letters.
const RETRIES: u32 = 100;

pub(super) struct Broker {
    endpoints: String,
    kind: Kind,
}

enum Kind {
    /// The process, and how it is started.
    Dev {
        child: Box<Child>,
        command: DevCommand,
    },
    /// Started by `deploy/rocketmq/up.sh` in this folder.
    Real { folder: PathBuf },
}

struct DevCommand {
    endpoints: String,
    folder: PathBuf,
    names: Names,
}

// === impl Broker ===

impl Broker {
    pub(super) async fn start(real: bool, folder: &Path, names: &Names) -> Result<Self, Fault> {
        if real {
            return Self::real(names).await;
        }
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let command = DevCommand {
            endpoints: free.to_string(),
            folder: folder.to_owned(),
            names: names.clone(),
        };
        let broker = Self {
            endpoints: free.to_string(),
            kind: Kind::Dev {
                child: Box::new(command.start()?),
                command,
            },
        };
        broker.listens().await?;
        Ok(broker)
    }

    async fn real(names: &Names) -> Result<Self, Fault> {
        let told = |name: &str| env::var(name).map_err(|_| format!("{name} is not set: up.sh"));
        let endpoints = told("ROCKETMQ_ENDPOINTS")?;
        let folder = PathBuf::from(told("ROCKETMQ_DIR")?);
        let admin = Admin::new(told("ROCKETMQ_NAMESRV")?)?;
        for (topic, kind) in [
            (&names.normal, MessageType::Normal),
            (&names.fifo, MessageType::Fifo),
        ] {
            admin
                .create_topic(&TopicSpec::new(topic).message_type(kind).queues(8))
                .await?;
        }
        for (group, orderly) in [(&names.normal_group, false), (&names.fifo_group, true)] {
            let spec = GroupSpec::new(group)
                .orderly(orderly)
                .retry_max_times(RETRIES);
            admin.create_group(&spec).await?;
        }
        for topic in [&names.normal, &names.fifo] {
            admin.wait_for_topic(topic, KNOWN_WITHIN).await?;
        }
        Ok(Self {
            endpoints,
            kind: Kind::Real { folder },
        })
    }

    pub(super) fn endpoints(&self) -> &str {
        &self.endpoints
    }

    /// How long the storm leaves it alone after a restart.
    pub(super) fn rest(&self) -> Duration {
        match self.kind {
            Kind::Dev { .. } => Duration::from_secs(15),
            Kind::Real { .. } => Duration::from_secs(90),
        }
    }

    /// Ends it and starts it again with the same store; by SIGKILL, or as an operator would.
    pub(super) async fn restart(&mut self, kill: bool) -> Result<(), Fault> {
        match &mut self.kind {
            Kind::Dev { child, command } => {
                if kill {
                    child.kill().await?;
                } else {
                    signal("-TERM", child.id().ok_or("the broker has ended by itself")?).await?;
                    timeout(BACK_WITHIN, child.wait()).await??;
                }
                **child = command.start()?;
            }
            Kind::Real { folder } => {
                if kill {
                    let pid = std::fs::read_to_string(folder.join("broker.pid"))?;
                    signal("-KILL", pid.trim().parse()?).await?;
                } else {
                    script("down.sh").await?;
                }
                script("up.sh").await?;
            }
        }
        self.listens().await
    }

    async fn listens(&self) -> Result<(), Fault> {
        let listens = async {
            while TcpStream::connect(&self.endpoints).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(BACK_WITHIN, listens).await;
        waited.map_err(|_| format!("no broker at {} after {BACK_WITHIN:?}", self.endpoints).into())
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Dev { .. } => "the dev broker",
            Kind::Real { .. } => "a real Apache RocketMQ",
        })
    }
}

// === impl DevCommand ===

impl DevCommand {
    fn start(&self) -> Result<Child, Fault> {
        let Names {
            normal,
            fifo,
            normal_group,
            fifo_group,
        } = &self.names;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("broker.log"))?;
        let child = Command::new(beside("rocketmq-devbroker")?)
            .args(["--listen", &self.endpoints, "--strict", "--data"])
            .arg(self.folder.join("broker"))
            .args(["--topic", normal, "--topic", &format!("{fifo}:FIFO")])
            .args(["--group", &format!("{normal_group}:retry={RETRIES}")])
            .args(["--group", &format!("{fifo_group}:fifo:retry={RETRIES}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(child)
    }
}

/// A binary that lies beside this one.
fn beside(name: &str) -> Result<PathBuf, Fault> {
    let path = env::current_exe()?.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is not there: build it first, as `make chaos` does",
        path.display()
    )
    .into())
}

pub(super) async fn signal(signal: &str, pid: u32) -> Result<(), Fault> {
    let ended = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()
        .await?;
    if ended.success() {
        return Ok(());
    }
    Err(format!("kill {signal} {pid}: {ended}").into())
}

async fn script(name: &str) -> Result<(), Fault> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/rocketmq")
        .join(name);
    let ended = Command::new("bash")
        .arg(path)
        .env("ROCKETMQ_KEEP", "1")
        .stdout(Stdio::null())
        .status()
        .await?;
    if ended.success() {
        return Ok(());
    }
    Err(format!("{name}: {ended}").into())
}
