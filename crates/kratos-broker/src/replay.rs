//! Dead letters, sent back to the topics that they came from.
//!
//! [`Replay`] says which, where from, and how fast; [`list`](Replay::list) shows them,
//! [`run`](Replay::run) sends them back.
//!
//! ```
//! use kratos_broker::{Message, Publisher, Replay, memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), kratos_broker::Error> {
//! # tokio::time::pause();
//! let publisher = Publisher::new(memory::Broker::new());
//! let letter = Message::new("orders-dead", "paid").key("order-7");
//! publisher.publish(letter.header("x-dead-letter-origin-topic", "orders")).await?;
//!
//! let replay = Replay::new("orders-dead", "orders-replay").key("order-7").per_second(20);
//! let never = std::future::pending();
//! let report = replay.run(&publisher, never, |letter| println!("{}", letter.id())).await?;
//! assert_eq!(report.replayed, 1);
//! # Ok(())
//! # }
//! ```

mod letter;
mod scan;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use self::scan::Scan;
use crate::{Group, Publisher, Result, Topic, driver::Driver};

pub use self::letter::{DeadLetterView, REPLAYED_ID};

/// Most letters of one run, unless said otherwise.
const AT_MOST: u64 = 1_000;

/// Letters per second, unless said otherwise.
const PER_SECOND: u32 = 100;

/// How long nothing may come before the topic counts as read to its end, unless said otherwise. What
/// was handed back is given out again after 6 s by a broker that has little to do, later by others.
const IDLE: Duration = Duration::from_secs(15);

/// Least such time: in less a broker may not answer at all.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// Which dead letters to read, where from, and how to send them back.
///
/// Letters are read by a consumer group of their own, the *reader*: what it has replayed it does
/// not read again. Letters that are not wanted are held while the others are read, at most 10,000,
/// and handed back at the end; on a broker that counts this as an attempt, the reader needs many of
/// them.
///
/// A replayed message is a new message: it has another id. Body, headers, keys, tag and message
/// group are kept, the trace context too; what described the dead letter is taken off, and
/// [`x-replayed-id`](REPLAYED_ID) has the id that the message had. A time of delivery and a priority
/// are not kept.
#[derive(Clone)]
#[must_use]
pub struct Replay {
    from: Topic,
    reader: Group,
    to: Option<Topic>,
    wanted: Vec<Wanted>,
    per_second: u32,
    at_most: u64,
    idle: Duration,
    attempts_min: u32,
}

type Wanted = Arc<dyn Fn(&DeadLetterView<'_>) -> bool + Send + Sync>;

/// What a run or a list has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Letters that were read.
    pub seen: u64,
    /// Those that were wanted.
    pub matched: u64,
    /// Those that this run had sent back before, and that died again meanwhile: left where they are.
    pub died_again: u64,
    /// Those that were sent back, confirmed by the broker.
    pub replayed: u64,
    /// Those of them whose acknowledgement was not confirmed: they may be replayed once more.
    pub unconfirmed: u64,
    /// Why it ended.
    pub ended: ReplayEnded,
}

/// Why a run or a list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayEnded {
    /// Everything was read.
    Exhausted,
    /// [`at_most`](Replay::at_most) letters matched.
    AtMost,
    /// Too many unwanted letters are held: those behind them were not read.
    TooManyUnwanted,
    /// It was told to stop.
    Stopped,
}

// === impl Replay ===

impl Replay {
    /// Reads the topic `from` with the consumer group `reader`, which nobody else uses.
    ///
    /// All letters, at most 1,000, 100 per second; until nothing has come for 15 s.
    pub fn new(from: impl Into<Topic>, reader: impl Into<Group>) -> Self {
        Self {
            from: from.into(),
            reader: reader.into(),
            to: None,
            wanted: Vec::new(),
            per_second: PER_SECOND,
            at_most: AT_MOST,
            idle: IDLE,
            attempts_min: 0,
        }
    }

    /// Reads another topic, or with another group; all else stays.
    pub fn reading(mut self, from: impl Into<Topic>, reader: impl Into<Group>) -> Self {
        self.from = from.into();
        self.reader = reader.into();
        self
    }

    /// Sends all letters to this topic, whatever they say themselves. Without it each goes where
    /// its header [`x-dead-letter-origin-topic`](crate::DeadLetter::ORIGIN_TOPIC) says; one that has none ends the run.
    pub fn to(mut self, topic: impl Into<Topic>) -> Self {
        self.to = Some(topic.into());
        self
    }

    /// Wants only letters with this key.
    pub fn key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.only(move |letter| letter.keys().contains(&key))
    }

    /// Wants only letters with this tag.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        self.only(move |letter| letter.tag() == Some(&tag))
    }

    /// Wants only the letter of this id: its own, or the one that the message had where it died.
    pub fn id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.only(move |letter| *letter.id() == *id || letter.origin_id() == Some(&id))
    }

    /// Wants only letters of this type of error (the header `x-dead-letter-error-type`).
    pub fn error_type(self, error_type: impl Into<String>) -> Self {
        let error_type = error_type.into();
        self.only(move |letter| letter.error_type() == Some(&error_type))
    }

    /// Wants only letters that were published at this time or later.
    pub fn born_after(self, at: SystemTime) -> Self {
        self.only(move |letter| letter.born().is_some_and(|born| born >= at))
    }

    /// Wants only letters that were published before this time.
    pub fn born_before(self, at: SystemTime) -> Self {
        self.only(move |letter| letter.born().is_some_and(|born| born < at))
    }

    /// Wants only letters of which `wanted` says so. All conditions must hold.
    pub fn only(
        mut self,
        wanted: impl Fn(&DeadLetterView<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.wanted.push(Arc::new(wanted));
        self
    }

    /// Sets how many letters are sent back per second: 100 by default, 1 at least.
    pub fn per_second(mut self, letters: u32) -> Self {
        self.per_second = letters.max(1);
        self
    }

    /// Sets after how many wanted letters to end: 1,000 by default.
    pub fn at_most(mut self, letters: u64) -> Self {
        self.at_most = letters;
        self
    }

    /// Sets how long nothing may come before the topic counts as read to its end: 15 s by default,
    /// 1 s at least. Brokers need seconds to give out again what was handed back.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle.max(IDLE_MIN);
        self
    }

    /// Refuses a reader that the broker gives fewer attempts than this. For brokers on which the
    /// attempts of a dead letter go on, so that a group with few is never given it.
    pub fn attempts_min(mut self, attempts: u32) -> Self {
        self.attempts_min = attempts;
        self
    }

    /// Where letters are read.
    #[must_use]
    pub fn from_topic(&self) -> &Topic {
        &self.from
    }

    /// The consumer group that reads.
    #[must_use]
    pub fn reader(&self) -> &Group {
        &self.reader
    }

    /// Shows the wanted letters to `each`, and leaves all where they are. They were delivered to the
    /// reader all the same: a broker that counts attempts, as RocketMQ does, counts one for each
    /// letter and list, and gives up a letter of which the reader has used them all.
    ///
    /// Ends early, and cleanly, when `stop` does.
    ///
    /// # Errors
    ///
    /// The reader could not join its group, or the topic could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing: what it had read comes again a minute later.
    pub async fn list<D: Driver>(
        &self,
        driver: &D,
        stop: impl Future<Output = ()>,
        mut each: impl FnMut(&DeadLetterView<'_>),
    ) -> Result<ReplayReport> {
        let scan = Scan::<D>::join(self, driver).await?;
        scan.run(None, stop, &mut each).await
    }

    /// Sends the wanted letters back, one after another; shows each to `each` when it was sent.
    ///
    /// A letter is acknowledged after the broker has confirmed the message that it became: a run
    /// that is interrupted loses none, and may send one a second time.
    ///
    /// Ends early, and cleanly, when `stop` does.
    ///
    /// # Errors
    ///
    /// The reader could not join its group, or the topic could not be read; a letter could not be
    /// sent, or does not say where to. What was sent before is told, and was acknowledged; all
    /// others stay dead letters.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing: what it had read comes again a minute later, also a letter
    /// that was just sent.
    pub async fn run<D: Driver>(
        &self,
        publisher: &Publisher<D>,
        stop: impl Future<Output = ()>,
        mut each: impl FnMut(&DeadLetterView<'_>),
    ) -> Result<ReplayReport> {
        let scan = Scan::join(self, publisher.driver()).await?;
        scan.run(Some(publisher), stop, &mut each).await
    }

    fn wants(&self, letter: &DeadLetterView<'_>) -> bool {
        self.wanted.iter().all(|wanted| wanted(letter))
    }

    /// Where a letter goes.
    fn destination(&self, letter: &DeadLetterView<'_>) -> Option<Topic> {
        let own = || letter.origin_topic().map(Topic::from);
        self.to.clone().or_else(own)
    }

    fn next_after(&self, now: Instant) -> Instant {
        now + Duration::from_secs(1) / self.per_second
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("from", &self.from)
            .field("reader", &self.reader)
            .field("to", &self.to)
            .field("conditions", &self.wanted.len())
            .field("per_second", &self.per_second)
            .field("at_most", &self.at_most)
            .finish_non_exhaustive()
    }
}
