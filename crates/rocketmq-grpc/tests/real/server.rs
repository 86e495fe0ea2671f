//! Names, topics, groups and clients for the tests.

use std::{
    collections::HashMap,
    env, process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rocketmq_admin::Admin;
use rocketmq_grpc::{
    Client, Config, Consumer, ConsumerConfig, Error, Filter, Lease, Message, MessageView, Producer,
    ProducerConfig,
};
use tokio::{runtime::Builder, task::JoinSet, time::Instant};

/// How long a topic takes to be known everywhere.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) group: String,
}

/// How long a first poll takes to arrive, on a busy machine too.
const POLLED_FOR: Duration = Duration::from_secs(2);

impl Place {
    /// A topic and a group of their own; `group` has options of a `GroupSpec`.
    pub(crate) fn new(group_options: &str) -> Self {
        Self::of(":NORMAL", group_options)
    }

    /// The same, in order.
    pub(crate) fn fifo(queues: usize, group_options: &str) -> Self {
        let group_options = format!(":orderly{group_options}");
        Self::of(&format!(":FIFO:queues={queues}"), &group_options)
    }

    /// The same with options for the topic, too.
    pub(crate) fn of(topic_options: &str, group_options: &str) -> Self {
        let name = unique();
        let (topic, group) = (format!("rg_t_{name}"), format!("rg_g_{name}"));
        admin(&["topic", &format!("{topic}{topic_options}")]);
        admin(&["group", &format!("{group}{group_options}")]);
        Self {
            client: client(),
            topic,
            group,
        }
    }

    pub(crate) async fn producer(&self) -> Producer {
        let config = || ProducerConfig::new().topic(&self.topic);
        until_known(async || self.client.producer(config()).await).await
    }

    pub(crate) async fn consumer_of_rest(&self, lease: Duration) -> Consumer {
        let config = || {
            ConsumerConfig::new(&self.group)
                .subscribe(&self.topic, Filter::all())
                .invisible_duration(lease)
        };
        until_known(async || self.client.consumer(config()).await).await
    }

    /// A consumer that polls already, so that it sees all that is sent from now on: a group that is new
    /// begins at the end that its first poll finds.
    pub(crate) async fn consumer(&self, lease: Duration) -> Consumer {
        let consumer = self.consumer_of_rest(lease).await;
        let polled = consumer.receive(&self.topic, 32);
        assert!(tokio::time::timeout(POLLED_FOR, polled).await.is_err());
        consumer
    }

    /// Sends numbered messages, 32 at once; their ids.
    pub(crate) async fn send(&self, count: usize) -> Vec<String> {
        self.send_of(None, count).await
    }

    pub(crate) async fn send_of(&self, group: Option<&str>, count: usize) -> Vec<String> {
        let producer = self.producer().await;
        let mut sending = JoinSet::new();
        let mut ids = Vec::new();
        for n in 0..count {
            let mut message = Message::new(&self.topic, n.to_string());
            if let Some(group) = group {
                message = message.group(group);
            }
            let producer = producer.clone();
            sending.spawn(async move { producer.send(message).await });
            if sending.len() >= 32 {
                ids.push(
                    sending
                        .join_next()
                        .await
                        .unwrap()
                        .unwrap()
                        .unwrap()
                        .message_id,
                );
            }
        }
        while let Some(sent) = sending.join_next().await {
            ids.push(sent.unwrap().unwrap().message_id);
        }
        producer.close(in_seconds(5)).await;
        ids
    }

    pub(crate) async fn receive_one(&self, consumer: &Consumer, within: Duration) -> Lease {
        let received = tokio::time::timeout(within, consumer.receive(&self.topic, 1)).await;
        received.expect("nothing came in time").unwrap().remove(0)
    }

    /// What comes from the dead-letter topic within five seconds. A young topic is read from its start.
    pub(crate) async fn dead_letters(&self) -> Vec<MessageView> {
        let dead = format!("%DLQ%{}", self.group);
        let undertaker = Self::new("");
        let config = || ConsumerConfig::new(&undertaker.group).subscribe(&dead, Filter::all());
        let reader = until_known(async || undertaker.client.consumer(config()).await).await;
        let mut messages = Vec::new();
        let by = in_seconds(5);
        while let Ok(leases) = tokio::time::timeout_at(by, reader.receive(&dead, 32)).await {
            for mut lease in leases.unwrap() {
                messages.push(lease.take_message());
                reader.ack(lease).await.unwrap();
            }
        }
        reader.close(in_seconds(5)).await.unwrap();
        messages
    }

    /// Nothing comes for so long.
    pub(crate) async fn silence(&self, consumer: &Consumer, during: Duration) {
        let received = tokio::time::timeout(during, consumer.receive(&self.topic, 32)).await;
        if let Ok(leases) = received {
            panic!("{leases:?}");
        }
    }
}

/// Counts of deliveries by message id.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) HashMap<String, usize>);

impl Seen {
    pub(crate) fn add(&mut self, lease: &Lease) {
        *self.0.entry(lease.message().id.clone()).or_default() += 1;
    }

    pub(crate) fn assert_each_once(&self, ids: &[String]) {
        let lost: Vec<_> = ids.iter().filter(|id| !self.0.contains_key(*id)).collect();
        let twice: Vec<_> = self.0.iter().filter(|(_, count)| **count > 1).collect();
        assert!(
            lost.is_empty() && twice.is_empty(),
            "lost {lost:?}, more than once {twice:?}"
        );
        assert_eq!(self.0.len(), ids.len());
    }
}

pub(crate) fn endpoints() -> String {
    env::var("ROCKETMQ_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:8081".to_owned())
}

pub(crate) fn client() -> Client {
    Client::new(Config::new(endpoints()).name("rocketmq-grpc-test")).unwrap()
}

pub(crate) fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Also among processes that start in the same millisecond.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{now}_{}_{count}", process::id())
}

/// Creates what `args` say: `topic` or `group`, and specs of rocketmq-admin.
pub(crate) fn admin(args: &[&str]) {
    let (what, specs) = args.split_first().unwrap();
    let create = async || -> rocketmq_admin::Result<()> {
        let admin = Admin::new(name_server())?;
        for spec in specs {
            match *what {
                "topic" => admin.create_topic(&spec.parse()?).await?,
                "group" => admin.create_group(&spec.parse()?).await?,
                other => panic!("create a {other}?"),
            }
        }
        Ok(())
    };
    // Callers are inside a runtime and not async.
    let created = thread::scope(|scope| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        scope
            .spawn(move || runtime.block_on(create()))
            .join()
            .unwrap()
    });
    created.unwrap_or_else(|error| panic!("{args:?}: {error}"));
}

/// Where topics and groups are created: beside the proxy that the tests talk to.
pub(crate) fn name_server() -> String {
    match (env::var("ROCKETMQ_NAMESRV"), env::var("ROCKETMQ_ENDPOINTS")) {
        (Ok(name_server), _) => name_server,
        (Err(_), Err(_)) => "127.0.0.1:9876".to_owned(),
        (Err(_), Ok(_)) => panic!("ROCKETMQ_ENDPOINTS is set: ROCKETMQ_NAMESRV must be, too"),
    }
}

pub(crate) async fn until_known<T>(start: impl AsyncFn() -> Result<T, Error>) -> T {
    let by = Instant::now() + KNOWN_WITHIN;
    loop {
        match start().await {
            Ok(started) => return started,
            Err(error) if Instant::now() > by => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
