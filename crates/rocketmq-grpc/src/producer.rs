//! Sending.

mod checker;
mod config;
mod queue;
mod recall;
mod send;
mod shared;
mod transaction;

use std::{
    slice,
    sync::{Arc, Mutex, atomic::AtomicUsize},
};

use rocketmq_proto::v2 as pb;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::DropGuard;

use self::{
    checker::{Checks, Desk},
    send::Stored,
};
pub use self::{
    config::ProducerConfig,
    transaction::{Resolution, Transaction, TransactionReceipt},
};
use crate::{
    Endpoints, Error, Message, ServerSettings,
    backoff::random_u64,
    client::Shared,
    instance::{Instance, ORPHANS_MAX, Role},
    spans::Span,
};

/// Sends messages; cheap to clone, shared by many tasks.
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    instance: Arc<Instance>,
    in_flight: Arc<Semaphore>,
    /// Open ones. Apart from the above, because a local transaction may send.
    transactions: Arc<Semaphore>,
    in_flight_max: u32,
    attempts_max: u32,
    compress_above: Option<usize>,
    next_broker: AtomicUsize,
    /// None without a checker.
    checks: Option<Arc<Checks>>,
    _stop: DropGuard,
}

/// Proof that the server has stored a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// Id of the message.
    pub message_id: String,
    /// Place in the queue that took it.
    pub offset: i64,
    /// Endpoints that took it.
    pub endpoints: Endpoints,
    /// Of a delayed message on a server from 5.3.2 on: with it, [`Producer::recall`] takes the
    /// message back. It may be kept and used by another process.
    pub recall_handle: Option<String>,
}

impl Producer {
    pub(crate) async fn start(
        shared: &Arc<Shared>,
        traced: bool,
        config: ProducerConfig,
    ) -> Result<Self, Error> {
        config.validate()?;
        let (orphans, questions) = mpsc::channel(ORPHANS_MAX);
        let role = Role::Producer {
            topics: Mutex::new(config.topics.clone()),
            orphans,
        };
        let instance = Instance::start(shared, traced, role)?;
        let stop = instance.stop.clone().drop_guard();
        let checks = config.checker.map(|checker| {
            let checks = Arc::new(Checks::default());
            let desk = Desk::new(&instance, checker, checks.clone(), config.attempts_max);
            instance.tasks.spawn(desk.run(questions));
            checks
        });
        let inner = Inner {
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            transactions: Arc::new(Semaphore::new(config.in_flight_max)),
            in_flight_max: u32::try_from(config.in_flight_max).unwrap_or(u32::MAX),
            attempts_max: config.attempts_max,
            compress_above: config.compress_above,
            // Producers that start together shall not all begin with the same broker.
            next_broker: AtomicUsize::new(random_u64() as usize),
            checks,
            _stop: stop,
            instance,
        };
        let producer = Self {
            inner: Arc::new(inner),
        };
        for topic in &config.topics {
            producer.inner.instance.route(topic).await?;
        }
        Ok(producer)
    }

    /// Sends a message and returns when the server has stored it.
    ///
    /// A failure that may pass is tried again, on another broker if there is one, up to
    /// [`attempts_max`](ProducerConfig::attempts_max) times: the wait is bounded by the request
    /// timeout for each, and the back-off between them. While no broker can be reached, an attempt
    /// waits for a connection, for the request timeout at most: a restart of a few seconds is no
    /// error.
    ///
    /// # Order
    ///
    /// The messages of one [group](Message::group) go to one queue, the one that the official Java
    /// and Go clients choose, and are tried again there only. Their order is that of sends that wait
    /// for each other: send the next when the one before has returned `Ok`. Sends of one group that
    /// run at the same time are stored in any order. After an error whose
    /// [`may_be_stored`](Error::may_be_stored) is true the message may still appear, later than the
    /// next one; and a message that was tried again may be there twice, under one id.
    ///
    /// # Errors
    ///
    /// Before anything was sent if the message is not valid or its topic does not exist; after that
    /// as the server says. [`Error::may_be_stored`] tells whether the message may be there
    /// nevertheless.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not have stored the message.
    ///
    /// # Examples
    ///
    /// ```
    /// # use rocketmq_grpc::{Client, Config, Connector, Message, ProducerConfig};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> rocketmq_grpc::Result<()> {
    /// # let broker = rocketmq_devbroker::DevBroker::start().await;
    /// # let link = broker.connector();
    /// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
    /// # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
    /// let producer = client.producer(ProducerConfig::new().topic("orders")).await?;
    /// let receipt = producer.send(Message::new("orders", "a body").tag("created")).await?;
    /// println!("stored as {}", receipt.message_id);
    ///
    /// // In order, within the group.
    /// for change in ["+5", "-3"] {
    ///     producer.send(Message::new("orders", change).group("account-7")).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&self, message: Message) -> Result<SendReceipt, Error> {
        let interceptors = self.inner.instance.interceptors();
        let mut message = interceptors.before_send(message)?;
        let kind = message.message_type();
        let span = self.inner.span(slice::from_mut(&mut message), kind);
        let result = self.send_one(&message).await;
        span.ended(&result);
        interceptors.after_send(&message, &result);
        result
    }

    async fn send_one(&self, message: &Message) -> Result<SendReceipt, Error> {
        let inner = &*self.inner;
        inner.instance.check_open()?;
        message.validate()?;
        let _permit = inner.permit().await?;
        let parcel = inner.pack(message, message.message_type()).await?;
        let stored = inner.deliver(parcel).await?;
        Ok(stored.receipt(message.id(), 0))
    }

    /// Sends several messages of one topic in one request, and returns when the server has stored
    /// them: all, or none.
    ///
    /// For many small messages: it saves requests. The messages are of type NORMAL, none is
    /// compressed, and together they have no more bytes than one body may have; that counts bodies,
    /// tags, keys, properties, and about 350 bytes for each message. They are stored one after
    /// another in one queue and are received one by one, each under its own id. Without messages
    /// nothing is sent. The receipts are in the order of the messages.
    ///
    /// # Errors
    ///
    /// As for [`send`](Producer::send), of all messages alike.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not have stored the messages.
    ///
    /// # Examples
    ///
    /// ```
    /// # use rocketmq_grpc::{Client, Config, Connector, Message, ProducerConfig};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> rocketmq_grpc::Result<()> {
    /// # let broker = rocketmq_devbroker::DevBroker::start().await;
    /// # let link = broker.connector();
    /// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
    /// # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
    /// # let producer = client.producer(ProducerConfig::new().topic("clicks")).await?;
    /// let clicks = ["left", "right"].map(|it| Message::new("clicks", it));
    /// let receipts = producer.send_batch(clicks.to_vec()).await?;
    /// assert_eq!(receipts.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<Vec<SendReceipt>, Error> {
        let interceptors = self.inner.instance.interceptors();
        let mut messages = messages
            .into_iter()
            .map(|it| interceptors.before_send(it))
            .collect::<Result<Vec<_>, _>>()?;
        let span = self.inner.span(&mut messages, pb::MessageType::Normal);
        let result = self.send_all(&messages).await;
        span.ended(&result);
        if !interceptors.is_empty() {
            for (at, message) in messages.iter().enumerate() {
                let one = result.as_ref().map(|it| it[at].clone());
                interceptors.after_send(message, &one.map_err(Clone::clone));
            }
        }
        result
    }

    async fn send_all(&self, messages: &[Message]) -> Result<Vec<SendReceipt>, Error> {
        let inner = &*self.inner;
        inner.instance.check_open()?;
        let Some(first) = messages.first() else {
            return Ok(Vec::new());
        };
        for message in messages {
            message.validate()?;
            if message.topic != first.topic {
                return Err(Error::invalid(format!(
                    "a batch has messages for {} and {}: it is for one topic",
                    first.topic, message.topic
                )));
            }
            if message.message_type() != pb::MessageType::Normal {
                return Err(Error::invalid(format!(
                    "a batch for {} has a message of type {}: only NORMAL ones are sent together",
                    first.topic,
                    message.message_type().as_str_name()
                )));
            }
        }
        let _permit = inner.permit().await?;
        let parcel = inner.pack_batch(messages).await?;
        let stored = inner.deliver(parcel).await?;
        let ids = messages.iter().map(Message::id).enumerate();
        Ok(ids.map(|(at, id)| stored.receipt(id, at)).collect())
    }

    /// What the server decided: body size, delays between attempts.
    #[must_use]
    pub fn settings(&self) -> ServerSettings {
        self.inner.instance.settings.borrow().clone()
    }

    /// Id under which the server's tools show this producer.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.inner.instance.identity.client_id()
    }

    /// True while the session with every broker of the topics in use is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.instance.is_connected()
    }

    /// Waits for the messages in flight and open transactions, then says good-bye to the server; all
    /// within `by`.
    ///
    /// What is not answered by then ends with an error, and may be stored. While a transaction is
    /// open, messages are still sent, because its local part may have to send some.
    ///
    /// Every clone is closed: later calls answer with an error whose
    /// [`is_closed`](Error::is_closed) is true. A producer that is dropped instead leaves without a
    /// good-bye, and the server forgets it after two minutes.
    pub async fn close(&self, by: Instant) {
        let inner = &*self.inner;
        let rest = async {
            let ended = inner.transactions.acquire_many(inner.in_flight_max).await;
            let sent = inner.in_flight.acquire_many(inner.in_flight_max).await;
            (ended, sent)
        };
        let idle = tokio::time::timeout_at(by, rest).await;
        inner.transactions.close();
        inner.in_flight.close();
        drop(idle);
        inner.instance.close(by).await;
    }
}

impl Inner {
    /// The messages carry it.
    fn span(&self, messages: &mut [Message], kind: pb::MessageType) -> Span {
        self.instance.spans.send(messages, kind)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = self.in_flight.clone().acquire_owned().await;
        permit.map_err(|_| Error::closed("producer"))
    }

    /// Held while a transaction is open.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = self.transactions.clone().acquire_owned().await;
        place.map_err(|_| Error::closed("producer"))
    }
}

impl Stored {
    /// Of the message at this place of the parcel.
    fn receipt(&self, id: &str, at: usize) -> SendReceipt {
        let one_for_all = self.entries.len() == 1;
        let entry = self.entries.get(if one_for_all { 0 } else { at });
        let offset = entry.map_or(0, |it| it.offset);
        // One entry has the place of the first message.
        let behind = if one_for_all { at } else { 0 };
        SendReceipt {
            message_id: id.to_owned(),
            offset: offset.saturating_add_unsigned(behind as u64),
            endpoints: self.endpoints.clone(),
            recall_handle: entry
                .map(|it| it.recall_handle.clone())
                .filter(|it| !it.is_empty()),
        }
    }
}
