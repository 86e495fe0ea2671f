//! The handle from which producers and consumers are made.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use futures_util::future::join_all;
use rocketmq_proto::v2 as pb;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Connector, Consumer, ConsumerConfig, Endpoints, Error, Producer, ProducerConfig,
    SimpleConsumer, SimpleConsumerConfig,
    connection::Connection,
    credentials::Signer,
    identity::Identity,
    instance::Instance,
    rpc::{Rpc, Subject},
};

/// A RocketMQ cluster, as configured; cheap to clone.
///
/// Connections are made by the first producer or consumer that needs them, and shared.
///
/// ```
/// use rocketmq_grpc::{Client, Config};
///
/// let client = Client::new(Config::new("127.0.0.1:8081"))?; // connects to nothing yet
/// # Ok::<(), rocketmq_grpc::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    traced: bool,
}

/// What the producers and consumers of a client have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) access_point: Endpoints,
    pub(crate) closed: CancellationToken,
    connector: Connector,
    signer: Option<Arc<Signer>>,
    /// Those named by routes come and go with the cluster; one that nobody uses is dropped when
    /// routes are refreshed.
    connections: Mutex<HashMap<Endpoints, Arc<Connection>>>,
    instances: Mutex<Vec<Weak<Instance>>>,
}

impl Client {
    /// Checks the configuration; does no I/O.
    ///
    /// # Errors
    ///
    /// If the endpoints are not `host:port`, a name has characters beyond ASCII, or the certificates
    /// given to [`Config::tls`](Config) cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::with_connector(config, Connector::tcp())
    }

    /// The same over another transport than TCP; does no I/O.
    ///
    /// # Errors
    ///
    /// As for [`new`](Client::new).
    pub fn with_connector(config: Config, connector: Connector) -> Result<Self, Error> {
        let access_point: Endpoints = config.endpoints.parse()?;
        Identity::new(&config.name, &config.namespace, None)?;
        #[cfg(feature = "tls")]
        let connector = match &config.tls {
            Some(tls) => tls.secure(connector)?,
            None => connector,
        };
        let signer = config.credentials.clone();
        let traced = config.traced;
        let shared = Shared {
            signer: signer.map(|it| Arc::new(Signer::new(it, config.request_timeout))),
            config,
            access_point,
            closed: CancellationToken::new(),
            connector,
            connections: Mutex::default(),
            instances: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            traced,
        })
    }

    /// The same client; producers and consumers that are made with this handle record no spans,
    /// whatever [`Config`] says. For frameworks that record their own around them.
    #[must_use]
    pub fn untraced(self) -> Self {
        Self {
            traced: false,
            ..self
        }
    }

    /// The endpoints that this client was given.
    #[must_use]
    pub fn access_point(&self) -> &Endpoints {
        &self.shared.access_point
    }

    /// Namespace of all topics and groups; empty for none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.shared.config.namespace
    }

    /// Starts a producer: routes and settings of the topics that it was given.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, refuses this client, or knows one of the topics not.
    pub async fn producer(&self, config: ProducerConfig) -> Result<Producer, Error> {
        Producer::start(&self.shared, self.traced, config).await
    }

    /// Starts a consumer: routes of all its topics, settings exchanged with all their brokers.
    ///
    /// Nothing is received before [`Consumer::receive`] is called.
    ///
    /// # Errors
    ///
    /// If the configuration cannot work, the server cannot be reached or refuses this client
    /// ([`is_unknown_group`](Error::is_unknown_group)), or a topic does not exist
    /// ([`is_unknown_topic`](Error::is_unknown_topic)).
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, Error> {
        Consumer::start(&self.shared, self.traced, config).await
    }

    /// Starts a simple consumer: one that is asked for messages of all its topics at once, with a
    /// length of the lease per call.
    ///
    /// # Errors
    ///
    /// As for [`consumer`](Client::consumer).
    pub async fn simple_consumer(
        &self,
        config: SimpleConsumerConfig,
    ) -> Result<SimpleConsumer, Error> {
        SimpleConsumer::start(&self.shared, self.traced, config).await
    }

    /// Asks the access point for a sign of life; any answer will do, also a refusal.
    ///
    /// # Errors
    ///
    /// If it cannot be reached, or does not answer within the request timeout.
    pub async fn ping(&self) -> Result<(), Error> {
        self.shared.check_open()?;
        let identity = Arc::new(self.shared.identity()?);
        let connection = self.shared.connection(&self.shared.access_point)?;
        let rpc = Rpc {
            identity,
            connection,
        };
        // The one request that needs neither a topic nor a group.
        let request = pb::HeartbeatRequest {
            group: None,
            client_type: pb::ClientType::Producer.into(),
        };
        let subject = Subject::default();
        rpc.call_any(
            "ping",
            subject,
            request,
            self.shared.config.request_timeout,
            |mut stub, rq| async move { stub.heartbeat(rq).await },
        )
        .await?;
        Ok(())
    }

    /// Asks which types of messages a topic takes: `NORMAL`, `FIFO`, `DELAY`, `TRANSACTION`, ..;
    /// none if the server does not say, which is as good as all. Changes nothing there.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or refuses this client, or the topic does not exist
    /// ([`is_unknown_topic`](Error::is_unknown_topic)).
    pub async fn topic_types(&self, topic: &str) -> Result<Vec<&'static str>, Error> {
        self.shared.check_open()?;
        let config = &self.shared.config;
        let rpc = Rpc {
            identity: Arc::new(self.shared.identity()?),
            connection: self.shared.connection(&self.shared.access_point)?,
        };
        let request = pb::QueryRouteRequest {
            topic: Some(pb::Resource {
                resource_namespace: config.namespace.clone(),
                name: topic.to_owned(),
            }),
            endpoints: Some(self.shared.access_point.to_proto()),
        };
        let subject = Subject {
            topic: Some(topic),
            ..Subject::default()
        };
        let timeout = config.request_timeout + config.connect_timeout;
        let answer = rpc
            .call(
                "query of a route",
                subject,
                request,
                timeout,
                |mut stub, rq| async move { stub.query_route(rq).await },
            )
            .await?;
        let queues = answer.message_queues.iter();
        let mut types: Vec<_> = queues
            .flat_map(pb::MessageQueue::accept_message_types)
            .filter(|it| *it != pb::MessageType::Unspecified)
            .map(|it| it.as_str_name())
            .collect();
        types.sort_unstable();
        types.dedup();
        Ok(types)
    }

    /// Closes every clone, and says good-bye for producers and consumers that are not closed yet.
    ///
    /// Close consumers first: this does not wait for settlements. Later calls answer with an error
    /// whose [`is_closed`](Error::is_closed) is true.
    pub async fn close(&self, by: Instant) {
        self.shared.closed.cancel();
        let instances: Vec<_> = self.shared.instances().drain(..).collect();
        join_all(
            instances
                .iter()
                .filter_map(Weak::upgrade)
                .map(|it| async move {
                    it.close(by).await;
                }),
        )
        .await;
        self.shared.connections().clear();
    }
}

impl Shared {
    /// Of a new producer or consumer.
    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        let Config {
            name, namespace, ..
        } = &self.config;
        Identity::new(name, namespace, self.signer.clone())
    }

    pub(crate) fn connection(&self, endpoints: &Endpoints) -> Result<Arc<Connection>, Error> {
        let mut connections = self.connections();
        if let Some(found) = connections.get(endpoints) {
            return Ok(found.clone());
        }
        let timeout = self.config.connect_timeout;
        let new = Connection::new(endpoints.clone(), self.connector.clone(), timeout)?;
        let new = Arc::new(new);
        connections.insert(endpoints.clone(), new.clone());
        Ok(new)
    }

    /// Forgets servers that left the routes, so that their connections end.
    pub(crate) fn drop_unused_connections(&self) {
        let access_point = &self.access_point;
        self.connections()
            .retain(|endpoints, it| endpoints == access_point || Arc::strong_count(it) > 1);
    }

    pub(crate) fn register(&self, instance: &Arc<Instance>) {
        let mut instances = self.instances();
        instances.retain(|it| it.strong_count() > 0);
        instances.push(Arc::downgrade(instance));
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            Err(Error::closed("client"))
        } else {
            Ok(())
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<Endpoints, Arc<Connection>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn instances(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Instance>>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
