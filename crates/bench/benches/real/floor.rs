//! The floor: raw calls, and nothing of a client. Errors end the run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rocketmq_proto::v2::{
    self as pb, messaging_service_client::MessagingServiceClient,
    receive_message_response::Content, settings::PubSub,
};
use tokio::{
    sync::{Mutex, Notify, mpsc},
    task::JoinSet,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Request,
    metadata::{MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    AnyError, body,
    figures::{Clock, Figures},
};

const RECEIVE_BATCH: i32 = 32;
const LEASE_SECONDS: i64 = 60;
const LONG_POLL_SECONDS: i64 = 5;
const ENTRIES_MAX: usize = 100_000;

/// How a run of the floor consumes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consume {
    /// Receives at once.
    pub(crate) loops: usize,
    /// Entries of one acknowledgement; none is sent if 0.
    pub(crate) ack_batch: usize,
    /// Acknowledgements at once.
    pub(crate) acks: usize,
}

/// One connection, registered with the server.
#[derive(Clone)]
struct Raw {
    stub: MessagingServiceClient<Channel>,
    metadata: MetadataMap,
    endpoints: pb::Endpoints,
    /// The telemetry stream lives as long as this.
    _commands: mpsc::Sender<pb::TelemetryCommand>,
}

/// A connection that sends to one topic.
#[derive(Clone)]
pub(crate) struct Sender {
    raw: Raw,
    topic: String,
}

pub(crate) async fn send(
    address: &str,
    topic: &str,
    count: usize,
    in_flight: usize,
) -> Result<Figures, AnyError> {
    let sender = Sender::open(address, topic).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let clock = Clock::start();
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (mut sender, next) = (sender.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let seq = next.fetch_add(1, Relaxed);
                if seq >= count {
                    return Ok::<_, AnyError>(());
                }
                sender.send(seq, body(seq)?).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(clock.stop(count))
}

/// From the first message to the last one that is received and acknowledged.
pub(crate) async fn consume(
    address: &str,
    topic: &str,
    group: &str,
    count: usize,
    how: Consume,
    see: impl Fn(&[u8]) + Clone + Send + 'static,
) -> Result<Figures, AnyError> {
    let entry = pb::SubscriptionEntry {
        topic: Some(resource(topic)),
        expression: Some(all()),
    };
    let subscription = pb::Subscription {
        group: Some(resource(group)),
        subscriptions: vec![entry],
        ..Default::default()
    };
    let raw = Raw::open(
        address,
        topic,
        pb::ClientType::PushConsumer,
        PubSub::Subscription(subscription),
    )
    .await?;
    let (entries, to_ack) = mpsc::channel(ENTRIES_MAX);
    let to_ack = Arc::new(Mutex::new(to_ack));
    let (left, first, done) = (
        Arc::new(AtomicUsize::new(count)),
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
    );
    let over = {
        let (left, done) = (left.clone(), done.clone());
        move |messages: usize| {
            if left.fetch_sub(messages, Relaxed) == messages {
                done.notify_one();
            }
        }
    };
    let mut tasks: JoinSet<Result<(), AnyError>> = JoinSet::new();
    for _ in 0..how.loops {
        let (mut raw, entries, first, over) =
            (raw.clone(), entries.clone(), first.clone(), over.clone());
        let see = see.clone();
        let (topic, group) = (topic.to_owned(), group.to_owned());
        tasks.spawn(async move {
            loop {
                let request = raw.receive(&topic, &group);
                let mut answer = raw.stub.receive_message(request).await?.into_inner();
                while let Some(item) = answer.next().await {
                    let Some(Content::Message(message)) = item?.content else {
                        continue;
                    };
                    see(&message.body);
                    first.notify_one();
                    if how.ack_batch == 0 {
                        over(1);
                        continue;
                    }
                    let system = message.system_properties.unwrap_or_default();
                    let entry = pb::AckMessageEntry {
                        message_id: system.message_id,
                        receipt_handle: system.receipt_handle.unwrap_or_default(),
                        ..Default::default()
                    };
                    entries.send(entry).await?;
                }
            }
        });
    }
    for _ in 0..if how.ack_batch == 0 { 0 } else { how.acks } {
        let (mut raw, to_ack, over) = (raw.clone(), to_ack.clone(), over.clone());
        let (topic, group) = (topic.to_owned(), group.to_owned());
        tasks.spawn(async move {
            loop {
                let mut batch = Vec::with_capacity(how.ack_batch);
                to_ack
                    .lock()
                    .await
                    .recv_many(&mut batch, how.ack_batch)
                    .await;
                let messages = batch.len();
                let request = raw.request(pb::AckMessageRequest {
                    group: Some(resource(&group)),
                    topic: Some(resource(&topic)),
                    entries: batch,
                });
                let answer = raw.stub.ack_message(request).await?.into_inner();
                check(answer.status)?;
                over(messages);
            }
        });
    }
    first.notified().await;
    let clock = Clock::start();
    tokio::select! {
        () = done.notified() => Ok(clock.stop(count)),
        Some(ended) = tasks.join_next() => Err(ended?.err().unwrap_or_else(|| "a loop ended".into())),
    }
}

impl Sender {
    pub(crate) async fn open(address: &str, topic: &str) -> Result<Self, AnyError> {
        let publishing = pb::Publishing {
            topics: vec![resource(topic)],
            max_body_size: 4 << 20,
            validate_message_type: false,
        };
        let settings = PubSub::Publishing(publishing);
        Ok(Self {
            raw: Raw::open(address, topic, pb::ClientType::Producer, settings).await?,
            topic: topic.to_owned(),
        })
    }

    pub(crate) async fn send(&mut self, seq: usize, body: Vec<u8>) -> Result<(), AnyError> {
        let system = pb::SystemProperties {
            message_id: format!("01{seq:030X}"),
            message_type: pb::MessageType::Normal.into(),
            body_encoding: pb::Encoding::Identity.into(),
            ..Default::default()
        };
        let message = pb::Message {
            topic: Some(resource(&self.topic)),
            body: body.into(),
            system_properties: Some(system),
            ..Default::default()
        };
        let request = self.raw.request(pb::SendMessageRequest {
            messages: vec![message],
        });
        check(
            self.raw
                .stub
                .send_message(request)
                .await?
                .into_inner()
                .status,
        )
    }
}

impl Raw {
    async fn open(
        address: &str,
        topic: &str,
        client_type: pb::ClientType,
        pub_sub: PubSub,
    ) -> Result<Self, AnyError> {
        let channel = Endpoint::try_from(format!("http://{address}"))?
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .tcp_nodelay(true)
            .connect()
            .await?;
        let (host, port) = address.rsplit_once(':').ok_or("no port")?;
        let endpoints = pb::Endpoints {
            scheme: pb::AddressScheme::IPv4.into(),
            addresses: vec![pb::Address {
                host: host.to_owned(),
                port: port.parse()?,
            }],
        };
        let mut metadata = MetadataMap::new();
        let id = format!("floor@{}", std::process::id());
        metadata.insert("x-mq-client-id", id.parse()?);
        for (name, value) in [
            ("x-mq-language", "RUST"),
            ("x-mq-protocol", "v2"),
            ("x-mq-client-version", "5.1.0"),
        ] {
            metadata.insert(name, MetadataValue::from_static(value));
        }
        let (commands, outgoing) = mpsc::channel(4);
        let mut raw = Self {
            stub: MessagingServiceClient::new(channel).max_decoding_message_size(200 << 20),
            metadata,
            endpoints,
            _commands: commands.clone(),
        };
        let settings = pb::Settings {
            client_type: Some(client_type.into()),
            access_point: Some(raw.endpoints.clone()),
            pub_sub: Some(pub_sub),
            ..Default::default()
        };
        let command = pb::TelemetryCommand {
            command: Some(pb::telemetry_command::Command::Settings(settings)),
            ..Default::default()
        };
        commands.send(command).await?;
        let request = raw.request(ReceiverStream::new(outgoing));
        let mut answers = raw.stub.telemetry(request).await?.into_inner();
        answers.next().await.ok_or("no settings")??;
        tokio::spawn(async move { while let Some(Ok(_)) = answers.next().await {} });
        let request = raw.request(pb::QueryRouteRequest {
            topic: Some(resource(topic)),
            endpoints: Some(raw.endpoints.clone()),
        });
        raw.stub.query_route(request).await?;
        Ok(raw)
    }

    fn receive(&self, topic: &str, group: &str) -> Request<pb::ReceiveMessageRequest> {
        let broker = pb::Broker {
            name: "broker-a".to_owned(),
            id: 0,
            endpoints: Some(self.endpoints.clone()),
        };
        let queue = pb::MessageQueue {
            topic: Some(resource(topic)),
            id: -1,
            permission: pb::Permission::ReadWrite.into(),
            broker: Some(broker),
            accept_message_types: vec![pb::MessageType::Normal.into()],
        };
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let mut request = self.request(pb::ReceiveMessageRequest {
            group: Some(resource(group)),
            message_queue: Some(queue),
            filter_expression: Some(all()),
            batch_size: RECEIVE_BATCH,
            invisible_duration: seconds(LEASE_SECONDS),
            auto_renew: false,
            long_polling_timeout: seconds(LONG_POLL_SECONDS),
            attempt_id: None,
        });
        request.set_timeout(Duration::from_secs(10));
        request
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), tonic::Extensions::new(), message)
    }
}

fn resource(name: &str) -> pb::Resource {
    pb::Resource {
        name: name.to_owned(),
        ..Default::default()
    }
}

fn all() -> pb::FilterExpression {
    pb::FilterExpression {
        r#type: pb::FilterType::Tag.into(),
        expression: "*".to_owned(),
    }
}

fn check(status: Option<pb::Status>) -> Result<(), AnyError> {
    let status = status.ok_or("no status")?;
    if status.code == i32::from(pb::Code::Ok) {
        return Ok(());
    }
    Err(format!("{}: {}", status.code, status.message).into())
}
