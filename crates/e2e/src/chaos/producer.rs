//! A producer process: an App whose one server publishes until it is told to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use kratos::{App, BoundServer, Server, Shutdown, StartContext};
use kratos_broker::Message;
use kratos_rocketmq::Publisher;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Names, Note, Role, journal::Journal};

/// Senders of messages without a group; each keeps its share of the rate.
const SENDERS: u32 = 8;
/// Message groups of one process; each is a sender that keeps its order.
const GROUPS: u32 = 4;
/// The share of the messages that have a group: one of this many.
const ORDERED_SHARE: u32 = 4;
/// The wait before an ordered message is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// Publishes until SIGTERM.
///
/// # Errors
///
/// As those of [`App::run`].
pub async fn produce(role: Role) -> kratos::Result<()> {
    let _telemetry = kratos::telemetry::init(&kratos::telemetry::Config::default())?;
    let names = Names::of(&role.run);
    let client = role.client().map_err(kratos::Error::from_any)?;
    let client = client.publishes([names.normal.clone(), names.fifo.clone()]);
    let load = Load {
        publisher: client.publisher(),
        journal: Journal::open(&role.folder, &role.name).map_err(kratos::Error::from_any)?,
        names,
        process: role.name,
        rate: role.rate,
        next: AtomicU64::new(0),
    };
    App::new()
        .name("chaos-producer")
        .resource(client)
        .server(Producer(Arc::new(load)))
        .run()
        .await
}

struct Producer(Arc<Load>);

struct Load {
    publisher: Publisher,
    journal: Journal,
    names: Names,
    process: String,
    rate: u32,
    next: AtomicU64,
}

impl Server for Producer {
    type Bound = Self;

    fn name(&self) -> &str {
        "load"
    }

    async fn bind(self, _: StartContext) -> kratos::Result<Self> {
        Ok(self)
    }
}

impl BoundServer for Producer {
    async fn serve(self, shutdown: Shutdown) -> kratos::Result<()> {
        let load = self.0;
        let ordered = load.rate / ORDERED_SHARE;
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let every = Duration::from_secs(1) * SENDERS / (load.rate - ordered).max(1);
            senders.spawn(load.clone().send_free(every, shutdown.clone()));
        }
        for number in 0..GROUPS {
            let every = Duration::from_secs(1) * GROUPS / ordered.max(1);
            senders.spawn(load.clone().send_group(number, every, shutdown.clone()));
        }
        let all = async {
            while let Some(sender) = senders.join_next().await {
                sender.map_err(kratos::Error::from_any)??;
            }
            Ok(())
        };
        tokio::select! {
            ended = all => ended,
            // What is under way is in the journal as tried: neither confirmed nor failed.
            () = shutdown.now() => Ok(()),
        }
    }
}

impl Load {
    async fn send_free(self: Arc<Self>, every: Duration, shutdown: Shutdown) -> kratos::Result<()> {
        let mut at = Instant::now();
        while !shutdown.is_requested() {
            let number = self.next.fetch_add(1, Relaxed);
            let note = Note {
                id: format!("{}:{number}", self.process),
                seq: 0,
            };
            self.send(
                Message::new(self.names.normal.as_str(), body(&note)?),
                &note,
            )
            .await?;
            at = (at + every).max(Instant::now());
            sleep_until(at).await;
        }
        Ok(())
    }

    /// The next of a group is sent when the one before is confirmed.
    async fn send_group(
        self: Arc<Self>,
        group: u32,
        every: Duration,
        shutdown: Shutdown,
    ) -> kratos::Result<()> {
        let group = format!("{}/g{group}", self.process);
        let mut at = Instant::now();
        let mut seq = 0;
        while !shutdown.is_requested() {
            let note = Note {
                id: format!("{group}:{seq}"),
                seq,
            };
            let message = || -> kratos::Result<Message> {
                let topic = self.names.fifo.as_str();
                Ok(Message::new(topic, body(&note)?).group(group.as_str()))
            };
            while !self.send(message()?, &note).await? && !shutdown.is_requested() {
                tokio::time::sleep(AGAIN).await;
            }
            seq += 1;
            at = (at + every).max(Instant::now());
            sleep_until(at).await;
        }
        Ok(())
    }

    /// Whether it was confirmed.
    async fn send(&self, message: Message, note: &Note) -> kratos::Result<bool> {
        let noted = |what: &str| {
            let noted = self.journal.note(what, &note.id);
            noted.map_err(kratos::Error::from_any)
        };
        noted("try")?;
        match self.publisher.publish(message).await {
            Ok(_) => noted("ok").map(|()| true),
            Err(error) => {
                tracing::debug!(id = note.id, %error, "not confirmed");
                let what = if error.may_be_stored() {
                    "unsure"
                } else {
                    "refused"
                };
                noted(what).map(|()| false)
            }
        }
    }
}

fn body(note: &Note) -> kratos::Result<Vec<u8>> {
    serde_json::to_vec(note).map_err(kratos::Error::from_any)
}
