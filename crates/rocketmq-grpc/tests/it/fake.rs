//! A server that does what the test says: the faults that a well-behaved broker does not have.

pub(crate) mod producing;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use rocketmq_grpc::{Client, Config, Consumer, ConsumerConfig, Filter};
use rocketmq_proto::v2::{
    self as pb, Code,
    messaging_service_server::{MessagingService, MessagingServiceServer},
    receive_message_response::Content,
    settings::PubSub,
    telemetry_command::Command,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

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

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Counts a receive whose client goes before its end.
struct Watch(Fake, bool);

impl Watch {
    fn end(&mut self) {
        self.1 = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.1 {
            self.0.state().seen.cancelled += 1;
        }
    }
}

#[tonic::async_trait]
impl MessagingService for Fake {
    type ReceiveMessageStream = BoxStream<pb::ReceiveMessageResponse>;
    type PullMessageStream = BoxStream<pb::PullMessageResponse>;
    type TelemetryStream = BoxStream<pb::TelemetryCommand>;

    async fn query_route(
        &self,
        request: Request<pb::QueryRouteRequest>,
    ) -> Result<Response<pb::QueryRouteResponse>, Status> {
        self.enter("route").await;
        let topic = request.into_inner().topic.unwrap_or_default().name;
        let mut state = self.state();
        let hosts = match &*state.brokers {
            [] => &["fake"],
            hosts => hosts,
        };
        let mut answer = if topic == TOPIC {
            route(Code::Ok, hosts)
        } else {
            route(Code::TopicNotFound, &[])
        };
        if let Ok(answer) = &mut answer
            && !state.producing.accepts.is_empty()
        {
            let accepts = state.producing.accepts.iter().map(|it| *it as i32);
            let accepts: Vec<_> = accepts.collect();
            for queue in &mut answer.message_queues {
                queue.accept_message_types.clone_from(&accepts);
            }
        }
        state.routes.pop_front().unwrap_or(answer).map(Into::into)
    }

    async fn heartbeat(
        &self,
        _: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        self.enter("heartbeat").await;
        let scripted = self.state().heartbeats.pop_front();
        scripted
            .unwrap_or_else(|| {
                Ok(pb::HeartbeatResponse {
                    status: status(Code::Ok),
                })
            })
            .map(Into::into)
    }

    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        self.note_call("send", &request);
        let messages = request.into_inner().messages;
        {
            let mut state = self.state();
            state.producing.seen_sizes.push(messages.len());
            state.seen.sends.extend(messages.iter().cloned());
            state.seen.sending += 1;
            state.seen.sending_max = state.seen.sending_max.max(state.seen.sending);
        }
        self.enter("send").await;
        let mut state = self.state();
        state.seen.sending -= 1;
        let scripted = state.sends.pop_front();
        let answer = scripted.unwrap_or_else(|| producing::stored(&messages));
        answer.map(Into::into)
    }

    async fn receive_message(
        &self,
        request: Request<pb::ReceiveMessageRequest>,
    ) -> Result<Response<Self::ReceiveMessageStream>, Status> {
        let long_poll = request
            .get_ref()
            .long_polling_timeout
            .map_or(0, |it| it.seconds);
        self.state().seen.receives.push(request.into_inner());
        self.enter("receive").await;
        let poll_end = Duration::from_secs(u64::try_from(long_poll).unwrap());
        let fake = self.clone();
        let mut watch = Watch(self.clone(), false);
        let items = stream::once(async move {
            let waited = tokio::time::timeout(poll_end, async {
                loop {
                    let changed = fake.changed.notified();
                    if let Some(items) = fake.state().receives.pop_front() {
                        return items;
                    }
                    changed.await;
                }
            });
            let items = waited
                .await
                .unwrap_or_else(|_| vec![Item::Status(Code::MessageNotFound)]);
            stream::iter(items.into_iter().map(Some).chain([None])).filter_map(move |item| {
                let content = match item {
                    None => {
                        watch.end();
                        None
                    }
                    Some(Item::Status(code)) => Some(Ok(Content::Status(status(code).unwrap()))),
                    Some(Item::Message(message)) => Some(Ok(Content::Message(*message))),
                    Some(Item::Break(status)) => Some(Err(status)),
                    Some(Item::Raw(item)) => {
                        return Box::pin(std::future::ready(Some(*item))) as Wait;
                    }
                    Some(Item::Pause(pause)) => return wait(Some(pause)),
                    Some(Item::Hang) => return wait(None),
                };
                let item = content.map(|it| {
                    it.map(|content| pb::ReceiveMessageResponse {
                        content: Some(content),
                    })
                });
                Box::pin(std::future::ready(item)) as Wait
            })
        })
        .flatten();
        Ok(Response::new(Box::pin(items)))
    }

    async fn ack_message(
        &self,
        request: Request<pb::AckMessageRequest>,
    ) -> Result<Response<pb::AckMessageResponse>, Status> {
        let entries = request.into_inner().entries;
        self.state().seen.acks.push(entries.clone());
        self.enter("ack").await;
        let fine = || {
            let entries = entries.into_iter().map(|it| result(it, Code::Ok)).collect();
            Ok(pb::AckMessageResponse {
                status: status(Code::Ok),
                entries,
            })
        };
        let scripted = self.state().acks.pop_front();
        scripted.unwrap_or_else(fine).map(Into::into)
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<pb::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Result<Response<pb::ForwardMessageToDeadLetterQueueResponse>, Status> {
        self.state().seen.dead.push(request.into_inner().message_id);
        self.enter("dead letter").await;
        Ok(pb::ForwardMessageToDeadLetterQueueResponse {
            status: status(Code::Ok),
        }
        .into())
    }

    async fn change_invisible_duration(
        &self,
        request: Request<pb::ChangeInvisibleDurationRequest>,
    ) -> Result<Response<pb::ChangeInvisibleDurationResponse>, Status> {
        let request = request.into_inner();
        let handle = format!("{}+", request.receipt_handle);
        self.state().seen.changes.push(request);
        self.enter("change").await;
        let fine = || {
            Ok(pb::ChangeInvisibleDurationResponse {
                status: status(Code::Ok),
                receipt_handle: handle,
            })
        };
        let scripted = self.state().changes.pop_front();
        scripted.unwrap_or_else(fine).map(Into::into)
    }

    async fn telemetry(
        &self,
        request: Request<Streaming<pb::TelemetryCommand>>,
    ) -> Result<Response<Self::TelemetryStream>, Status> {
        self.enter("telemetry").await;
        let refusal = self.state().refusals.pop_front();
        if let Some(status) = refusal {
            return Err(status);
        }
        let (to_client, commands) = mpsc::unbounded_channel();
        let mut from_client = request.into_inner();
        let fake = self.clone();
        self.state().telemetry.push(to_client.clone());
        tokio::spawn(async move {
            while let Ok(Some(command)) = from_client.message().await {
                if let Some(Command::Settings(mut settings)) = command.command {
                    fake.enter("settings").await;
                    fake.state().seen.settings.push(settings.clone());
                    if let Some(PubSub::Publishing(it)) = &mut settings.pub_sub {
                        it.validate_message_type = true;
                    }
                    let backoff_policy = fake.state().backoff_ms.map(retries_every);
                    let command = Some(Command::Settings(pb::Settings {
                        backoff_policy,
                        ..settings
                    }));
                    let _ = to_client.send(Ok(pb::TelemetryCommand {
                        status: None,
                        command,
                    }));
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            commands,
        ))))
    }

    async fn notify_client_termination(
        &self,
        _: Request<pb::NotifyClientTerminationRequest>,
    ) -> Result<Response<pb::NotifyClientTerminationResponse>, Status> {
        self.enter("termination").await;
        Ok(pb::NotifyClientTerminationResponse {
            status: status(Code::Ok),
        }
        .into())
    }

    async fn query_assignment(
        &self,
        _: Request<pb::QueryAssignmentRequest>,
    ) -> Result<Response<pb::QueryAssignmentResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn pull_message(
        &self,
        _: Request<pb::PullMessageRequest>,
    ) -> Result<Response<Self::PullMessageStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn update_offset(
        &self,
        _: Request<pb::UpdateOffsetRequest>,
    ) -> Result<Response<pb::UpdateOffsetResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn get_offset(
        &self,
        _: Request<pb::GetOffsetRequest>,
    ) -> Result<Response<pb::GetOffsetResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn query_offset(
        &self,
        _: Request<pb::QueryOffsetRequest>,
    ) -> Result<Response<pb::QueryOffsetResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn end_transaction(
        &self,
        request: Request<pb::EndTransactionRequest>,
    ) -> Result<Response<pb::EndTransactionResponse>, Status> {
        self.end(request).await
    }

    async fn recall_message(
        &self,
        request: Request<pb::RecallMessageRequest>,
    ) -> Result<Response<pb::RecallMessageResponse>, Status> {
        self.recall(request).await
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<pb::SyncLiteSubscriptionRequest>,
    ) -> Result<Response<pb::SyncLiteSubscriptionResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
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

type Wait =
    Pin<Box<dyn Future<Output = Option<Result<pb::ReceiveMessageResponse, Status>>> + Send>>;

/// `None`: for ever.
fn wait(pause: Option<Duration>) -> Wait {
    Box::pin(async move {
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
        None
    })
}
