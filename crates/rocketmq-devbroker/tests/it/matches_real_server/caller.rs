//! A raw client: the generated stub, its headers, and shorthands for requests.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rocketmq_proto::v2::{
    self, messaging_service_client::MessagingServiceClient, settings::PubSub,
    telemetry_command::Command,
};
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

pub(crate) type Stub = MessagingServiceClient<Channel>;

/// What the names of this run begin with, so that a server that outlives it is no trouble. It is
/// always as long, and never recorded.
pub(crate) static PREFIX: LazyLock<String> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("m{:09}-", since.as_millis() % 1_000_000_000)
});

/// The name on the wire of a topic or group of this run.
pub(crate) fn full(name: &str) -> String {
    format!("{}{name}", *PREFIX)
}

/// A topic or group of this run.
pub(crate) fn resource(name: &str) -> Option<v2::Resource> {
    literal(&full(name))
}

/// A topic or group that has this name on the wire.
pub(crate) fn literal(name: &str) -> Option<v2::Resource> {
    Some(v2::Resource {
        resource_namespace: String::new(),
        name: name.to_owned(),
    })
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// A plain message of type NORMAL.
pub(crate) fn message(topic: &str, id: &str) -> v2::Message {
    v2::Message {
        topic: resource(topic),
        user_properties: Default::default(),
        system_properties: Some(v2::SystemProperties {
            message_id: id.to_owned(),
            message_type: v2::MessageType::Normal.into(),
            body_encoding: v2::Encoding::Identity.into(),
            born_timestamp: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 5_000_000,
            }),
            born_host: "testhost".to_owned(),
            ..Default::default()
        }),
        body: b"hello".as_slice().into(),
    }
}

/// Changes of a message that read as one expression.
pub(crate) trait Edit: Sized {
    fn edit(self, change: impl FnOnce(&mut v2::SystemProperties)) -> Self;
    fn body(self, body: Vec<u8>) -> Self;
    fn property(self, key: &str, value: &str) -> Self;
    fn kind(self, kind: v2::MessageType) -> Self {
        self.edit(|system| system.message_type = kind.into())
    }
    fn tag(self, tag: &str) -> Self {
        self.edit(|system| system.tag = Some(tag.to_owned()))
    }
    fn keys(self, keys: &[&str]) -> Self {
        self.edit(|system| system.keys = keys.iter().map(|key| (*key).to_owned()).collect())
    }
    /// Of type FIFO, in this message group.
    fn group(self, group: &str) -> Self {
        self.kind(v2::MessageType::Fifo)
            .edit(|system| system.message_group = Some(group.to_owned()))
    }
    /// Of type DELAY, to be delivered at this time.
    fn deliver_at(self, at: prost_types::Timestamp) -> Self {
        self.kind(v2::MessageType::Delay)
            .edit(|system| system.delivery_timestamp = Some(at))
    }
}

impl Edit for v2::Message {
    fn edit(mut self, change: impl FnOnce(&mut v2::SystemProperties)) -> Self {
        change(self.system_properties.get_or_insert_default());
        self
    }

    fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body.into();
        self
    }

    fn property(mut self, key: &str, value: &str) -> Self {
        self.user_properties
            .insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A client: headers of its own, and a telemetry stream once it has introduced itself. The stream
/// ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) stub: Stub,
    headers: Vec<(&'static str, Vec<u8>)>,
    telemetry: Option<Arc<Telemetry>>,
}

#[derive(Debug)]
struct Telemetry {
    _commands: mpsc::Sender<v2::TelemetryCommand>,
    _answers: Streaming<v2::TelemetryCommand>,
}

const CLIENT_ID: &str = "x-mq-client-id";

impl Caller {
    pub(crate) fn new(stub: Stub, id: &str) -> Self {
        let caller = Self {
            stub,
            headers: Vec::new(),
            telemetry: None,
        };
        caller
            .with("x-mq-language", "RUST")
            .with("x-mq-protocol", "v2")
            .with("x-mq-client-version", "5.2.2")
            .with(CLIENT_ID, &full(id))
    }

    pub(crate) fn with(mut self, key: &'static str, value: &str) -> Self {
        self = self.without(key);
        self.headers.push((key, value.as_bytes().to_vec()));
        self
    }

    pub(crate) fn without(mut self, key: &'static str) -> Self {
        self.headers.retain(|(known, _)| *known != key);
        self
    }

    pub(crate) fn anonymous(self) -> Self {
        self.without(CLIENT_ID)
    }

    pub(crate) fn named(self, id: &str) -> Self {
        self.with(CLIENT_ID, id)
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (key, value) in &self.headers {
            let value = MetadataValue::try_from(value.as_slice()).unwrap();
            request.metadata_mut().insert(*key, value);
        }
        request
    }

    /// Opens a telemetry stream with these commands and returns its first answer.
    pub(crate) async fn telemetry(
        &mut self,
        first: Vec<v2::TelemetryCommand>,
    ) -> Result<Option<v2::TelemetryCommand>, Status> {
        let (commands, inbound) = mpsc::channel(first.len().max(1));
        for command in first {
            commands.send(command).await.unwrap();
        }
        let inbound = tokio_stream::wrappers::ReceiverStream::new(inbound);
        let request = self.request(inbound);
        let mut answers = self.stub.telemetry(request).await?.into_inner();
        let answer = answers.message().await?;
        self.telemetry = Some(Arc::new(Telemetry {
            _commands: commands,
            _answers: answers,
        }));
        Ok(answer)
    }
}

pub(crate) fn settings_command(settings: v2::Settings) -> v2::TelemetryCommand {
    v2::TelemetryCommand {
        status: None,
        command: Some(Command::Settings(settings)),
    }
}

/// The settings of a producer of these topics.
pub(crate) fn publishing(topics: &[&str]) -> v2::Settings {
    v2::Settings {
        client_type: Some(v2::ClientType::Producer.into()),
        pub_sub: Some(PubSub::Publishing(v2::Publishing {
            topics: topics.iter().filter_map(|topic| resource(topic)).collect(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub(crate) fn tags(expression: &str) -> Option<v2::FilterExpression> {
    Some(v2::FilterExpression {
        r#type: v2::FilterType::Tag.into(),
        expression: expression.to_owned(),
    })
}

pub(crate) fn sql(expression: &str) -> Option<v2::FilterExpression> {
    Some(v2::FilterExpression {
        r#type: v2::FilterType::Sql.into(),
        expression: expression.to_owned(),
    })
}

/// The settings of a push consumer of one topic.
pub(crate) fn subscription(topic: &str, group: &str) -> v2::Settings {
    let entry = v2::SubscriptionEntry {
        topic: resource(topic),
        expression: tags("*"),
    };
    v2::Settings {
        client_type: Some(v2::ClientType::PushConsumer.into()),
        pub_sub: Some(PubSub::Subscription(v2::Subscription {
            group: resource(group),
            subscriptions: vec![entry],
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Changes the subscription inside settings.
pub(crate) fn subscribed(
    mut settings: v2::Settings,
    change: impl FnOnce(&mut v2::Subscription),
) -> v2::Settings {
    if let Some(PubSub::Subscription(subscription)) = &mut settings.pub_sub {
        change(subscription);
    }
    settings
}

/// A receive: its request and its deadline.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) request: v2::ReceiveMessageRequest,
    pub(crate) deadline: Option<Duration>,
}

/// Asks for all that is there, for 30 s, and waits as short as the server lets it.
pub(crate) fn ask(topic: &str, group: &str) -> Ask {
    Ask {
        request: v2::ReceiveMessageRequest {
            group: resource(group),
            message_queue: Some(v2::MessageQueue {
                topic: resource(topic),
                id: -1,
                ..Default::default()
            }),
            filter_expression: tags("*"),
            batch_size: 32,
            invisible_duration: seconds(30),
            auto_renew: false,
            long_polling_timeout: seconds(5),
            attempt_id: None,
        },
        deadline: Some(Duration::from_secs(30)),
    }
}

impl Ask {
    pub(crate) fn edit(mut self, change: impl FnOnce(&mut v2::ReceiveMessageRequest)) -> Self {
        change(&mut self.request);
        self
    }

    pub(crate) fn queue(self, change: impl FnOnce(&mut v2::MessageQueue)) -> Self {
        self.edit(|request| change(request.message_queue.get_or_insert_default()))
    }

    pub(crate) fn batch(self, size: i32) -> Self {
        self.edit(|request| request.batch_size = size)
    }

    pub(crate) fn invisible(self, duration: Option<prost_types::Duration>) -> Self {
        self.edit(|request| request.invisible_duration = duration)
    }

    pub(crate) fn wait(self, duration: Option<prost_types::Duration>) -> Self {
        self.edit(|request| request.long_polling_timeout = duration)
    }

    pub(crate) fn filter(self, filter: Option<v2::FilterExpression>) -> Self {
        self.edit(|request| request.filter_expression = filter)
    }

    pub(crate) fn attempt(self, id: &str) -> Self {
        self.edit(|request| request.attempt_id = Some(id.to_owned()))
    }

    pub(crate) fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }
}
