//! A raw client: the generated stub, the headers, and shorthands for requests.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker};
use rocketmq_proto::v2::{
    self, messaging_service_client::MessagingServiceClient, receive_message_response::Content,
    settings::PubSub, telemetry_command::Command,
};
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    metadata::{KeyAndValueRef, MetadataMap},
    transport::{Channel, Endpoint},
};

/// A client with an id, and its telemetry stream once it has introduced itself.
pub(crate) struct Client {
    pub(crate) stub: MessagingServiceClient<Channel>,
    pub(crate) id: String,
    /// What every request carries besides the usual headers.
    pub(crate) headers: MetadataMap,
    telemetry: Option<(
        mpsc::Sender<v2::TelemetryCommand>,
        Streaming<v2::TelemetryCommand>,
    )>,
}

/// What a receive gave, in the order of the stream.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) messages: Vec<v2::Message>,
    /// `s`tatus, `m`essage, `t`ime of delivery.
    pub(crate) order: String,
    pub(crate) code: i32,
    pub(crate) text: String,
}

pub(crate) fn resource(name: &str) -> Option<v2::Resource> {
    Some(v2::Resource {
        resource_namespace: String::new(),
        name: name.to_owned(),
    })
}

pub(crate) fn wire(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

pub(crate) fn message(topic: &str, id: &str) -> v2::Message {
    v2::Message {
        topic: resource(topic),
        user_properties: [("colour".to_owned(), "red".to_owned())].into(),
        system_properties: Some(v2::SystemProperties {
            message_id: id.to_owned(),
            message_type: v2::MessageType::Normal.into(),
            body_encoding: v2::Encoding::Identity.into(),
            born_timestamp: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            born_host: "testhost".to_owned(),
            ..Default::default()
        }),
        body: b"hello".as_slice().into(),
    }
}

pub(crate) fn system(message: &mut v2::Message) -> &mut v2::SystemProperties {
    message.system_properties.as_mut().unwrap()
}

pub(crate) fn id(message: &v2::Message) -> &str {
    &message.system_properties.as_ref().unwrap().message_id
}

pub(crate) fn handle(message: &v2::Message) -> String {
    message
        .system_properties
        .as_ref()
        .unwrap()
        .receipt_handle
        .clone()
        .unwrap()
}

pub(crate) fn attempt(message: &v2::Message) -> i32 {
    message
        .system_properties
        .as_ref()
        .unwrap()
        .delivery_attempt
        .unwrap()
}

pub(crate) fn code(status: Option<&v2::Status>) -> Code {
    Code::try_from(status.unwrap().code).unwrap()
}

impl Client {
    /// Connects in memory.
    pub(crate) async fn embedded(broker: &DevBroker, id: &str) -> Self {
        let endpoint = Endpoint::from_static("http://devbroker.invalid");
        let channel = endpoint
            .connect_with_connector(broker.connector())
            .await
            .unwrap();
        Self::over(channel, id)
    }

    /// Connects over the socket.
    pub(crate) async fn dial(broker: &DevBroker, id: &str) -> Self {
        Self::dial_addr(broker.addr().unwrap(), id).await
    }

    pub(crate) async fn dial_addr(addr: std::net::SocketAddr, id: &str) -> Self {
        let endpoint = format!("http://{addr}");
        Self::over(
            Endpoint::from_shared(endpoint)
                .unwrap()
                .connect()
                .await
                .unwrap(),
            id,
        )
    }

    pub(crate) fn over(channel: Channel, id: &str) -> Self {
        let stub = MessagingServiceClient::new(channel).max_decoding_message_size(200 << 20);
        Self {
            stub,
            id: id.to_owned(),
            headers: MetadataMap::new(),
            telemetry: None,
        }
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        for (key, value) in [
            ("x-mq-language", "RUST"),
            ("x-mq-protocol", "v2"),
            ("x-mq-client-version", "5.2.2"),
        ] {
            metadata.insert(key, value.parse().unwrap());
        }
        metadata.insert("x-mq-client-id", self.id.parse().unwrap());
        for entry in self.headers.iter() {
            if let KeyAndValueRef::Ascii(key, value) = entry {
                metadata.insert(key, value.clone());
            }
        }
        request
    }

    pub(crate) async fn settings(
        &mut self,
        settings: v2::Settings,
    ) -> Result<v2::Settings, Status> {
        let (commands, inbound) = mpsc::channel(1);
        let command = Some(Command::Settings(settings));
        commands
            .send(v2::TelemetryCommand {
                status: None,
                command,
            })
            .await
            .unwrap();
        let inbound = tokio_stream::wrappers::ReceiverStream::new(inbound);
        let request = self.request(inbound);
        let mut stream = self.stub.telemetry(request).await?.into_inner();
        let reply = stream.message().await?.expect("a reply to settings");
        assert_eq!(code(reply.status.as_ref()), Code::Ok);
        let Some(Command::Settings(settings)) = reply.command else {
            panic!("{reply:?}")
        };
        self.telemetry = Some((commands, stream));
        Ok(settings)
    }

    /// The next command on the telemetry stream; none at its end.
    pub(crate) async fn command(&mut self) -> Option<v2::TelemetryCommand> {
        let (_, stream) = self.telemetry.as_mut().unwrap();
        stream.message().await.ok().flatten()
    }

    pub(crate) fn leave_telemetry(&mut self) {
        self.telemetry = None;
    }

    pub(crate) async fn produce(&mut self, topic: &str) -> v2::Settings {
        let publishing = v2::Publishing {
            topics: resource(topic).into_iter().collect(),
            ..Default::default()
        };
        let settings = v2::Settings {
            client_type: Some(v2::ClientType::Producer.into()),
            pub_sub: Some(PubSub::Publishing(publishing)),
            ..Default::default()
        };
        self.settings(settings).await.unwrap()
    }

    fn subscription(topic: &str, group: &str) -> v2::Settings {
        let entry = v2::SubscriptionEntry {
            topic: resource(topic),
            expression: None,
        };
        let subscription = v2::Subscription {
            group: resource(group),
            subscriptions: vec![entry],
            ..Default::default()
        };
        v2::Settings {
            client_type: Some(v2::ClientType::PushConsumer.into()),
            pub_sub: Some(PubSub::Subscription(subscription)),
            ..Default::default()
        }
    }

    pub(crate) async fn consume(
        &mut self,
        topic: &str,
        group: &str,
    ) -> Result<v2::Settings, Status> {
        self.settings(Self::subscription(topic, group)).await
    }

    pub(crate) async fn consume_filtered(
        &mut self,
        topic: &str,
        group: &str,
        filter: v2::FilterExpression,
    ) -> Result<v2::Settings, Status> {
        let mut settings = Self::subscription(topic, group);
        if let Some(PubSub::Subscription(subscription)) = &mut settings.pub_sub {
            subscription.subscriptions[0].expression = Some(filter);
        }
        self.settings(settings).await
    }

    /// The first reply to settings, whatever it is.
    pub(crate) async fn consume_raw(&mut self, topic: &str, group: &str) -> v2::TelemetryCommand {
        let command = Some(Command::Settings(Self::subscription(topic, group)));
        let commands = [v2::TelemetryCommand {
            status: None,
            command,
        }];
        let request = self.request(tokio_stream::iter(commands));
        let mut stream = self.stub.telemetry(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap()
    }

    pub(crate) async fn send(&self, messages: Vec<v2::Message>) -> v2::SendMessageResponse {
        let request = self.request(v2::SendMessageRequest { messages });
        self.stub
            .clone()
            .send_message(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Sends one message that must be taken.
    pub(crate) async fn put(&self, topic: &str, id: &str) {
        let answer = self.send(vec![message(topic, id)]).await;
        assert_eq!(code(answer.status.as_ref()), Code::Ok, "{answer:?}");
    }

    pub(crate) fn ask(topic: &str, group: &str) -> v2::ReceiveMessageRequest {
        v2::ReceiveMessageRequest {
            group: resource(group),
            message_queue: Some(v2::MessageQueue {
                topic: resource(topic),
                ..Default::default()
            }),
            filter_expression: None,
            batch_size: 32,
            invisible_duration: wire(Duration::from_secs(30)),
            auto_renew: false,
            long_polling_timeout: wire(Duration::from_secs(5)),
            attempt_id: None,
        }
    }

    pub(crate) async fn receive(&self, topic: &str, group: &str) -> Received {
        self.receive_as(Self::ask(topic, group)).await
    }

    pub(crate) async fn receive_as(&self, ask: v2::ReceiveMessageRequest) -> Received {
        self.try_receive(ask, Duration::from_secs(25))
            .await
            .unwrap()
    }

    pub(crate) async fn try_receive(
        &self,
        ask: v2::ReceiveMessageRequest,
        deadline: Duration,
    ) -> Result<Received, Status> {
        let mut request = self.request(ask);
        request.set_timeout(deadline);
        let mut stream = self
            .stub
            .clone()
            .receive_message(request)
            .await?
            .into_inner();
        let mut received = Received::default();
        while let Some(item) = stream.message().await? {
            match item.content.unwrap() {
                Content::Status(status) => {
                    received.order.push('s');
                    received.code = status.code;
                    received.text = status.message;
                }
                Content::Message(message) => {
                    received.order.push('m');
                    received.messages.push(message);
                }
                Content::DeliveryTimestamp(_) => received.order.push('t'),
            }
        }
        Ok(received)
    }

    /// The messages of a receive, and the error that it breaks with.
    pub(crate) async fn receive_until_error(
        &self,
        ask: v2::ReceiveMessageRequest,
    ) -> (Vec<v2::Message>, Option<Status>) {
        let mut request = self.request(ask);
        request.set_timeout(Duration::from_secs(25));
        let stream = self.stub.clone().receive_message(request).await;
        let mut stream = stream.unwrap().into_inner();
        let mut messages = Vec::new();
        loop {
            match stream.message().await {
                Ok(None) => return (messages, None),
                Ok(Some(item)) => {
                    if let Some(Content::Message(message)) = item.content {
                        messages.push(message);
                    }
                }
                Err(status) => return (messages, Some(status)),
            }
        }
    }

    pub(crate) async fn ack(
        &self,
        topic: &str,
        group: &str,
        handles: &[String],
    ) -> v2::AckMessageResponse {
        self.try_ack(topic, group, handles).await.unwrap()
    }

    pub(crate) async fn try_ack(
        &self,
        topic: &str,
        group: &str,
        handles: &[String],
    ) -> Result<v2::AckMessageResponse, Status> {
        let entry = |handle: &String| v2::AckMessageEntry {
            message_id: "any".to_owned(),
            receipt_handle: handle.clone(),
            lite_topic: None,
        };
        let request = self.request(v2::AckMessageRequest {
            group: resource(group),
            topic: resource(topic),
            entries: handles.iter().map(entry).collect(),
        });
        Ok(self.stub.clone().ack_message(request).await?.into_inner())
    }

    pub(crate) async fn change(
        &self,
        topic: &str,
        group: &str,
        handle: &str,
        invisible: Duration,
    ) -> v2::ChangeInvisibleDurationResponse {
        let request = self.request(v2::ChangeInvisibleDurationRequest {
            group: resource(group),
            topic: resource(topic),
            receipt_handle: handle.to_owned(),
            invisible_duration: wire(invisible),
            ..Default::default()
        });
        self.stub
            .clone()
            .change_invisible_duration(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn forward(&self, topic: &str, group: &str, handle: &str) -> Code {
        let request = self.request(v2::ForwardMessageToDeadLetterQueueRequest {
            group: resource(group),
            topic: resource(topic),
            receipt_handle: handle.to_owned(),
            ..Default::default()
        });
        let answer = self
            .stub
            .clone()
            .forward_message_to_dead_letter_queue(request)
            .await;
        code(answer.unwrap().into_inner().status.as_ref())
    }

    pub(crate) async fn route(&self, topic: &str) -> v2::QueryRouteResponse {
        self.try_route(topic).await.unwrap()
    }

    pub(crate) async fn try_route(&self, topic: &str) -> Result<v2::QueryRouteResponse, Status> {
        let request = v2::QueryRouteRequest {
            topic: resource(topic),
            endpoints: None,
        };
        let answer = self.stub.clone().query_route(self.request(request)).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn heartbeat(&self, group: Option<&str>) -> v2::Status {
        let request = v2::HeartbeatRequest {
            group: group.and_then(resource),
            client_type: v2::ClientType::PushConsumer.into(),
        };
        let answer = self
            .stub
            .clone()
            .heartbeat(self.request(request))
            .await
            .unwrap();
        answer.into_inner().status.unwrap()
    }

    pub(crate) async fn terminate(&self) -> Code {
        // A consumer must name a group, any group; of a producer it is not looked at.
        let request = self.request(v2::NotifyClientTerminationRequest {
            group: resource("g"),
        });
        let answer = self
            .stub
            .clone()
            .notify_client_termination(request)
            .await
            .unwrap();
        code(answer.into_inner().status.as_ref())
    }
}
