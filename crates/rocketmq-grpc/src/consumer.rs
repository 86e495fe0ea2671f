//! Receiving by leases: the consumer of one group.
//!
//! Receive, settle, and hear what became of it:
//!
//! ```
//! # use std::time::Duration;
//! # use rocketmq_grpc::{Client, Config, Connector, ConsumerConfig, Filter, Settlement};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> rocketmq_grpc::Result<()> {
//! # let broker = rocketmq_devbroker::DevBroker::start().await;
//! # let link = broker.connector();
//! # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
//! # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
//! let config = ConsumerConfig::new("billing").subscribe("orders", Filter::all());
//! let consumer = client.consumer(config).await?;
//! # client.producer(Default::default()).await?.send(rocketmq_grpc::Message::new("orders", "x")).await?;
//! for lease in consumer.receive("orders", 32).await? {
//!     println!("{:?}", lease.message().body);
//!     consumer.settle(lease, Settlement::Ack);
//! }
//! for settled in consumer.settled().await {
//!     println!("{}: {:?}", settled.message_id, settled.result);
//! }
//! consumer.close(tokio::time::Instant::now() + Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```

mod acks;
mod batch;
mod config;
mod inbox;
mod intake;
mod pool;
mod receiver;
mod settle;
mod settler;
mod sources;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rocketmq_proto::v2::ClientType;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tracing::warn;

pub use self::config::ConsumerConfig;
pub(crate) use self::{batch::Member, receiver::LONG_POLL_MIN};
use self::{inbox::Inbox, intake::Intake, pool::Pool, settler::Settler, sources::Sources};
use crate::{
    Error, Filter, Lease, ServerSettings, Settlement,
    client::Shared,
    instance::{Instance, Role},
    route::Broker,
    spans::Spans,
};

/// What the good-bye is left of the time to close, at most.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// Of one group, with all its topics.
///
/// Messages come as [`Lease`]s, hidden from the other members of the group for
/// [`invisible_duration`](ConsumerConfig::invisible_duration). The leases are the caller's to
/// [`extend`](Consumer::extend); nothing is extended behind its back.
///
/// End it with [`stop_receiving`](Consumer::stop_receiving), the settlement of what is in hand, and
/// [`close`](Consumer::close). A consumer that is dropped just leaves: what it holds comes back when
/// the leases run out.
#[derive(Debug)]
pub struct Consumer {
    instance: Arc<Instance>,
    config: ConsumerConfig,
    intakes: Mutex<HashMap<String, Arc<Intake>>>,
    /// Of all topics, if callers do not choose among them.
    pool: Option<Arc<Pool>>,
    settler: Arc<Settler>,
    corrupted: Arc<AtomicU64>,
    _stop: DropGuard,
}

/// Counts since the start of a consumer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Settlements asked for and not answered yet.
    pub pending_settlements: usize,
    /// Settlements that the server refused, or that were not confirmed while the lease lasted.
    pub failed_settlements: u64,
    /// Deliveries whose body did not match its digest or could not be decompressed; they went back
    /// to the server.
    pub corrupted: u64,
}

impl Consumer {
    pub(crate) async fn start(
        shared: &Arc<Shared>,
        traced: bool,
        config: ConsumerConfig,
    ) -> Result<Self, Error> {
        Self::start_as(shared, traced, config, ClientType::PushConsumer).await
    }

    /// A simple consumer has one pool for all its topics.
    pub(crate) async fn start_as(
        shared: &Arc<Shared>,
        traced: bool,
        config: ConsumerConfig,
        client_type: ClientType,
    ) -> Result<Self, Error> {
        config.validate(shared.config.invisible_min)?;
        let subscriptions: BTreeMap<_, _> = config.subscriptions.iter().cloned().collect();
        let role = Role::Consumer {
            client_type,
            group: config.group.clone(),
            subscriptions: Mutex::new(subscriptions),
        };
        let instance = Instance::start(shared, traced, role)?;
        let pool = (client_type == ClientType::SimpleConsumer)
            .then(|| Arc::new(Pool::new(Inbox::with_one_each(), config.invisible_duration)));
        let consumer = Self {
            settler: Settler::new(instance.clone(), config.group.clone()),
            // A start that fails or is dropped leaves nothing behind.
            _stop: instance.stop.clone().drop_guard(),
            instance,
            intakes: Mutex::default(),
            pool,
            corrupted: Arc::default(),
            config,
        };
        let mut brokers = Vec::new();
        for (topic, _) in &consumer.config.subscriptions {
            brokers.push(consumer.brokers(topic).await?);
        }
        for ((topic, filter), brokers) in consumer.config.subscriptions.iter().zip(brokers) {
            consumer.receive_from(topic, filter.clone(), brokers);
        }
        Ok(consumer)
    }

    /// Adds a topic, or changes its filter.
    pub(crate) async fn subscribe(&self, topic: &str, filter: Filter) -> Result<(), Error> {
        self.instance.check_open()?;
        self.instance.subscribe(topic, Some(filter.clone()));
        let brokers = match self.brokers(topic).await {
            Ok(brokers) => brokers,
            Err(error) => {
                let before = self.intakes().get(topic).map(|it| it.filter.clone());
                self.instance.subscribe(topic, before);
                return Err(error);
            }
        };
        self.receive_from(topic, filter, brokers);
        Ok(())
    }

    /// Leaves a topic; what arrived is still handed over.
    pub(crate) fn unsubscribe(&self, topic: &str) {
        self.instance.subscribe(topic, None);
        if let Some(intake) = self.intakes().remove(topic) {
            intake.end();
        }
    }

    async fn brokers(&self, topic: &str) -> Result<Vec<Broker>, Error> {
        let route = self.instance.route(topic).await?;
        if route.readable().is_empty() {
            return Err(Error::no_queue(topic, "readable"));
        }
        Ok(route.readable().into_iter().cloned().collect())
    }

    fn receive_from(&self, topic: &str, filter: Filter, brokers: Vec<Broker>) {
        let pool = self
            .pool
            .clone()
            .unwrap_or_else(|| Arc::new(Pool::new(Inbox::new(), self.config.invisible_duration)));
        let intake = Intake::new(topic, filter, pool);
        let sources = Sources {
            instance: self.instance.clone(),
            intake: intake.clone(),
            settler: self.settler.clone(),
            config: self.config.clone(),
            corrupted: self.corrupted.clone(),
            polled: HashMap::new(),
        };
        intake.loops.spawn(sources.run(brokers));
        if let Some(before) = self.intakes().insert(topic.to_owned(), intake) {
            before.end();
        }
    }

    fn intakes(&self) -> MutexGuard<'_, HashMap<String, Arc<Intake>>> {
        self.intakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every pool once.
    fn pools(&self) -> Vec<Arc<Pool>> {
        match &self.pool {
            Some(pool) => vec![pool.clone()],
            None => self.intakes().values().map(|it| it.pool.clone()).collect(),
        }
    }

    /// Waits for messages of a topic: at least one, at most `max`.
    ///
    /// `max` is the room of the caller. While a call waits, the client asks the server for that
    /// many at most, and what it has asked for and not yet returned counts against the room of the
    /// next call. An answer ends the call as soon as its first messages are there. Many small rooms
    /// cost a request each: call when there is room for half a batch of 32, or for all that you
    /// ever take.
    ///
    /// Calls for one topic take turns; calls for several topics do not disturb each other.
    ///
    /// Returns an empty vector only after [`stop_receiving`](Consumer::stop_receiving), when
    /// everything that had arrived is handed over.
    ///
    /// # Errors
    ///
    /// If the topic is not subscribed to, or the server refuses in a way that does not pass by
    /// itself, as for a group that was deleted. Later calls go on trying, at growing intervals.
    /// Failures that may pass are not reported here: see [`is_connected`](Consumer::is_connected).
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing: what arrives is kept for the next one.
    pub async fn receive(&self, topic: &str, max: usize) -> Result<Vec<Lease>, Error> {
        let Some(intake) = self.intakes().get(topic).cloned() else {
            return Err(Error::config(format!("topic {topic} is not subscribed to")));
        };
        if max == 0 {
            return Err(Error::config(format!(
                "a receive from {topic} must have room for 1 message"
            )));
        }
        self.take(&intake.pool, max, None).await
    }

    /// Messages of any topic, for so long.
    pub(crate) async fn receive_any(
        &self,
        max: usize,
        invisible: Duration,
    ) -> Result<Vec<Lease>, Error> {
        match &self.pool {
            Some(pool) => self.take(pool, max, Some(invisible)).await,
            None => Ok(Vec::new()),
        }
    }

    async fn take(
        &self,
        pool: &Pool,
        max: usize,
        invisible: Option<Duration>,
    ) -> Result<Vec<Lease>, Error> {
        if !pool.is_stopped() {
            self.instance.check_open()?;
            self.settler.has_room().await;
        }
        let span = self.instance.spans.receive();
        let mut taken = tokio::select! {
            biased;
            taken = pool.take(max, invisible) => match taken {
                Ok(none) if none.is_empty() => self.instance.shared.check_open().map(|()| none),
                taken => taken,
            },
            () = self.instance.stop.cancelled() => Err(Error::closed("consumer")),
            () = self.instance.shared.closed.cancelled() => Err(Error::closed("client")),
        };
        span.brought(&mut taken);
        taken
    }

    /// The spans of this consumer.
    pub(crate) fn spans(&self) -> &Spans {
        &self.instance.spans
    }

    /// What the server decided about the group.
    #[must_use]
    pub fn settings(&self) -> ServerSettings {
        self.instance.settings.borrow().clone()
    }

    /// True while the session with every broker is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.instance.is_connected()
    }

    /// From how many brokers a topic is received: 0 if its route names none that may be read now.
    /// `None` if the topic is not subscribed to.
    ///
    /// Members of a group share all queues of these brokers; none is given to one member alone.
    #[must_use]
    pub fn brokers_of(&self, topic: &str) -> Option<usize> {
        let intakes = self.intakes();
        let brokers = intakes.get(topic).map(|it| &it.brokers);
        brokers.map(|it| it.load(Ordering::Relaxed))
    }

    /// Id under which the server's tools show this consumer.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.instance.identity.client_id()
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> ConsumerStats {
        ConsumerStats {
            pending_settlements: self.settler.pending(),
            failed_settlements: self.settler.refused(),
            corrupted: self.corrupted.load(Ordering::Relaxed),
        }
    }

    /// Ends the intake of all topics, in milliseconds when nothing is under way.
    ///
    /// A receive whose answer has begun is read to its end; one on which nothing has arrived is
    /// looked at once more (for 0.3 s where messages came within the last second) and cancelled.
    /// (The broker hands the next message to a cancelled receive first: it comes 3 s late to another
    /// consumer.) What arrived is returned by further calls of [`receive`](Consumer::receive); what
    /// is not fetched is handed back by [`close`](Consumer::close).
    ///
    /// # Cancel safety
    ///
    /// The intake ends nevertheless.
    pub async fn stop_receiving(&self) {
        self.settler.hurry();
        // Two steps, so that every topic stops now even if the caller does not wait.
        let intakes: Vec<_> = self.intakes().values().cloned().collect();
        for intake in &intakes {
            intake.begin_stop();
        }
        join_all(intakes.iter().map(|it| it.ended())).await;
        // The end, for callers that wait.
        self.pools().iter().for_each(|it| it.stop());
    }

    /// Stops receiving, hands back what nobody took, waits for all settlements, then says good-bye
    /// to the servers; all within `by`.
    ///
    /// Leases that are still out are not settled: their messages come back when they run out.
    ///
    /// # Errors
    ///
    /// If settlements were not confirmed in time. [`settled`](Consumer::settled) has them, each
    /// with an error.
    ///
    /// # Cancel safety
    ///
    /// A call that was dropped is taken up by the next one.
    pub async fn close(&self, by: Instant) -> Result<(), Error> {
        // What was received has still to be settled.
        let receives_by = Instant::now() + by.saturating_duration_since(Instant::now()) / 2;
        if tokio::time::timeout_at(receives_by, self.stop_receiving())
            .await
            .is_err()
        {
            warn!(
                client_id = self.client_id(),
                "receives still run when half of the time to close is over"
            );
        }
        for lease in self.pools().iter().flat_map(|it| it.drain()) {
            self.settler.discard(lease, Settlement::HandBack);
        }
        // The good-bye gets what is left, a tenth of the time at least.
        let left = by.saturating_duration_since(Instant::now());
        let flush_by = Instant::now() + (left - (left / 10).min(GOODBYE_MAX));
        let given_up = self.settler.close(flush_by).await;
        self.instance.close(by).await;
        if given_up > 0 {
            let text = format!("{given_up} settlements were not confirmed before the close");
            return Err(Error::lease_expired(text, None));
        }
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        for intake in self.intakes().values() {
            intake.begin_stop();
        }
        self.settler.abort();
    }
}
