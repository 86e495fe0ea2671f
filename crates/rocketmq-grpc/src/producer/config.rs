//! What a producer is told before it starts.

use std::{collections::BTreeSet, future::Future};

use tokio::sync::Semaphore;

use super::{Resolution, checker::Checker};
use crate::{Error, MessageView, message::validate_name};

/// What a producer does beside the defaults.
///
/// ```
/// use rocketmq_grpc::ProducerConfig;
///
/// let config = ProducerConfig::new().topic("orders").in_flight_max(256);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ProducerConfig {
    pub(super) topics: BTreeSet<String>,
    pub(super) in_flight_max: usize,
    pub(super) attempts_max: u32,
    pub(super) compress_above: Option<usize>,
    pub(super) checker: Option<Checker>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            topics: BTreeSet::new(),
            in_flight_max: 1024,
            attempts_max: 3,
            compress_above: None,
            checker: None,
        }
    }
}

impl ProducerConfig {
    /// No topics, 1,024 messages in flight, 3 attempts, no compression, no transactions.
    pub fn new() -> Self {
        Self::default()
    }

    /// A topic that must exist when the producer starts. Others are looked up by their first
    /// message.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.insert(topic.into());
        self
    }

    /// Messages whose sending is under way at once; further calls wait. A batch counts as one. As
    /// many transactions may be open.
    pub fn in_flight_max(mut self, messages: usize) -> Self {
        self.in_flight_max = messages;
        self
    }

    /// Attempts to send a message before the error is the caller's; only failures that may pass are
    /// tried again.
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts;
        self
    }

    /// Compresses bodies of more than so many bytes, where that makes them smaller; batches are not.
    ///
    /// They are sent in the format of zlib, which clients of RocketMQ 4 and 5 should both read. The
    /// server's limit counts what is sent, so larger bodies fit.
    ///
    /// ```
    /// # use rocketmq_grpc::ProducerConfig;
    /// let config = ProducerConfig::new().compress_above(4 << 10);
    /// ```
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.compress_above = Some(bytes);
        self
    }

    /// Answers the server when it asks what became of a transaction, and permits
    /// [`Producer::transaction`](crate::Producer::transaction).
    ///
    /// The server asks when it was not told in time, because the process ended, the commit was lost
    /// or the resolution was [`Resolution::Unknown`]. It asks any producer that has named the topic,
    /// so name it with [`topic`](Self::topic): then those are asked about, too, that an earlier run
    /// of this program or another instance left behind, and those that another instance is still at.
    /// The checker sees the message and must find out by it, in the database for example, whether its
    /// local transaction took place. That nothing is to be seen of it does not say that it will not
    /// take place: answer [`Resolution::Rollback`] when nobody can commit it any more, because the
    /// checker has taken the place of its row, for example.
    ///
    /// Of the checks of one transaction one runs at a time, and none while it is still open in this
    /// producer; up to 16 of different ones run at once. One that panics, answers `Unknown` or takes
    /// longer than 30 s is no answer: the server asks again, every 30 s, 15 times in all unless it was
    /// set up otherwise, also while nobody is there to be asked, then gives the message up.
    ///
    /// ```
    /// use rocketmq_grpc::{MessageView, ProducerConfig, Resolution};
    ///
    /// /// Whether the order was paid; if not, it cannot be any more.
    /// async fn was_paid(order: &str) -> Option<bool> {
    ///     // .. takes the place of its row in the database, and looks who had it first ..
    /// #   Some(order == "7")
    /// }
    ///
    /// let config = ProducerConfig::new().topic("payments").transaction_checker(
    ///     async |message: MessageView| match message.keys.first() {
    ///         None => Resolution::Rollback,
    ///         Some(order) => match was_paid(order).await {
    ///             Some(true) => Resolution::Commit,
    ///             Some(false) => Resolution::Rollback,
    ///             None => Resolution::Unknown, // the database is away
    ///         },
    ///     },
    /// );
    /// ```
    pub fn transaction_checker<F, Fut>(mut self, checker: F) -> Self
    where
        F: Fn(MessageView) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Resolution> + Send + 'static,
    {
        self.checker = Some(Checker::new(checker));
        self
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        for topic in &self.topics {
            validate_name("topic", topic)?;
        }
        if self.in_flight_max == 0
            || self.in_flight_max > Semaphore::MAX_PERMITS
            || u32::try_from(self.in_flight_max).is_err()
        {
            return Err(Error::config("in_flight_max must be from 1 to 2^32"));
        }
        if self.attempts_max == 0 {
            return Err(Error::config("attempts_max must be at least 1"));
        }
        Ok(())
    }
}
