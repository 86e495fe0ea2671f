//! The producers and consumers: processes, each behind a relay of its own.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    Fault,
    broker::{Broker, signal},
    now_ms,
};
use crate::relay::Relay;

const PRODUCERS: usize = 2;
const CONSUMERS: usize = 3;

/// How long a stop may take: the App's own deadline and a little.
const STOP_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Producer,
    Consumer,
}

/// How a process ended that was asked to.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) process: String,
    /// When it was told.
    pub(super) at: u64,
    pub(super) took: Duration,
    /// `None`: it had to be killed.
    pub(super) status: Option<ExitStatus>,
}

pub(super) struct Fleet {
    members: Vec<Member>,
    /// Processes that were told to stop.
    stopping: JoinSet<Result<Stop, Fault>>,
    /// Processes that ended before anybody harmed them.
    dead: Vec<String>,
    run: String,
    folder: PathBuf,
    rate: u32,
}

struct Member {
    kind: Kind,
    number: usize,
    /// How often it was started.
    life: u32,
    relay: Relay,
    child: Child,
}

// === impl Fleet ===

impl Fleet {
    pub(super) async fn start(
        broker: &Broker,
        run: &str,
        folder: &Path,
        rate: u32,
    ) -> Result<Self, Fault> {
        let mut fleet = Self {
            members: Vec::new(),
            stopping: JoinSet::new(),
            dead: Vec::new(),
            run: run.to_owned(),
            folder: folder.to_owned(),
            rate,
        };
        let kinds = [(Kind::Consumer, CONSUMERS), (Kind::Producer, PRODUCERS)];
        for (kind, count) in kinds {
            for number in 0..count {
                let relay = Relay::to(broker.endpoints().to_owned()).await?;
                let child = fleet.spawn(kind, &name(kind, number, 0), &relay)?;
                fleet.members.push(Member {
                    kind,
                    number,
                    life: 0,
                    relay,
                    child,
                });
            }
        }
        Ok(fleet)
    }

    pub(super) fn of(&self, kind: Kind) -> Vec<usize> {
        let all = self.members.iter().enumerate();
        all.filter(|(_, member)| member.kind == kind)
            .map(|(at, _)| at)
            .collect()
    }

    pub(super) fn name(&self, at: usize) -> String {
        self.members[at].name()
    }

    pub(super) fn freeze(&self, at: usize) {
        self.members[at].relay.freeze();
    }

    /// SIGKILL, and a new one in its place.
    pub(super) async fn kill(&mut self, at: usize) -> Result<(), Fault> {
        self.look_at(at)?;
        self.members[at].child.kill().await?;
        self.replace(at).map(drop)
    }

    /// SIGTERM, and a new one in its place at once.
    pub(super) async fn stop(&mut self, at: usize) -> Result<(), Fault> {
        self.look_at(at)?;
        let process = self.name(at);
        if let Some(pid) = self.members[at].child.id() {
            signal("-TERM", pid).await?;
        }
        let child = self.replace(at)?;
        self.stopping.spawn(ended(process, child));
        Ok(())
    }

    /// SIGTERM to all of a kind, and nothing in their places.
    pub(super) async fn end(&mut self, kind: Kind) -> Result<(), Fault> {
        let (ending, left) = std::mem::take(&mut self.members)
            .into_iter()
            .partition::<Vec<_>, _>(|member| member.kind == kind);
        self.members = left;
        for member in ending {
            if let Some(pid) = member.child.id() {
                signal("-TERM", pid).await?;
            }
            self.stopping.spawn(async move {
                let process = member.name();
                // The relay must live until the process has ended.
                let stop = ended(process, member.child).await;
                drop(member.relay);
                stop
            });
        }
        Ok(())
    }

    /// The stops so far; waits for those under way.
    pub(super) async fn stops(&mut self) -> Result<Vec<Stop>, Fault> {
        let mut stops = Vec::new();
        while let Some(stop) = self.stopping.join_next().await {
            stops.push(stop??);
        }
        Ok(stops)
    }

    /// Fails if one ended although nobody told it to, and names its log.
    pub(super) fn check_alive(&mut self) -> Result<(), Fault> {
        for at in 0..self.members.len() {
            self.look_at(at)?;
        }
        if self.dead.is_empty() {
            return Ok(());
        }
        let (dead, folder) = (self.dead.join(", "), self.folder.display());
        Err(format!("ended by themselves: {dead}; their logs are in {folder}").into())
    }

    /// Those that ended although nobody told them to.
    pub(super) fn dead(&mut self) -> Result<Vec<String>, Fault> {
        for at in 0..self.members.len() {
            self.look_at(at)?;
        }
        Ok(std::mem::take(&mut self.dead))
    }

    fn look_at(&mut self, at: usize) -> Result<(), Fault> {
        let member = &mut self.members[at];
        if let Some(status) = member.child.try_wait()? {
            self.dead.push(format!("{} ({status})", member.name()));
        }
        Ok(())
    }

    /// A new process in a member's place; answers the old one.
    fn replace(&mut self, at: usize) -> Result<Child, Fault> {
        let member = &self.members[at];
        let name = name(member.kind, member.number, member.life + 1);
        let child = self.spawn(member.kind, &name, &member.relay)?;
        let member = &mut self.members[at];
        member.life += 1;
        Ok(std::mem::replace(&mut member.child, child))
    }

    fn spawn(&self, kind: Kind, name: &str, relay: &Relay) -> Result<Child, Fault> {
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let role = match kind {
            Kind::Producer => "produce",
            Kind::Consumer => "consume",
        };
        let share = self.rate / u32::try_from(PRODUCERS)?;
        let child = Command::new(env::current_exe()?)
            .args([role, "--name", name, "--run", &self.run])
            .args([
                "--relay",
                &relay.addr().to_string(),
                "--rate",
                &share.to_string(),
            ])
            .arg("--folder")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(child)
    }
}

// === impl Stop ===

impl Stop {
    pub(super) fn is_clean(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

// === impl Member ===

impl Member {
    fn name(&self) -> String {
        name(self.kind, self.number, self.life)
    }
}

fn name(kind: Kind, number: usize, life: u32) -> String {
    let letter = match kind {
        Kind::Producer => 'p',
        Kind::Consumer => 'c',
    };
    format!("{letter}{number}-{life}")
}

async fn ended(process: String, mut child: Child) -> Result<Stop, Fault> {
    let (told, at) = (Instant::now(), now_ms());
    let status = match timeout(STOP_MAX, child.wait()).await {
        Ok(status) => Some(status?),
        Err(_) => {
            child.kill().await?;
            None
        }
    };
    Ok(Stop {
        process,
        at,
        took: told.elapsed(),
        status,
    })
}
