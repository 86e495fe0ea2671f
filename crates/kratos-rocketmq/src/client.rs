//! The handle on a cluster: a [`Driver`] for messages, a [`Resource`] for the App.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kratos::{Resource, StartContext};
use kratos_broker::{
    Driver, Error, Message, Receipt, Result,
    driver::{Capabilities, GroupSpec},
};
use rocketmq_grpc::{Producer, ProducerConfig};
use tokio::{sync::OnceCell, time::Instant};

use crate::{Config, Consumer, Publisher, error::neutral};

/// A RocketMQ cluster. Cheap to clone; closing one closes all.
///
/// Give a clone to the App as a [`Resource`]: it is connected before anything is served, and closed
/// after everything has drained.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: rocketmq_grpc::Client,
    endpoints: String,
    /// Topics that must be there when the App starts.
    publishes: Mutex<BTreeSet<String>>,
    producer: OnceCell<Producer>,
    #[cfg(feature = "embedded")]
    broker: Option<rocketmq_devbroker::DevBroker>,
}

// === impl Client ===

impl Client {
    /// A client of the cluster that `config` names. Does no I/O.
    ///
    /// # Errors
    ///
    /// `endpoints` is missing or is not `host:port`.
    pub fn new(config: Config) -> kratos::Result<Self> {
        let Config {
            endpoints,
            namespace,
            request_timeout,
        } = config;
        let endpoints = endpoints.ok_or_else(|| {
            kratos::Error::msg(
                "rocketmq.endpoints is missing: set it, or KRATOS_ROCKETMQ__ENDPOINTS, to the \
                 host:port of the RocketMQ proxy",
            )
        })?;
        let config = rocketmq_grpc::Config::new(endpoints.as_str())
            .namespace(namespace)
            .request_timeout(request_timeout);
        let client = rocketmq_grpc::Client::new(config).map_err(|error| {
            kratos::Error::msg(format!("rocketmq.endpoints is {endpoints:?}"))
                .with_source(neutral(error))
        })?;
        Ok(Shared::new(client, endpoints).into())
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
        /// Where nothing listens; the connector below never looks at it.
        const EMBEDDED: &str = "embedded:8081";

        let pipe = broker.connector();
        let connector = rocketmq_grpc::Connector::new(tower::service_fn(move |_address| {
            std::future::ready(pipe.connect())
        }));
        // The broker decides which leases it grants: tests make them short.
        let config = rocketmq_grpc::Config::new(EMBEDDED).invisible_min(std::time::Duration::ZERO);
        #[expect(clippy::expect_used, reason = "the address above is a valid one")]
        let client = rocketmq_grpc::Client::with_connector(config, connector)
            .expect("the address of the embedded broker is valid");
        let shared = Shared {
            broker: Some(broker),
            ..Shared::new(client, "the embedded broker".to_owned())
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
        self.shared
            .publishes()
            .extend(topics.into_iter().map(Into::into));
        self
    }

    /// Publishes messages to this cluster.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }

    async fn producer(&self) -> Result<&Producer> {
        let start = || async {
            let topics = self.shared.publishes().clone();
            let config = topics
                .into_iter()
                .fold(ProducerConfig::new(), ProducerConfig::topic);
            self.shared.client.producer(config).await
        };
        self.shared
            .producer
            .get_or_try_init(start)
            .await
            .map_err(neutral)
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
    fn new(client: rocketmq_grpc::Client, endpoints: String) -> Self {
        Self {
            client,
            endpoints,
            publishes: Mutex::default(),
            producer: OnceCell::new(),
            #[cfg(feature = "embedded")]
            broker: None,
        }
    }

    fn publishes(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.publishes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Client {
    const SYSTEM: &'static str = "rocketmq";

    type Consumer = Consumer;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
            .dead_letter(true)
            .tag_filter(true)
            .hand_back_spends_attempt(true)
    }

    async fn publish(&self, message: Message) -> Result<Receipt> {
        let parts = message.into_parts();
        let mut message = rocketmq_grpc::Message::new(parts.topic.as_str(), parts.body);
        if let Some(tag) = parts.tag {
            message = message.tag(tag);
        }
        for key in parts.keys {
            message = message.key(key);
        }
        for (name, value) in parts.headers {
            message = message.property(name, value);
        }
        let receipt = self
            .producer()
            .await?
            .send(message)
            .await
            .map_err(neutral)?;
        Ok(Receipt::new(receipt.message_id))
    }

    async fn consumer(&self, group: GroupSpec, _cx: StartContext) -> Result<Consumer> {
        Consumer::join(&self.shared.client, &group).await
    }
}

impl Resource for Client {
    fn name(&self) -> &str {
        "rocketmq"
    }

    async fn open(&mut self, _cx: StartContext) -> kratos::Result<()> {
        let opened = async {
            self.shared.client.ping().await.map_err(neutral)?;
            self.producer().await.map(drop)
        };
        opened.await.map_err(|error: Error| {
            let transient = error.is_transient();
            let at = format!("cannot use RocketMQ at {}", self.shared.endpoints);
            let error = kratos::Error::msg(at).with_source(error);
            if transient { error.transient() } else { error }
        })
    }

    async fn close(self, by: Instant) -> kratos::Result<()> {
        if let Some(producer) = self.shared.producer.get() {
            producer.close(by).await;
        }
        self.shared.client.close(by).await;
        Ok(())
    }
}
