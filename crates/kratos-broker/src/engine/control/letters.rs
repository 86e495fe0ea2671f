//! The dead letters of a subscription, listed and sent back by hand: a [`Replay`] that is bounded.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use kratos::{Answer, Refusal, trace};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    DeadLetter, DeadLetterView, Driver, Error, Group, Publisher, Replay, ReplayEnded, ReplayReport,
    Result, Subscription, Topic,
};

/// How long letters are read, or sent back, by one call; then it ends, and says that there is more.
const READ_MAX: Duration = Duration::from_secs(60);

/// Readers that are at work. Two of one group would each see what the other does not hold.
pub(crate) type AtWork = Arc<Mutex<BTreeSet<Group>>>;

/// A publisher whose driver is not named, and that reads dead letters.
pub(crate) trait Reader: Send + Sync {
    /// How the letters of a group are read.
    fn replay(&self, group: &Group, topic: Option<&Topic>) -> Option<Replay>;

    /// Lists letters or sends them back.
    fn read<'a>(
        &'a self,
        replay: &'a Replay,
        send: bool,
        stop: BoxFuture<'a, ()>,
        each: &'a mut (dyn FnMut(&DeadLetterView<'_>) + Send),
    ) -> BoxFuture<'a, Result<ReplayReport>>;
}

/// The dead letters of one subscription.
pub(crate) struct Letters {
    reader: Arc<dyn Reader>,
    /// How they are read; `None` if they cannot be.
    replay: Option<Replay>,
    /// Where they go; `None` if nobody knows which topic of the group they came from.
    to: Option<Topic>,
    /// Its name, for people.
    name: String,
    /// They are kept by the broker itself, in a place that is made for the first.
    native: bool,
    at_work: AtWork,
    /// The server begins to stop.
    stop: CancellationToken,
}

/// A reader at work, until it is dropped.
struct Work {
    reader: Group,
    all: AtWork,
}

/// A letter that was listed.
struct Found {
    born: Option<SystemTime>,
    shown: Value,
}

/// What was found, and how that ended; `None` where no place for dead letters is made yet.
type Read = (Vec<Found>, Option<ReplayReport>);

// === impl Reader ===

impl<D: Driver> Reader for Publisher<D> {
    fn replay(&self, group: &Group, topic: Option<&Topic>) -> Option<Replay> {
        self.driver().replay(group, topic)
    }

    fn read<'a>(
        &'a self,
        replay: &'a Replay,
        send: bool,
        stop: BoxFuture<'a, ()>,
        each: &'a mut (dyn FnMut(&DeadLetterView<'_>) + Send),
    ) -> BoxFuture<'a, Result<ReplayReport>> {
        Box::pin(async move {
            self.driver().prepare_reader(replay).await?;
            match send {
                true => replay.run(self, stop, each).await,
                false => replay.list(self.driver(), stop, each).await,
            }
        })
    }
}

// === impl Letters ===

impl Letters {
    /// Of a subscription of `group`, which has this one topic or more. Does no I/O.
    pub(crate) fn new(
        reader: &Arc<dyn Reader>,
        subscription: &Subscription,
        group: &Group,
        one_topic: bool,
        at_work: &AtWork,
        stop: &CancellationToken,
    ) -> Self {
        let from = match &subscription.dead_letter {
            DeadLetter::Native => None,
            DeadLetter::Topic(topic) => Some(topic),
        };
        // The group of a broadcast is another for each instance, and goes with it.
        let replay = match subscription.broadcast && from.is_none() {
            true => None,
            false => reader.replay(group, from),
        };
        let (topic, filter) = (subscription.topic.clone(), subscription.filter.clone());
        let said = from.is_some();
        let to = (said || one_topic).then(|| topic.clone());
        let replay = replay.map(|replay| {
            replay.only(move |letter| {
                let ours = !said || letter.origin_topic() == Some(&topic);
                ours && filter.accepts_tag(letter.tag())
            })
        });
        Self {
            reader: reader.clone(),
            replay,
            to,
            name: subscription.to_string(),
            native: from.is_none(),
            at_work: at_work.clone(),
            stop: stop.clone(),
        }
    }

    /// What is there, the oldest first; at most `max`.
    pub(super) fn list(&self, max: usize) -> Answer<Value> {
        // One more, to know whether there is one.
        let read = self.read(false, max.saturating_add(1));
        Box::pin(async move {
            let (mut found, report) = read?.await?;
            let complete = found.len() <= max && is_complete(report.as_ref());
            found.sort_by_key(|letter| letter.born);
            let found = found.into_iter().take(max).map(|letter| letter.shown);
            Ok(json!({ "dead_letters": found.collect::<Value>(), "complete": complete }))
        })
    }

    /// Sends them back to the topic of the subscription; at most `max`.
    pub(super) fn replay(&self, max: usize) -> Answer<Value> {
        let read = match &self.to {
            Some(_) => self.read(true, max),
            None => Err(Refusal::conflict(format!(
                "the dead letters of subscription {} do not say which topic of its group they came \
                 from: send them back with the command dead-letters replay --to TOPIC",
                self.name
            ))),
        };
        Box::pin(async move {
            let (_, report) = read?.await?;
            let complete = is_complete(report.as_ref());
            let number = |of: fn(&ReplayReport) -> u64| report.as_ref().map_or(0, of);
            Ok(json!({
                "replayed": number(|report| report.replayed),
                "unconfirmed": number(|report| report.unconfirmed),
                "died_again": number(|report| report.died_again),
                "complete": complete,
            }))
        })
    }

    /// Reads in a task of its own: when nobody waits any more, it gives back what it holds.
    fn read(
        &self,
        send: bool,
        at_most: usize,
    ) -> Result<impl Future<Output = Result<Read, Refusal>> + Send + use<>, Refusal> {
        let name = self.name.clone();
        let Some(replay) = self.replay.clone() else {
            return Err(Refusal::unsupported(format!(
                "the dead letters of subscription {name} cannot be read from here"
            )));
        };
        let mut replay = replay.at_most(at_most as u64);
        if let Some(to) = &self.to {
            replay = replay.to(to);
        }
        let Some(work) = Work::begin(replay.reader(), &self.at_work) else {
            let what = format!("the dead letters of subscription {name} are being read: wait");
            return Err(Refusal::conflict(what));
        };
        let (reader, native, to) = (self.reader.clone(), self.native, self.to.clone());
        let stop = self.stop.child_token();
        let waited_for = stop.clone().drop_guard();
        let read = async move {
            let _work = work;
            let now = SystemTime::now();
            let mut found = Vec::new();
            let ended = Box::pin(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(READ_MAX) => {}
                }
            });
            let mut each = |letter: &DeadLetterView<'_>| {
                if !send {
                    found.push(Found::new(letter, to.as_ref(), now));
                }
            };
            let read = reader.read(&replay, send, ended, &mut each).await;
            match read {
                Ok(report) => Ok((found, Some(report))),
                Err(error) if native && error.is_unknown_topic() => Ok((found, None)),
                Err(error) => Err(error),
            }
        };
        Ok(async move {
            let _waited_for = waited_for;
            match tokio::spawn(read).await {
                Ok(read) => read.map_err(|error| refusal(&name, &error)),
                Err(crash) => Err(Refusal::failed(format!(
                    "the dead letters of subscription {name}: the reader ended by itself: {crash}"
                ))),
            }
        })
    }
}

/// Whether all was read.
fn is_complete(report: Option<&ReplayReport>) -> bool {
    report.is_none_or(|report| report.ended == ReplayEnded::Exhausted)
}

fn refusal(name: &str, error: &Error) -> Refusal {
    let chain = kratos::error_chain(error);
    let what = format!("cannot read the dead letters of subscription {name}: {chain}");
    if error.is_unsupported() {
        Refusal::unsupported(what)
    } else if error.is_invalid() {
        Refusal::conflict(what)
    } else {
        Refusal::failed(what)
    }
}

// === impl Work ===

impl Work {
    /// `None` if this reader is at work.
    fn begin(reader: &Group, all: &AtWork) -> Option<Self> {
        let begun = lock(all).insert(reader.clone());
        begun.then(|| Self {
            reader: reader.clone(),
            all: all.clone(),
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.reader);
    }
}

fn lock(all: &AtWork) -> MutexGuard<'_, BTreeSet<Group>> {
    // Nothing under this lock panics half way; a poisoned lock is as good as any.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Found ===

impl Found {
    /// A letter that came from `topic`, unless it says otherwise.
    fn new(letter: &DeadLetterView<'_>, topic: Option<&Topic>, now: SystemTime) -> Self {
        let born = letter.born();
        let age = born.map(|born| now.duration_since(born).unwrap_or_default());
        let sender = trace::extract(|name| letter.headers().get(name));
        let shown = json!({
            "message_id": letter.origin_id().unwrap_or(letter.id()),
            "topic": letter.origin_topic().or(topic.map(|topic| topic.as_str())),
            "age_ms": age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            "attempts": letter.attempts(),
            "error_type": letter.error_type(),
            "error": letter.error(),
            "trace_id": sender.map(|sender| sender.trace_id().to_string()),
        });
        Self { born, shown }
    }
}
