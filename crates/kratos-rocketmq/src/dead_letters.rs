//! Dead letters of a group: read like a topic, and sent back.

#[cfg(any(feature = "admin", feature = "embedded"))]
use kratos_broker::{Error, ErrorKind, Result};
use kratos_broker::{Replay, Topic};

#[cfg(any(feature = "admin", feature = "embedded"))]
use crate::{Client, broadcast::Site};

/// Attempts that a reader must be given at least. A letter's attempts go on from those it died of;
/// each list, and each replay that leaves it, spends one.
const READER_ATTEMPTS_MIN: u32 = 100;

/// Retries of a reader that is made here.
#[cfg(any(feature = "admin", feature = "embedded"))]
const READER_RETRIES: u32 = 1_000;

/// The topic of the dead letters that the broker keeps for a group: `%DLQ%<group>`.
#[must_use]
pub fn dead_letter_topic(group: &str) -> Topic {
    format!("%DLQ%{group}").into()
}

/// Sends the dead letters of a group back, as they are read by the group `<group>-replay`.
///
/// The server does not tell over gRPC which topic a dead letter came from: name it with
/// [`Replay::to`]. (Those of [`DeadLetter::Topic`](kratos_broker::DeadLetter::Topic) say it themselves; they are in a topic of their own,
/// which [`Replay::new`] reads.)
///
/// The reader must be there, with 100 attempts at least, and begin at the topic's start:
/// [`Client::prepare_replay`] sees to it, or a person does:
///
/// ```sh
/// rocketmq-admin group create billing-replay:retry=1000
/// rocketmq-admin reset-offset billing-replay %DLQ%billing --start
/// ```
///
/// ```no_run
/// # async fn run(client: kratos_rocketmq::Client) -> kratos_broker::Result<()> {
/// let replay = kratos_rocketmq::replay("billing").to("orders").tag("eu").per_second(20);
/// let never = std::future::pending();
/// let report = replay.run(&client.publisher(), never, |letter| println!("{}", letter.id())).await?;
/// println!("{} sent back", report.replayed);
/// # Ok(())
/// # }
/// ```
pub fn replay(group: &str) -> Replay {
    Replay::new(dead_letter_topic(group), format!("{group}-replay"))
        .attempts_min(READER_ATTEMPTS_MIN)
}

/// Reads the dead letters of a group, or those that were published to the topic `from`: by a reader
/// of its own for each, since the broker is asked for many attempts of all that it reads.
pub(crate) fn replay_from(group: &str, from: Option<&str>) -> Replay {
    let replay = replay(group);
    let Some(from) = from else {
        return replay;
    };
    let reader = format!("{}-replay", from.trim_start_matches("%DLQ%"));
    replay.reading(from, reader)
}

#[cfg(any(feature = "admin", feature = "embedded"))]
impl Client {
    /// Makes the reader of a [`Replay`], with 1,000 retries, since a dead letter's attempts go on;
    /// a group that is there is not changed. Where it has read nothing of the replay's topic yet, it
    /// begins at the topic's start. May be repeated.
    ///
    /// # Errors
    ///
    /// The name servers' addresses are not known (`rocketmq.admin`, feature `admin`), or they or a
    /// broker refused. An unknown topic: no message of the group has died yet.
    pub async fn prepare_replay(&self, replay: &Replay) -> Result<()> {
        let reader = replay.reader();
        match self.site()? {
            #[cfg(feature = "embedded")]
            Site::Embedded(broker) if broker.has_group(reader) => Ok(()),
            #[cfg(feature = "embedded")]
            Site::Embedded(broker) => {
                let config = rocketmq_devbroker::GroupConfig::new().retry_max_times(READER_RETRIES);
                let made = broker.create_group(reader, config);
                made.map_err(|error| cannot_make(reader, ErrorKind::Other, error))
            }
            #[cfg(feature = "admin")]
            Site::Cluster(admin) => {
                let topic = replay.from_topic();
                let made = make_reader(&admin, reader, topic).await;
                made.map_err(|error| {
                    let kind = match &error {
                        error if error.is_retryable() => ErrorKind::Transient,
                        error if error.is_not_found() => ErrorKind::UnknownTopic,
                        _ => ErrorKind::Other,
                    };
                    cannot_make(reader, kind, error)
                })
            }
            Site::Nowhere => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "group {reader} is made through the name servers: set rocketmq.admin to their \
                     host:port, and build kratos-rocketmq with the feature admin"
                ),
            )),
        }
    }
}

#[cfg(feature = "admin")]
async fn make_reader(
    admin: &rocketmq_admin::Admin,
    reader: &str,
    topic: &str,
) -> rocketmq_admin::Result<()> {
    // Before there are dead letters there is no start to begin at: nothing is made then.
    admin.topic(topic).await?;
    match admin.group(reader).await {
        Ok(_there) => {}
        Err(error) if error.is_not_found() => {
            let spec = rocketmq_admin::GroupSpec::new(reader).retry_max_times(READER_RETRIES);
            admin.create_group(&spec).await?;
        }
        Err(error) => return Err(error),
    }
    // It would begin at the topic's end. A group that is there may have been left without a place,
    // or have one in another topic only.
    let start = rocketmq_admin::Position::Start;
    admin.init_offset(reader, topic, start).await.map(drop)
}

#[cfg(any(feature = "admin", feature = "embedded"))]
fn cannot_make(
    reader: &str,
    kind: ErrorKind,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(kind, format!("cannot make the reading group {reader}")).with_source(error)
}
