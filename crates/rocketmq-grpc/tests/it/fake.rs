//! A server that does what the test says: the faults that a well-behaved broker does not have.

pub(crate) mod producing;
mod service;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use rocketmq_grpc::{Client, Config, Consumer, ConsumerConfig, Filter};
use rocketmq_proto::v2::{
    self as pb, Code, messaging_service_server::MessagingServiceServer, telemetry_command::Command,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, metadata::MetadataMap};

use self::producing::Producing;
use crate::link::Link;

pub(crate) const TOPIC: &str = "orders";
pub(crate) const GROUP: &str = "billing";

type Answers<T> = VecDeque<Result<T, Status>>;
type Items = Vec<Item>;

/// Clones share the server.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) link: Link,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    /// Cancelled, and made anew, by [`Fake::drain`].
    drained: watch::Sender<CancellationToken>,
}

/// What to answer; beyond the script everything is fine and there is nothing to receive.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) routes: Answers<pb::QueryRouteResponse>,
    /// Of the route beyond the script, if it is not the access point.
    pub(crate) brokers: Vec<&'static str>,
    pub(crate) sends: Answers<pb::SendMessageResponse>,
    pub(crate) acks: Answers<pb::AckMessageResponse>,
    pub(crate) changes: Answers<pb::ChangeInvisibleDurationResponse>,
    pub(crate) heartbeats: Answers<pb::HeartbeatResponse>,
    pub(crate) receives: VecDeque<Items>,
    /// Refusals of telemetry streams.
    pub(crate) refusals: VecDeque<Status>,
    /// Of the settings that clients are answered.
    pub(crate) backoff_ms: Option<i32>,
    /// Every answer waits for so long.
    pub(crate) delay: Duration,
    pub(crate) seen: Seen,
    pub(crate) producing: Producing,
    telemetry: Vec<mpsc::UnboundedSender<Result<pb::TelemetryCommand, Status>>>,
}

/// What was asked.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) calls: Vec<&'static str>,
    /// Of the requests, in the order of their arrival.
    pub(crate) headers: Vec<MetadataMap>,
    pub(crate) settings: Vec<pb::Settings>,
    pub(crate) sends: Vec<pb::Message>,
    pub(crate) sending: usize,
    pub(crate) sending_max: usize,
    pub(crate) acks: Vec<Vec<pb::AckMessageEntry>>,
    pub(crate) changes: Vec<pb::ChangeInvisibleDurationRequest>,
    pub(crate) dead: Vec<String>,
    pub(crate) receives: Vec<pb::ReceiveMessageRequest>,
    /// Receives whose client is gone before their end.
    pub(crate) cancelled: usize,
}

/// Of a receive stream.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Status(Code),
    Message(Box<pb::Message>),
    Raw(Box<Result<pb::ReceiveMessageResponse, Status>>),
    Pause(Duration),
    Break(Status),
    /// Nothing more until the client goes.
    Hang,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let (link, mut incoming) = Link::new();
        let fake = Self {
            link,
            state: Arc::default(),
            changed: Arc::default(),
            drained: watch::Sender::new(CancellationToken::new()),
        };
        let served = fake.clone();
        tokio::spawn(async move {
            while let Some(connection) = incoming.recv().await {
                let watched = served.clone();
                let watch = move |request: Request<()>| {
                    let mut state = watched.state();
                    state.seen.headers.push(request.metadata().clone());
                    Ok(request)
                };
                let service = MessagingServiceServer::with_interceptor(served.clone(), watch);
                let drained = served.drained.borrow().clone();
                let one = stream::iter([connection]).chain(stream::pending());
                let server = tonic::transport::Server::builder()
                    .layer(tower::util::MapRequestLayer::new(producing::note_host))
                    .add_service(service)
                    .serve_with_incoming_shutdown(one, drained.cancelled_owned());
                tokio::spawn(server);
            }
        });
        fake
    }

    pub(crate) fn config() -> Config {
        Config::new("fake:1").request_timeout(Duration::from_secs(1))
    }

    pub(crate) fn client(&self) -> Client {
        Client::with_connector(Self::config(), self.link.connector()).unwrap()
    }

    pub(crate) async fn consumer(&self) -> Consumer {
        self.client().consumer(consumer_config()).await.unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds what the next receive brings.
    pub(crate) fn push(&self, items: Items) {
        self.state().receives.push_back(items);
        self.changed.notify_waiters();
    }

    /// Sends a command to all clients.
    pub(crate) fn command(&self, command: &Command) {
        for stream in &self.state().telemetry {
            let _ = stream.send(Ok(pb::TelemetryCommand {
                status: None,
                command: Some(command.clone()),
            }));
        }
    }

    pub(crate) fn break_telemetry(&self) {
        for stream in self.state().telemetry.drain(..) {
            let _ = stream.send(Err(Status::unavailable("restart")));
        }
    }

    /// Connections so far take no new requests, those under way go on: a graceful restart.
    pub(crate) fn drain(&self) {
        self.drained.send_replace(CancellationToken::new()).cancel();
    }

    pub(crate) fn calls(&self, call: &str) -> usize {
        self.state()
            .seen
            .calls
            .iter()
            .filter(|it| **it == call)
            .count()
    }

    async fn enter(&self, call: &'static str) {
        let delay = {
            let mut state = self.state();
            state.seen.calls.push(call);
            state.delay
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

pub(crate) fn consumer_config() -> ConsumerConfig {
    ConsumerConfig::new(GROUP)
        .subscribe(TOPIC, Filter::all())
        .invisible_duration(Duration::from_secs(10))
}

/// Polls until it holds, for a minute at most.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

pub(crate) fn status(code: Code) -> Option<pb::Status> {
    Some(pb::Status {
        code: code.into(),
        message: "scripted".to_owned(),
    })
}

/// A message with the id `id` and the handle `h-id`.
pub(crate) fn message(id: &str) -> Item {
    Item::Message(Box::new(pb::Message {
        topic: None,
        user_properties: [("p".to_owned(), "v".to_owned())].into(),
        system_properties: Some(pb::SystemProperties {
            message_id: id.to_owned(),
            receipt_handle: Some(format!("h-{id}")),
            delivery_attempt: Some(1),
            body_encoding: pb::Encoding::Identity.into(),
            ..Default::default()
        }),
        body: "body".into(),
    }))
}

pub(crate) fn messages(ids: std::ops::Range<usize>) -> Vec<Item> {
    let mut items = vec![Item::Status(Code::Ok)];
    items.extend(ids.map(|n| message(&n.to_string())));
    items
}

/// A broker at each of the hosts.
pub(crate) fn route(code: Code, hosts: &[&str]) -> Result<pb::QueryRouteResponse, Status> {
    Ok(pb::QueryRouteResponse {
        status: status(code),
        message_queues: hosts.iter().map(|host| queue(host)).collect(),
    })
}

fn queue(host: &str) -> pb::MessageQueue {
    let address = pb::Address {
        host: host.to_owned(),
        port: 1,
    };
    pb::MessageQueue {
        topic: None,
        id: 0,
        permission: pb::Permission::ReadWrite.into(),
        broker: Some(pb::Broker {
            name: format!("broker-{host}"),
            id: 0,
            endpoints: Some(pb::Endpoints {
                scheme: pb::AddressScheme::DomainName.into(),
                addresses: vec![address],
            }),
        }),
        accept_message_types: vec![pb::MessageType::Normal.into()],
    }
}

pub(crate) fn result(entry: pb::AckMessageEntry, code: Code) -> pb::AckMessageResultEntry {
    pb::AckMessageResultEntry {
        message_id: entry.message_id,
        receipt_handle: entry.receipt_handle,
        status: status(code),
    }
}

fn retries_every(ms: i32) -> pb::RetryPolicy {
    let delay = prost_types::Duration {
        seconds: i64::from(ms / 1000),
        nanos: ms % 1000 * 1_000_000,
    };
    pb::RetryPolicy {
        max_attempts: 3,
        strategy: Some(pb::retry_policy::Strategy::CustomizedBackoff(
            pb::CustomizedBackoff { next: vec![delay] },
        )),
    }
}
