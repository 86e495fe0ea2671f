//! Where the cases run, and what they are made of: topics, groups, clients.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::try_join_all;
use rocketmq_admin::{Admin, GroupSpec, MessageType, TopicSpec};
use rocketmq_devbroker::{Backoff, DevBroker, GroupConfig, TopicType};
use rocketmq_grpc::{
    Client, Config, Error, Filter, Message, Producer, ProducerConfig, SimpleConsumer,
    SimpleConsumerConfig,
};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take that must happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
pub(crate) const GLANCE: Duration = Duration::from_millis(10);
/// How early clocks of two processes may see a thing happen.
pub(crate) const CLOCKS: Duration = Duration::from_millis(500);

pub(crate) const REAL: bool = cfg!(feature = "real-server");

/// The shortest lease: the server's own bound, which the dev broker can lower.
pub(crate) const LEASE: Duration = Duration::from_secs(if REAL { 10 } else { 2 });

/// A server of the kind that this run is about.
pub(crate) struct Site {
    server: Server,
    pub(crate) client: Client,
}

enum Server {
    Dev(DevBroker),
    Real(Admin),
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Normal,
    Fifo,
    Delay,
    Transaction,
}

/// A group as the cases need it: failures come again after a second.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    pub(crate) orderly: bool,
    pub(crate) retries: u32,
}

impl Group {
    pub(crate) const PLAIN: Self = Self {
        orderly: false,
        retries: 16,
    };
    pub(crate) const ORDERLY: Self = Self {
        orderly: true,
        retries: 16,
    };
}

// === impl Site ===

impl Site {
    pub(crate) async fn start() -> Self {
        let (server, endpoints) = if REAL {
            let from = |name, default: &str| env::var(name).unwrap_or(default.to_owned());
            let admin = Admin::new(from("ROCKETMQ_NAMESRV", "127.0.0.1:9876")).unwrap();
            let endpoints = from("ROCKETMQ_ENDPOINTS", "127.0.0.1:8081");
            (Server::Real(admin), endpoints)
        } else {
            let second = Duration::from_secs(1);
            let broker = DevBroker::builder()
                .strict(true)
                .min_invisible(LEASE)
                .transaction_check(second, second)
                .listen(([127, 0, 0, 1], 0));
            let broker = broker.start().await.unwrap();
            let endpoints = broker.addr().unwrap().to_string();
            (Server::Dev(broker), endpoints)
        };
        let config = Config::new(endpoints).invisible_min(LEASE);
        let client = Client::new(config).unwrap();
        Self { server, client }
    }

    /// A site with a topic and a group of their own.
    pub(crate) async fn with(kind: Kind, group: Group) -> (Self, String, String) {
        let site = Self::start().await;
        let queues = 4;
        let (topic, group) = tokio::join!(site.topic(kind, queues), site.group(group));
        (site, topic, group)
    }

    /// The same with one queue, in which messages stay in the order in which they were sent.
    pub(crate) async fn with_one_queue(kind: Kind, group: Group) -> (Self, String, String) {
        let site = Self::start().await;
        let (topic, group) = tokio::join!(site.topic(kind, 1), site.group(group));
        (site, topic, group)
    }

    pub(crate) async fn topic(&self, kind: Kind, queues: u32) -> String {
        let name = unique("suite_t");
        match &self.server {
            Server::Dev(broker) => {
                let created = broker.create_topic_with_queues(&name, kind.dev(), queues);
                created.unwrap();
            }
            Server::Real(admin) => {
                let spec = TopicSpec::new(&name)
                    .message_type(kind.real())
                    .queues(queues);
                admin.create_topic(&spec).await.unwrap();
                admin.wait_for_topic(&name, PATIENCE).await.unwrap();
            }
        }
        name
    }

    pub(crate) async fn group(&self, group: Group) -> String {
        let name = unique("suite_g");
        let second = Duration::from_secs(1);
        match &self.server {
            Server::Dev(broker) => {
                let config = GroupConfig::new()
                    .fifo(group.orderly)
                    .retry_max_times(group.retries)
                    .backoff(Backoff::Customized(vec![second]));
                broker.create_group(&name, config).unwrap();
            }
            Server::Real(admin) => {
                let spec = GroupSpec::new(&name)
                    .orderly(group.orderly)
                    .retry_max_times(group.retries)
                    .backoff_steps([second]);
                admin.create_group(&spec).await.unwrap();
            }
        }
        name
    }

    pub(crate) async fn producer(&self, topic: &str) -> Producer {
        let config = ProducerConfig::new().topic(topic);
        self.client.producer(config).await.unwrap()
    }

    pub(crate) async fn simple(&self, topic: &str, group: &str) -> SimpleConsumer {
        let config = SimpleConsumerConfig::new(group)
            .subscribe(topic, Filter::all())
            .await_duration(Duration::from_secs(5));
        self.client.simple_consumer(config).await.unwrap()
    }

    /// A reader of the dead letters of `group`, once there are any.
    pub(crate) async fn dead_letters(&self, group: &str) -> SimpleConsumer {
        let topic = format!("%DLQ%{group}");
        let reader = self.group(Group::PLAIN).await;
        let by = Instant::now() + PATIENCE;
        loop {
            let config = SimpleConsumerConfig::new(&reader).subscribe(&topic, Filter::all());
            match self.client.simple_consumer(config).await {
                Ok(consumer) => return consumer,
                Err(error) if !error.is_unknown_topic() || Instant::now() > by => {
                    panic!("{error}")
                }
                Err(_) => sleep(GLANCE * 10).await,
            }
        }
    }

    /// The broker, if it is ours.
    #[cfg(not(feature = "real-server"))]
    pub(crate) fn dev(&self) -> Option<&DevBroker> {
        match &self.server {
            Server::Dev(broker) => Some(broker),
            Server::Real(_) => None,
        }
    }
}

// === impl Kind ===

impl Kind {
    fn dev(self) -> TopicType {
        match self {
            Self::Normal => TopicType::Normal,
            Self::Fifo => TopicType::Fifo,
            Self::Delay => TopicType::Delay,
            Self::Transaction => TopicType::Transaction,
        }
    }

    fn real(self) -> MessageType {
        match self {
            Self::Normal => MessageType::Normal,
            Self::Fifo => MessageType::Fifo,
            Self::Delay => MessageType::Delay,
            Self::Transaction => MessageType::Transaction,
        }
    }
}

// === sending and time ===

/// Sends one after the other; their ids.
pub(crate) async fn send_each(
    producer: &Producer,
    messages: impl IntoIterator<Item = Message>,
) -> Vec<String> {
    let mut ids = Vec::new();
    for message in messages {
        ids.push(producer.send(message).await.unwrap().message_id);
    }
    ids
}

/// Sends all at the same time; their ids.
pub(crate) async fn send_at_once(
    producer: &Producer,
    messages: impl IntoIterator<Item = Message>,
) -> Vec<String> {
    let sending = messages.into_iter().map(|it| producer.send(it));
    let sent: Result<Vec<_>, Error> = try_join_all(sending).await;
    sent.unwrap().into_iter().map(|it| it.message_id).collect()
}

/// Messages with their number as body.
pub(crate) fn numbered(topic: &str, count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(move |n| Message::new(topic, n.to_string()))
}

pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}_{}_{n}", now.as_millis())
}
