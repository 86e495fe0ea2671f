//! The handle on a cluster: a [`Driver`] for messages, a [`Resource`] for the App.
//!
//! [`Driver`]: kratos_broker::Driver
//! [`Resource`]: kratos::Resource

mod driver;
mod resource;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use kratos_broker::{
    Delivery, Error, ErrorKind, Resolution, Result,
    driver::{GroupSpec, Tap},
};
use rocketmq_grpc::{Producer, ProducerConfig};
use tokio::sync::OnceCell;

use crate::{
    Config, Consumer, Publisher,
    broadcast::Site,
    config::Connection,
    error::neutral,
    transaction::{self, Checkers},
};

/// A RocketMQ cluster. Cheap to clone; closing one closes all.
///
/// Give a clone to the App as a [`Resource`](kratos::Resource): it is connected before anything is
/// served, and closed after everything has drained.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Made at the first use: certificates are read then.
    client: OnceLock<rocketmq_grpc::Client>,
    connection: Connection,
    settings: Mutex<Settings>,
    producer: OnceCell<Producer>,
    tap: Tap,
    #[cfg(feature = "asyncapi")]
    outlets: kratos_broker::asyncapi::Outlets,
    #[cfg(feature = "test-util")]
    journal: kratos_broker::testing::Journal,
    #[cfg(feature = "embedded")]
    broker: Option<rocketmq_devbroker::DevBroker>,
}

/// What a service says before the client is used.
#[derive(Debug, Default)]
struct Settings {
    /// Topics that must be there when the App starts.
    publishes: BTreeSet<String>,
    checkers: Checkers,
}

// === impl Client ===

impl Client {
    /// A client of the cluster that `config` names. Does no I/O: certificates are read when the
    /// client is opened, or first used.
    ///
    /// # Errors
    ///
    /// `endpoints` is missing or is not `host:port`; settings that contradict each other.
    pub fn new(config: Config) -> kratos::Result<Self> {
        let connection = Connection::new(config)?;
        Ok(Shared::new(connection).into())
    }

    /// A client of a broker inside this process: what is published is lost with the process, topics
    /// and groups are made when they are first used. For development and tests. Does no I/O.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn embedded() -> Self {
        Self::of(rocketmq_devbroker::DevBroker::in_memory())
    }

    /// A client of a dev broker, over memory: what a test uses that looks into the broker.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn of(broker: rocketmq_devbroker::DevBroker) -> Self {
        Self::of_with(broker, |config| config)
    }

    /// The same with other settings of the connection.
    #[cfg(feature = "embedded")]
    pub(crate) fn of_with(
        broker: rocketmq_devbroker::DevBroker,
        settings: impl FnOnce(rocketmq_grpc::Config) -> rocketmq_grpc::Config,
    ) -> Self {
        /// Where nothing listens; the connector below never looks at it.
        const EMBEDDED: &str = "embedded:8081";

        let pipe = broker.connector();
        let connector = rocketmq_grpc::Connector::new(tower::service_fn(move |_address| {
            std::future::ready(pipe.connect())
        }));
        // The broker decides which leases it grants: tests make them short.
        let config = rocketmq_grpc::Config::new(EMBEDDED).invisible_min(std::time::Duration::ZERO);
        #[expect(clippy::expect_used, reason = "the address above is a valid one")]
        let client = rocketmq_grpc::Client::with_connector(settings(config), connector)
            .expect("the address of the embedded broker is valid");
        let connection = Connection::named("the embedded broker");
        let shared = Shared {
            broker: Some(broker),
            client: OnceLock::from(client),
            ..Shared::new(connection)
        };
        shared.into()
    }

    /// A client around one of `rocketmq_grpc`, for what [`Config`] has no words for: interceptors, a
    /// connector, addresses that a port forwarding has changed. Does no I/O. Broadcasts have no name
    /// server to ask. Spans are those of the framework: the client's own are
    /// [off](rocketmq_grpc::Client::untraced).
    ///
    /// ```
    /// # fn main() -> Result<(), rocketmq_grpc::Error> {
    /// // Through a forwarded port: the addresses that the server tells are of no use here.
    /// let config = rocketmq_grpc::Config::new("127.0.0.1:18081")
    ///     .rewrite_addresses(|_, _| ("127.0.0.1".to_owned(), 18_081));
    /// let client = kratos_rocketmq::Client::around(rocketmq_grpc::Client::new(config)?);
    /// # let _ = client;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn around(client: rocketmq_grpc::Client) -> Self {
        let shared = Shared {
            client: OnceLock::from(client.untraced()),
            ..Shared::new(Connection::named("a client of its own making"))
        };
        shared.into()
    }

    /// The cluster that `config` names; with no endpoints, a broker inside this process.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for missing endpoints.
    #[cfg(feature = "embedded")]
    pub fn new_or_embedded(config: Config) -> kratos::Result<Self> {
        if config.endpoints.is_none() {
            tracing::info!("rocketmq.endpoints is not set: the broker is embedded in this process");
            return Ok(Self::embedded());
        }
        Self::new(config)
    }

    /// The broker inside this process, if that is where the client connects to.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn broker(&self) -> Option<&rocketmq_devbroker::DevBroker> {
        self.shared.broker.as_ref()
    }

    /// Names topics that this service publishes to: the start fails if one of them does not exist,
    /// rather than the first message. Counts for all clones, until one of them is opened.
    #[must_use]
    pub fn publishes<T: Into<String>>(self, topics: impl IntoIterator<Item = T>) -> Self {
        let topics = topics.into_iter().map(Into::into);
        self.shared.lock().publishes.extend(topics);
        self
    }

    /// Answers when the broker asks what became of a transaction of a topic, and permits
    /// [`Publisher::transaction`](kratos_broker::Publisher::transaction) for it. Counts for all
    /// clones, until one of them is opened; the topic must exist, as for
    /// [`publishes`](Self::publishes).
    ///
    /// The broker asks when it was not told: the process died, the decision was lost, or nobody
    /// knew it yet. It asks any instance of the service, also one that was started later, and from
    /// 6 s after the send on, also **while the local transaction of another instance still runs**.
    /// So the answer must come from what all of them see, a row that the local transaction writes,
    /// found by the message's id, and a row that is not there does not say that nobody will commit
    /// it. Make its absence final before you answer [`Resolution::Rollback`]: take the row's place,
    /// as below, so that the commit of a process that is slow fails.
    ///
    /// Answer [`Resolution::Unknown`] while nobody can know. The broker asks every 30 s, 15 times,
    /// whether somebody is there to be asked or not, and then gives the message up: what is left
    /// open for some 7 minutes without an answer is lost. (The broker's `transactionTimeOut`,
    /// `transactionCheckInterval` and `transactionCheckMax` are these numbers.) An answer that takes
    /// more than 30 s, or panics, is none. What is committed while it is asked about may be
    /// delivered twice.
    ///
    /// ```
    /// use kratos_broker::{Delivery, Message, Resolution};
    /// use kratos_rocketmq::Client;
    /// use sqlx::SqlitePool;
    ///
    /// /// What became of a message's local transaction, once and for all.
    /// async fn is_void(pool: &SqlitePool, message: &str) -> sqlx::Result<bool> {
    ///     // Waits for a transaction that has written the row, and keeps others from writing it.
    ///     let claim = "INSERT INTO payments (message, void) VALUES ($1, TRUE)
    ///         ON CONFLICT (message) DO NOTHING";
    ///     sqlx::query(claim).bind(message).execute(pool).await?;
    ///     let void = sqlx::query_scalar("SELECT void FROM payments WHERE message = $1");
    ///     void.bind(message).fetch_one(pool).await
    /// }
    ///
    /// /// The local transaction; here it is one statement.
    /// async fn pay(pool: &SqlitePool, message: &str, order: &str) -> sqlx::Result<()> {
    ///     let row = "INSERT INTO payments (message, order_id, void) VALUES ($1, $2, FALSE)";
    ///     sqlx::query(row).bind(message).bind(order).execute(pool).await.map(drop)
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    /// # let pool = pool.connect("sqlite::memory:").await?;
    /// # let table = "CREATE TABLE payments (message TEXT PRIMARY KEY, order_id TEXT, void BOOLEAN)";
    /// # sqlx::raw_sql(table).execute(&pool).await?;
    /// let rows = pool.clone();
    /// let client = Client::embedded().transaction_checker("payments", move |message: Delivery| {
    ///     let rows = rows.clone();
    ///     async move {
    ///         match is_void(&rows, message.id()).await {
    ///             Ok(false) => Resolution::Commit,
    ///             Ok(true) => Resolution::Rollback,
    ///             Err(_) => Resolution::Unknown, // the database is away
    ///         }
    ///     }
    /// });
    ///
    /// let message = Message::new("payments", "paid").key("order-7");
    /// let publisher = client.publisher();
    /// let done = publisher.transaction(message, async |receipt| {
    ///     match pay(&pool, &receipt.id, "order-7").await {
    ///         Ok(()) => Resolution::Commit,
    ///         // It may be committed all the same: the broker asks.
    ///         Err(_) => Resolution::Unknown,
    ///     }
    /// });
    /// assert_eq!(done.await?.resolution, Resolution::Commit);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    #[must_use]
    pub fn transaction_checker<F, Fut>(self, topic: impl Into<String>, checker: F) -> Self
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Resolution> + Send + 'static,
    {
        self.shared.lock().checkers.insert(topic.into(), checker);
        self
    }

    /// Publishes messages to this cluster.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }

    /// Where groups are made.
    #[cfg(any(feature = "admin", feature = "embedded"))]
    pub(crate) fn site(&self) -> Result<Site> {
        self.shared.site()
    }

    /// A client of the same cluster, unused so far, whose traffic a test sees.
    #[cfg(feature = "test-util")]
    pub(crate) fn watched(self) -> Self {
        let mut shared = Arc::into_inner(self.shared).unwrap_or_else(|| {
            // Only who has made the client asks for this.
            unreachable!("the client is new")
        });
        shared.tap = Tap::from(shared.journal.clone());
        shared.into()
    }

    #[cfg(feature = "test-util")]
    pub(crate) fn journal(&self) -> &kratos_broker::testing::Journal {
        &self.shared.journal
    }

    /// Where it connects to, for people.
    pub(crate) fn endpoints(&self) -> &str {
        self.shared.connection.endpoints()
    }

    /// The client underneath, made at the first use.
    pub(crate) fn client(&self) -> Result<&rocketmq_grpc::Client> {
        if let Some(client) = self.shared.client.get() {
            return Ok(client);
        }
        let client = self.shared.connection.client()?;
        Ok(self.shared.client.get_or_init(|| client))
    }

    async fn producer(&self) -> Result<&Producer> {
        let client = self.client()?;
        let start = || async {
            let config = self.shared.lock().producer_config();
            client.producer(config).await.map_err(neutral)
        };
        self.shared.producer.get_or_try_init(start).await
    }

    /// What a start makes of an error. A broker that restarts is struck off by the name server with
    /// all its topics: one that is not found may come. The embedded broker does not restart.
    fn at_start(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::UnknownTopic if !self.shared.is_embedded() => passing(&error),
            _ => error,
        }
    }
}

impl From<Shared> for Client {
    fn from(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn new(connection: Connection) -> Self {
        Self {
            client: OnceLock::new(),
            connection,
            settings: Mutex::default(),
            producer: OnceCell::new(),
            tap: Tap::default(),
            #[cfg(feature = "asyncapi")]
            outlets: kratos_broker::asyncapi::Outlets::default(),
            #[cfg(feature = "test-util")]
            journal: kratos_broker::testing::Journal::new(),
            #[cfg(feature = "embedded")]
            broker: None,
        }
    }

    /// Where groups of instances are made.
    fn site(&self) -> Result<Site> {
        #[cfg(feature = "embedded")]
        if let Some(broker) = &self.broker {
            return Ok(Site::Embedded(broker.clone()));
        }
        self.connection.site()
    }

    /// The same, asking how far its group is behind where that can be asked.
    #[cfg(any(feature = "admin", feature = "embedded"))]
    fn watched(&self, consumer: Consumer, group: &GroupSpec) -> Consumer {
        if let Ok(site) = self.site() {
            let topics = group.topics.iter().map(|it| it.topic.clone());
            return consumer.watched(site, self.connection.lag_interval(), topics.collect());
        }
        consumer
    }

    #[cfg(not(any(feature = "admin", feature = "embedded")))]
    #[expect(clippy::unused_self, reason = "nobody can be asked in this build")]
    fn watched(&self, consumer: Consumer, _group: &GroupSpec) -> Consumer {
        consumer
    }

    /// Whether the broker is this process's own: it has all its topics from the start.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(clippy::unused_self, reason = "only the embedded broker is kept here")
    )]
    fn is_embedded(&self) -> bool {
        #[cfg(feature = "embedded")]
        return self.broker.is_some();
        #[cfg(not(feature = "embedded"))]
        false
    }

    fn lock(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    /// Topics that messages are sent to, and whether in transactions.
    fn sends_to(&self) -> BTreeMap<String, bool> {
        let topics = self.publishes.iter().chain(self.checkers.topics());
        let transactional = |topic: &String| (topic.clone(), self.checkers.has(topic));
        topics.map(transactional).collect()
    }

    fn producer_config(&self) -> ProducerConfig {
        let topics = self.publishes.iter().chain(self.checkers.topics());
        let config = topics.fold(ProducerConfig::new(), ProducerConfig::topic);
        if self.checkers.is_empty() {
            return config;
        }
        let checkers = self.checkers.clone();
        config.transaction_checker(move |message| {
            let answer = checkers.ask(message);
            async move { transaction::resolution(answer.await) }
        })
    }
}

/// The same words, to be tried again. What the server said of a topic or group has no causes.
fn passing(error: &Error) -> Error {
    Error::new(ErrorKind::Transient, error.to_string())
}
