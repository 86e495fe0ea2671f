//! Messages that are delivered if a local transaction takes place.
//!
//! The server stores the message where no consumer sees it (half a message), the local transaction
//! runs, and its outcome is told to the endpoints that took the message: they alone know of it, in
//! memory, for 30 s from the send and from every question of the broker. If they are not told, the
//! broker asks later: `checker.rs`.

use std::{slice, sync::Arc, time::Duration};

use rocketmq_proto::v2 as pb;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Inner, Producer, SendReceipt,
    checker::{Open, QUIET_AFTER_ANSWER},
};
use crate::{
    Endpoints, Error, Message, backoff::Backoff, error::At, instance::Instance, rpc::Subject,
};

/// How long a proxy remembers a half message that nobody asks about.
pub(super) const END_WITHIN: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// What becomes of a message in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// It is delivered.
    Commit,
    /// It never is.
    Rollback,
    /// Not known yet: the server will ask the
    /// [checker](crate::ProducerConfig::transaction_checker).
    Unknown,
}

/// A message that waits for the outcome of a local transaction, see [`Producer::begin`].
#[derive(Debug)]
#[must_use = "a transaction that is dropped is left to the checker"]
pub struct Transaction {
    producer: Arc<Inner>,
    topic: String,
    receipt: SendReceipt,
    transaction_id: String,
    end_by: Instant,
    open: Open,
    /// A close waits for it.
    _place: OwnedSemaphorePermit,
}

/// A message in a transaction whose local part has run.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct TransactionReceipt {
    /// Proof that the server has stored the message.
    pub message: SendReceipt,
    /// What the local transaction returned.
    pub resolution: Resolution,
    /// None if the server has taken the resolution; why not, if it could not be told. Then it asks
    /// the checker, which decides.
    pub unconfirmed: Option<Error>,
}

/// What the server is told.
pub(super) struct Ending<'a> {
    pub(super) endpoints: &'a Endpoints,
    pub(super) topic: &'a str,
    pub(super) message_id: &'a str,
    pub(super) transaction_id: &'a str,
    pub(super) resolution: Resolution,
    pub(super) source: pb::TransactionSource,
    pub(super) by: Instant,
    pub(super) attempts_max: u32,
}

impl Producer {
    /// Sends a message that is delivered only if the local transaction takes place.
    ///
    /// When the server has stored the message, unseen by consumers, `local` runs and says what
    /// becomes of it. Return [`Resolution::Unknown`] when that is not certain, for example if the
    /// commit of the database failed: the server then asks the
    /// [checker](crate::ProducerConfig::transaction_checker), as it does if this process ends
    /// in between. A local transaction should take less than 30 s: after that the server knows no
    /// better than to ask.
    ///
    /// The message has neither group nor delay, priority or lite topic, and its topic is of type
    /// TRANSACTION.
    ///
    /// # Errors
    ///
    /// Only if `local` did not run: the producer has no checker, the message is not valid, or
    /// sending failed as in [`send`](Producer::send) (if the message
    /// [`may_be_stored`](Error::may_be_stored), the server will ask the checker about it). From then
    /// on the outcome is a [`TransactionReceipt`], also when the server could not be told.
    ///
    /// # What a commit means
    ///
    /// The proxy passes it on to the broker without waiting. If it is lost there, or the broker fails
    /// before it is applied, the broker asks the checker; it may also ask about a transaction that
    /// has ended, if it looks before its own note of the end is written. So the checker must know
    /// transactions that have ended, too, and messages that were committed are delivered at least
    /// once: soon as a rule, after a check otherwise.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped leaves the message, if it was stored, to the checker.
    ///
    /// # Examples
    ///
    /// ```
    /// # use rocketmq_grpc::{Client, Config, Connector, Message, ProducerConfig, Resolution};
    /// # async fn pay(order: &str) -> Result<bool, std::io::Error> { Ok(!order.is_empty()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> rocketmq_grpc::Result<()> {
    /// # let broker = rocketmq_devbroker::DevBroker::start().await;
    /// # let link = broker.connector();
    /// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
    /// # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
    /// # let was_paid = async |_| Resolution::Unknown;
    /// let config = ProducerConfig::new().topic("payments").transaction_checker(was_paid);
    /// let producer = client.producer(config).await?;
    ///
    /// let message = Message::new("payments", "paid").key("order-7");
    /// let receipt = producer
    ///     .transaction(message, async || match pay("order-7").await {
    ///         Ok(true) => Resolution::Commit,
    ///         Ok(false) => Resolution::Rollback,
    ///         Err(_) => Resolution::Unknown,
    ///     })
    ///     .await?;
    /// assert_eq!(receipt.resolution, Resolution::Commit);
    /// if let Some(error) = receipt.unconfirmed {
    ///     println!("the server will ask was_paid, because {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transaction<F, Fut>(
        &self,
        message: Message,
        local: F,
    ) -> Result<TransactionReceipt, Error>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Resolution>,
    {
        let transaction = self.begin(message).await?;
        let resolution = local().await;
        let message = transaction.receipt.clone();
        let unconfirmed = transaction.end(resolution).await.err();
        Ok(TransactionReceipt {
            message,
            resolution,
            unconfirmed,
        })
    }

    /// The first half of [`transaction`](Producer::transaction), for local transactions that are no
    /// single future: stores the message, unseen by consumers.
    ///
    /// # Errors
    ///
    /// As for [`transaction`](Producer::transaction).
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped leaves the message, if it was stored, to the checker.
    ///
    /// # Examples
    ///
    /// ```
    /// # use rocketmq_grpc::{Client, Config, Connector, Message, ProducerConfig, Resolution};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> rocketmq_grpc::Result<()> {
    /// # let broker = rocketmq_devbroker::DevBroker::start().await;
    /// # let link = broker.connector();
    /// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
    /// # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
    /// # let config = ProducerConfig::new().transaction_checker(async |_| Resolution::Unknown);
    /// # let producer = client.producer(config).await?;
    /// let transaction = producer.begin(Message::new("payments", "paid")).await?;
    /// // .. the local transaction ..
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn begin(&self, message: Message) -> Result<Transaction, Error> {
        let interceptors = self.inner.instance.interceptors();
        let mut message = interceptors.before_send(message)?;
        let kind = pb::MessageType::Transaction;
        let span = self.inner.span(slice::from_mut(&mut message), kind);
        let begun = self.begin_one(&message).await;
        span.ended(&begun);
        if !interceptors.is_empty() {
            let result = begun.as_ref().map(|it| it.receipt.clone());
            interceptors.after_send(&message, &result.map_err(Clone::clone));
        }
        begun
    }

    async fn begin_one(&self, message: &Message) -> Result<Transaction, Error> {
        let inner = &*self.inner;
        inner.instance.check_open()?;
        let Some(checks) = &inner.checks else {
            return Err(Error::config(
                "this producer has no transaction checker, without which messages would be lost: \
                 set ProducerConfig::transaction_checker",
            ));
        };
        message.validate()?;
        if message.message_type() != pb::MessageType::Normal {
            return Err(Error::invalid(format!(
                "a message for {} is of type {} and cannot be in a transaction, too",
                message.topic,
                message.message_type().as_str_name()
            )));
        }
        let place = inner.place().await?;
        let permit = inner.permit().await?;
        let parcel = inner.pack(message, pb::MessageType::Transaction).await?;
        let stored = inner.deliver(parcel).await?;
        drop(permit);
        let entry = stored.entries.first();
        let id = entry.map(|it| it.transaction_id.clone());
        let transaction_id = id.filter(|it| !it.is_empty()).ok_or_else(|| {
            let at = At {
                operation: "begin of a transaction",
                topic: Some(message.topic.clone()),
                endpoint: Some(stored.endpoints.to_string()),
                ..At::default()
            };
            Error::protocol("the answer has no transaction id", at)
        })?;
        Ok(Transaction {
            receipt: stored.receipt(message.id(), 0),
            producer: self.inner.clone(),
            topic: message.topic.clone(),
            open: checks.open(&transaction_id),
            transaction_id,
            end_by: Instant::now() + END_WITHIN,
            _place: place,
        })
    }
}

impl Transaction {
    /// Proof that the server has stored the message.
    #[must_use]
    pub fn receipt(&self) -> &SendReceipt {
        &self.receipt
    }

    /// Has the message delivered.
    ///
    /// # Errors
    ///
    /// If the server could not be told, or has forgotten the transaction, which it does after 30 s
    /// and when it restarts. The checker decides then.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped may or may not have told the server; if not, the checker decides.
    pub async fn commit(self) -> Result<SendReceipt, Error> {
        let receipt = self.receipt.clone();
        self.end(Resolution::Commit).await?;
        Ok(receipt)
    }

    /// Has the message never delivered.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Transaction::commit).
    ///
    /// # Cancel safety
    ///
    /// As for [`commit`](Transaction::commit).
    pub async fn rollback(self) -> Result<(), Error> {
        self.end(Resolution::Rollback).await
    }

    async fn end(mut self, resolution: Resolution) -> Result<(), Error> {
        let ending = Ending {
            endpoints: &self.receipt.endpoints,
            topic: &self.topic,
            message_id: &self.receipt.message_id,
            transaction_id: &self.transaction_id,
            resolution,
            source: pb::TransactionSource::SourceClient,
            by: self.end_by,
            attempts_max: self.producer.attempts_max,
        };
        if resolution != Resolution::Unknown {
            self.open.quiet_for(QUIET_AFTER_ANSWER);
        }
        let instance = &self.producer.instance;
        let told = instance.stop.run_until_cancelled(ending.tell(instance));
        let told = told.await.unwrap_or_else(|| Err(Error::closed("producer")));
        if told.is_err() {
            self.open.quiet_for(Duration::ZERO);
        }
        told
    }
}

impl Ending<'_> {
    /// Tells nothing of what is not known.
    pub(super) async fn tell(&self, instance: &Instance) -> Result<(), Error> {
        let resolution = match self.resolution {
            Resolution::Commit => pb::TransactionResolution::Commit,
            Resolution::Rollback => pb::TransactionResolution::Rollback,
            Resolution::Unknown => return Ok(()),
        };
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut attempt = 1;
        loop {
            let Err(error) = self.attempt(instance, resolution).await else {
                return Ok(());
            };
            instance.react(self.endpoints, &error);
            // The proxy forgets what it was told once: asked again, it answers with this code.
            let again = error.is_retryable() && !error.is_code(pb::Code::InternalServerError);
            let delay = backoff.next_delay();
            if !again || attempt >= self.attempts_max || Instant::now() + delay >= self.by {
                return Err(error);
            }
            tokio::time::sleep(delay).await;
            if error.is_disconnected() {
                instance.until_ready(&[self.endpoints], 0).await;
            }
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        instance: &Instance,
        resolution: pb::TransactionResolution,
    ) -> Result<(), Error> {
        let rpc = instance.rpc(self.endpoints)?;
        let request = pb::EndTransactionRequest {
            topic: Some(instance.resource(self.topic)),
            message_id: self.message_id.to_owned(),
            transaction_id: self.transaction_id.to_owned(),
            resolution: resolution.into(),
            source: self.source.into(),
            trace_context: String::new(),
        };
        let subject = Subject {
            topic: Some(self.topic),
            group: None,
        };
        let call = rpc.call(
            "end of a transaction",
            subject,
            request,
            instance.request_timeout(),
            |mut stub, rq| async move { stub.end_transaction(rq).await },
        );
        call.await.map(drop)
    }
}
