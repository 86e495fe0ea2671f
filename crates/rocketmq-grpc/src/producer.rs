//! Sending.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rocketmq_proto::v2 as pb;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::DropGuard;

use crate::{
    Endpoints, Error, Message, ServerSettings,
    client::Shared,
    instance::{Instance, ORPHANS_MAX, Role},
    message::validate_name,
    route::{Broker, Route},
    rpc::{Subject, check},
};

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
    topics: BTreeSet<String>,
    in_flight_max: usize,
    attempts_max: u32,
}

/// Sends messages; cheap to clone, shared by many tasks.
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    instance: Arc<Instance>,
    in_flight: Semaphore,
    in_flight_max: u32,
    attempts_max: u32,
    next_broker: AtomicUsize,
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
}

// === impl ProducerConfig ===

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            topics: BTreeSet::new(),
            in_flight_max: 1024,
            attempts_max: 3,
        }
    }
}

impl ProducerConfig {
    /// No topics, 1,024 messages in flight, 3 attempts.
    pub fn new() -> Self {
        Self::default()
    }

    /// A topic that must exist when the producer starts. Others are looked up by their first
    /// message.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.insert(topic.into());
        self
    }

    /// Messages whose sending is under way at once; further calls wait.
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
}

// === impl Producer ===

impl Producer {
    pub(crate) async fn start(shared: &Arc<Shared>, config: ProducerConfig) -> Result<Self, Error> {
        for topic in &config.topics {
            validate_name("topic", topic)?;
        }
        let in_flight_max = u32::try_from(config.in_flight_max)
            .ok()
            .filter(|it| *it > 0 && config.in_flight_max <= Semaphore::MAX_PERMITS)
            .ok_or_else(|| Error::config("in_flight_max must be from 1 to 2^32"))?;
        if config.attempts_max == 0 {
            return Err(Error::config("attempts_max must be at least 1"));
        }
        let (orphans, _unanswered) = mpsc::channel(ORPHANS_MAX);
        let role = Role::Producer {
            topics: Mutex::new(config.topics.clone()),
            orphans,
        };
        let instance = Instance::start(shared, role)?;
        let inner = Inner {
            in_flight: Semaphore::new(config.in_flight_max),
            in_flight_max,
            attempts_max: config.attempts_max,
            next_broker: AtomicUsize::new(0),
            _stop: instance.stop.clone().drop_guard(),
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
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&self, message: Message) -> Result<SendReceipt, Error> {
        let inner = &*self.inner;
        inner.instance.check_open()?;
        let (body_max, validate_type) = {
            let settings = inner.instance.settings.borrow();
            (settings.max_body_size, settings.validate_message_type)
        };
        message.validate(body_max)?;
        let closed = || Error::closed("producer");
        let stop = &inner.instance.stop;
        let _permit = inner.in_flight.acquire().await.map_err(|_| closed())?;
        let route = stop.run_until_cancelled(inner.route_for(&message, validate_type));
        let route = route.await.ok_or_else(closed)??;
        let sent = stop.run_until_cancelled(inner.send(&message, &route));
        sent.await
            .unwrap_or_else(|| Err(closed().with_message_under_way()))
    }

    /// What the server decided: body size, delays between attempts.
    #[must_use]
    pub fn settings(&self) -> ServerSettings {
        self.inner.instance.settings.borrow().clone()
    }

    /// True while the session with every broker of the topics in use is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.instance.is_connected()
    }

    /// Waits for the messages in flight, then says good-bye to the server; all within `by`.
    ///
    /// What is not answered by then ends with an error, and may be stored.
    ///
    /// Every clone is closed: later calls answer with an error whose
    /// [`is_closed`](Error::is_closed) is true. A producer that is dropped instead leaves without a
    /// good-bye, and the server forgets it after two minutes.
    pub async fn close(&self, by: Instant) {
        let inner = &*self.inner;
        let rest = inner.in_flight.acquire_many(inner.in_flight_max);
        let idle = tokio::time::timeout_at(by, rest).await;
        inner.in_flight.close();
        drop(idle);
        inner.instance.close(by).await;
    }
}

// === impl Inner ===

impl Inner {
    async fn route_for(&self, message: &Message, validate_type: bool) -> Result<Arc<Route>, Error> {
        let route = self.instance.route(&message.topic).await?;
        if !validate_type || self.check_type(message, &route).is_ok() {
            return Ok(route);
        }
        self.instance.doubt_route(&message.topic);
        let route = self.instance.route(&message.topic).await?;
        self.check_type(message, &route)?;
        Ok(route)
    }

    async fn send(&self, message: &Message, route: &Route) -> Result<SendReceipt, Error> {
        let brokers = self.candidates(message, route)?;
        let mut maybe_stored = None;
        let mut attempt = 1;
        loop {
            let at = usize::try_from(attempt - 1).unwrap_or(0) % brokers.len();
            let endpoints = &brokers[at].endpoints;
            let error = match self.attempt(message, endpoints).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            self.instance.react(endpoints, &error);
            if error.is_wrong_topic_type() || error.is_unknown_topic() {
                self.instance.doubt_route(&message.topic);
            }
            if error.is_disconnected() || error.is_timeout() {
                self.instance
                    .shared
                    .connection(endpoints)?
                    .set_isolated(true);
            }
            if !error.is_retryable() || attempt >= self.attempts_max {
                return Err(error.after_maybe_stored(maybe_stored));
            }
            // Another broker can be asked at once, the same one needs a moment.
            let all_asked = at + 1 == brokers.len();
            if error.is_throttled() || all_asked {
                tokio::time::sleep(self.delay(attempt)).await;
            }
            if error.is_disconnected() && all_asked {
                self.instance.until_ready(endpoints).await;
            }
            if error.may_be_stored() {
                maybe_stored = Some(error);
            }
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        message: &Message,
        endpoints: &Endpoints,
    ) -> Result<SendReceipt, Error> {
        let rpc = self.instance.rpc(endpoints)?;
        let topic = self.instance.resource(&message.topic);
        let host = &self.instance.shared.config.name;
        let request = pb::SendMessageRequest {
            messages: vec![message.to_proto(topic, host)],
        };
        let subject = Subject {
            topic: Some(&message.topic),
            group: None,
        };
        let timeout = self.instance.request_timeout();
        let (answer, id) = rpc
            .call_any(
                "send",
                subject,
                request,
                timeout,
                |mut stub, rq| async move { stub.send_message(rq).await },
            )
            .await?;
        let at = || rpc.at("send", subject, id);
        let Some(entry) = answer.entries.into_iter().next() else {
            check(answer.status.as_ref(), at)?;
            return Err(Error::protocol(
                "the answer has no entry for the message",
                at(),
            ));
        };
        // The entry decides; a server that leaves its status out means that of the answer.
        check(entry.status.as_ref().or(answer.status.as_ref()), at)?;
        Ok(SendReceipt {
            message_id: message.id().to_owned(),
            offset: entry.offset,
            endpoints: endpoints.clone(),
        })
    }

    /// Brokers in the order in which they are tried: those that work first, beginning with the next
    /// one in turn.
    fn candidates<'a>(
        &self,
        message: &Message,
        route: &'a Route,
    ) -> Result<Vec<&'a Broker>, Error> {
        let mut brokers = route.writable();
        if brokers.is_empty() {
            return Err(Error::no_queue(&message.topic, "writable"));
        }
        let turn = self.next_broker.fetch_add(1, Ordering::Relaxed) % brokers.len();
        brokers.rotate_left(turn);
        if brokers.len() > 1 {
            brokers.sort_by_key(|it| self.is_isolated(&it.endpoints));
        }
        Ok(brokers)
    }

    fn is_isolated(&self, endpoints: &Endpoints) -> bool {
        self.instance
            .shared
            .connection(endpoints)
            .is_ok_and(|it| it.is_isolated())
    }

    fn check_type(&self, message: &Message, route: &Route) -> Result<(), Error> {
        let kind = message.message_type();
        if route.accepts(kind) {
            return Ok(());
        }
        let at = crate::error::At {
            operation: "send",
            topic: Some(message.topic.clone()),
            endpoint: Some(self.instance.shared.access_point.to_string()),
            ..Default::default()
        };
        let code = pb::Code::MessagePropertyConflictWithType as i32;
        let reason = format!("the topic takes no {} messages", kind.as_str_name());
        Err(Error::status(code, &reason, at))
    }

    fn delay(&self, attempt: u32) -> Duration {
        self.instance
            .settings
            .borrow()
            .retry_delays
            .after_attempt(attempt)
    }
}
