//! Where a case runs: the dev broker on a socket, or the real server.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rocketmq_admin::{Admin, GroupSpec, MessageType, TopicSpec};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use rocketmq_grpc::{Client, Config};

/// How long a new topic takes to be known everywhere.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

pub(crate) enum Site {
    Dev(DevBroker),
    Real { endpoints: String, admin: Admin },
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Normal,
    Fifo,
    Delay,
    Transaction,
}

impl Site {
    pub(crate) async fn dev() -> Self {
        let broker = DevBroker::builder()
            .strict(true)
            .listen(([127, 0, 0, 1], 0));
        Self::Dev(broker.start().await.unwrap())
    }

    pub(crate) async fn real() -> Self {
        let endpoints = env::var("ROCKETMQ_ENDPOINTS").expect("ROCKETMQ_ENDPOINTS");
        let port = env::var("ROCKETMQ_NAMESRV_PORT").unwrap_or("9876".to_owned());
        let admin = Admin::new(format!("127.0.0.1:{port}")).unwrap();
        Self::Real { endpoints, admin }
    }

    pub(crate) fn endpoints(&self) -> String {
        match self {
            Self::Dev(broker) => broker.addr().unwrap().to_string(),
            Self::Real { endpoints, .. } => endpoints.clone(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Config::new(self.endpoints())).unwrap()
    }

    pub(crate) async fn topic(&self, kind: Kind) -> String {
        let name = unique("interop_t");
        match self {
            Self::Dev(broker) => broker.create_topic(&name, kind.dev()).unwrap(),
            Self::Real { admin, .. } => {
                // One queue: what is sent is received by one long poll of a simple consumer.
                let spec = TopicSpec::new(&name).message_type(kind.real()).queues(1);
                admin.create_topic(&spec).await.unwrap();
                admin.wait_for_topic(&name, KNOWN_WITHIN).await.unwrap();
            }
        }
        name
    }

    pub(crate) async fn group(&self, orderly: bool) -> String {
        let name = unique("interop_g");
        match self {
            Self::Dev(broker) => {
                let config = GroupConfig::new().fifo(orderly);
                broker.create_group(&name, config).unwrap();
            }
            Self::Real { admin, .. } => {
                let spec = GroupSpec::new(&name).orderly(orderly);
                admin.create_group(&spec).await.unwrap();
            }
        }
        name
    }
}

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

fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}_{}_{n}", now.as_millis())
}
