//! Where a part of the script plays: a server, names of its own, and the answers so far.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rocketmq_proto::v2::{self, receive_message_response::Content};
use serde_json::Value;
use tokio::time::Instant;
use tonic::Status;

use super::{
    caller::{Ask, Caller, Stub, ask, publishing, resource, settings_command, subscription},
    view,
};

/// How long a message that must come may take: the real server is up to 4 s late.
const COMES_WITHIN: Duration = Duration::from_secs(40);

/// A group that only looks.
pub(crate) const WITNESS: &str = "witness";

/// The answers of one part, in the order of its calls.
pub(crate) type Steps = Vec<(String, Value)>;

pub(crate) struct Scene {
    part: &'static str,
    stub: Stub,
    /// The name of the only broker in routes.
    broker: String,
    /// The start by both clocks: tests pause tokio's.
    began: (SystemTime, Instant),
    names: BTreeSet<String>,
    steps: Steps,
}

/// What a receive gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) status: Option<v2::Status>,
    pub(crate) messages: Vec<v2::Message>,
    /// `s`tatus, `m`essage, `t`ime of delivery.
    pub(crate) order: String,
}

impl Received {
    /// The handle of one message; garbage if it did not come, so that the script goes on and shows
    /// every difference.
    pub(crate) fn handle(&self, index: usize) -> String {
        self.messages
            .get(index)
            .and_then(|message| message.system_properties.as_ref()?.receipt_handle.clone())
            .unwrap_or_else(|| "it did not come".to_owned())
    }

    pub(crate) fn handles(&self) -> Vec<String> {
        (0..self.messages.len()).map(|i| self.handle(i)).collect()
    }
}

impl Scene {
    pub(crate) fn new(part: &'static str, stub: Stub, broker: &str) -> Self {
        Self {
            part,
            stub,
            broker: broker.to_owned(),
            began: (SystemTime::now(), Instant::now()),
            names: BTreeSet::new(),
            steps: Vec::new(),
        }
    }

    pub(crate) fn into_steps(self) -> Steps {
        self.steps
    }

    pub(crate) fn note(&mut self, step: &str, answer: Value) {
        let new = self.names.insert(step.to_owned());
        assert!(new, "{}: two steps are called {step:?}", self.part);
        self.steps.push((step.to_owned(), answer));
    }

    /// So many seconds from now, or before now.
    pub(crate) fn in_seconds(&self, seconds: i64) -> prost_types::Timestamp {
        let now = self.began.0 + self.began.1.elapsed();
        let since = now.duration_since(UNIX_EPOCH).unwrap();
        prost_types::Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap() + seconds,
            nanos: i32::try_from(since.subsec_millis()).unwrap() * 1_000_000,
        }
    }

    /// A client that has not introduced itself.
    pub(crate) fn stranger(&self, id: &str) -> Caller {
        Caller::new(self.stub.clone(), &format!("{}-{id}", self.part))
    }

    pub(crate) async fn producer(&mut self, id: &str, topics: &[&str]) -> Caller {
        self.introduce(id, publishing(topics)).await
    }

    pub(crate) async fn consumer(&mut self, id: &str, topic: &str, group: &str) -> Caller {
        self.introduce(id, subscription(topic, group)).await
    }

    /// A client that has sent these settings. Noted only if they are refused.
    pub(crate) async fn introduce(&mut self, id: &str, settings: v2::Settings) -> Caller {
        let mut caller = self.stranger(id);
        let answer = caller.telemetry(vec![settings_command(settings)]).await;
        let fine = matches!(&answer, Ok(Some(answer)) if answer.command.is_some());
        if !fine {
            let answer = view::answer(&answer, |answer| view::telemetry(answer.as_ref()));
            self.note(&format!("(setup) settings of {id}"), answer);
        }
        caller
    }

    pub(crate) async fn telemetry(
        &mut self,
        step: &str,
        by: &mut Caller,
        commands: Vec<v2::TelemetryCommand>,
    ) {
        let answer = by.telemetry(commands).await;
        self.note(
            step,
            view::answer(&answer, |answer| view::telemetry(answer.as_ref())),
        );
    }

    pub(crate) async fn settings(&mut self, step: &str, by: &mut Caller, settings: v2::Settings) {
        self.telemetry(step, by, vec![settings_command(settings)])
            .await;
    }

    pub(crate) async fn route(&mut self, step: &str, by: &Caller, request: v2::QueryRouteRequest) {
        let answer = by.stub.clone().query_route(by.request(request)).await;
        self.note(step, view::answer(&answer, |a| view::route(a.get_ref())));
    }

    pub(crate) async fn heartbeat(&mut self, step: &str, by: &Caller, group: Option<v2::Resource>) {
        self.heartbeat_as(step, by, group, v2::ClientType::PushConsumer)
            .await;
    }

    pub(crate) async fn heartbeat_as(
        &mut self,
        step: &str,
        by: &Caller,
        group: Option<v2::Resource>,
        kind: v2::ClientType,
    ) {
        let request = v2::HeartbeatRequest {
            group,
            client_type: kind.into(),
        };
        let answer = by.stub.clone().heartbeat(by.request(request)).await;
        self.note(
            step,
            view::answer(&answer, |a| view::only(a.get_ref().status.as_ref())),
        );
    }

    pub(crate) async fn terminate(&mut self, step: &str, by: &Caller, group: Option<v2::Resource>) {
        let request = by.request(v2::NotifyClientTerminationRequest { group });
        let answer = by.stub.clone().notify_client_termination(request).await;
        self.note(
            step,
            view::answer(&answer, |a| view::only(a.get_ref().status.as_ref())),
        );
    }

    pub(crate) async fn assignment(
        &mut self,
        step: &str,
        by: &Caller,
        request: v2::QueryAssignmentRequest,
    ) {
        let answer = by.stub.clone().query_assignment(by.request(request)).await;
        self.note(
            step,
            view::answer(&answer, |a| view::assignment(a.get_ref())),
        );
    }

    pub(crate) async fn send(
        &mut self,
        step: &str,
        by: &Caller,
        messages: Vec<v2::Message>,
    ) -> v2::SendMessageResponse {
        let answer = send(by, messages).await;
        self.note(step, view::answer(&answer, view::send));
        answer.unwrap_or_default()
    }

    /// Sends one by one what must be taken, and waits until a consumer can see all of it: the real
    /// server files messages a moment after it has confirmed them. Noted only if it goes wrong.
    pub(crate) async fn put(&mut self, by: &Caller, messages: Vec<v2::Message>) {
        let Some(topic) = messages.first().and_then(|message| message.topic.clone()) else {
            return;
        };
        let mut unseen: BTreeSet<String> = messages.iter().map(id).collect();
        for message in messages {
            let answer = send(by, vec![message]).await;
            let fine = answer.as_ref().is_ok_and(|a| {
                let status = a.status.as_ref();
                status.is_some_and(|status| status.code == i32::from(v2::Code::Ok))
            });
            if !fine {
                let step = format!("(setup) message {}", self.steps.len());
                self.note(&step, view::answer(&answer, view::send));
            }
        }
        let witness = self.consumer("witness", "any", WITNESS).await;
        let look = ask("any", WITNESS).queue(|queue| queue.topic = Some(topic));
        let until = Instant::now() + COMES_WITHIN;
        while !unseen.is_empty() && Instant::now() < until {
            match self.received(&witness, look.clone()).await {
                Ok(seen) => seen.messages.iter().map(id).for_each(|id| {
                    unseen.remove(&id);
                }),
                Err(status) => {
                    let step = format!("(setup) look {}", self.steps.len());
                    self.note(&step, view::answer(&Err::<(), _>(status), |()| Value::Null));
                    return;
                }
            }
        }
    }

    /// Receives and notes which messages came.
    pub(crate) async fn receive(&mut self, step: &str, by: &Caller, ask: Ask) -> Received {
        let answer = self.received(by, ask).await;
        self.note(step, view::answer(&answer, view::received));
        answer.unwrap_or_default()
    }

    /// Receives and notes all that is on the messages.
    pub(crate) async fn receive_whole(&mut self, step: &str, by: &Caller, ask: Ask) -> Received {
        let answer = self.received(by, ask).await;
        self.note(step, view::answer(&answer, view::received_whole));
        answer.unwrap_or_default()
    }

    /// Receives until something comes, and notes it.
    pub(crate) async fn receive_soon(&mut self, step: &str, by: &Caller, ask: Ask) -> Received {
        let answer = self.soon(by, ask).await;
        self.note(step, view::answer(&answer, view::received));
        answer.unwrap_or_default()
    }

    /// Receives until something comes, and notes all that is on it.
    pub(crate) async fn receive_whole_soon(
        &mut self,
        step: &str,
        by: &Caller,
        ask: Ask,
    ) -> Received {
        let answer = self.soon(by, ask).await;
        self.note(step, view::answer(&answer, view::received_whole));
        answer.unwrap_or_default()
    }

    async fn soon(&mut self, by: &Caller, ask: Ask) -> Result<Received, Status> {
        let until = Instant::now() + COMES_WITHIN;
        loop {
            let answer = self.received(by, ask.clone()).await?;
            let nothing = answer.messages.is_empty();
            if !nothing || Instant::now() >= until {
                return Ok(answer);
            }
        }
    }

    /// Receives `count` messages in as many receives as it takes, in any order. Noted by id.
    pub(crate) async fn gather(
        &mut self,
        step: &str,
        by: &Caller,
        ask: Ask,
        count: usize,
    ) -> Received {
        let until = Instant::now() + COMES_WITHIN;
        let mut all = Received::default();
        while all.messages.len() < count && Instant::now() < until {
            match self.received(by, ask.clone()).await {
                Ok(some) => {
                    all.status = some.status;
                    all.messages.extend(some.messages);
                }
                Err(status) => {
                    self.note(step, view::answer(&Err::<(), _>(status), |()| Value::Null));
                    return all;
                }
            }
        }
        all.messages.sort_by_key(id);
        all.order = format!("s{}t", "m".repeat(all.messages.len()));
        self.note(step, view::received(&all));
        all
    }

    async fn received(&self, by: &Caller, ask: Ask) -> Result<Received, Status> {
        let mut ask = ask;
        // Like every client, name the broker of the route, unless the ask names one.
        if let Some(queue) = &mut ask.request.message_queue
            && queue.broker.is_none()
        {
            queue.broker = Some(v2::Broker {
                name: self.broker.clone(),
                ..Default::default()
            });
        }
        let mut request = by.request(ask.request);
        if let Some(deadline) = ask.deadline {
            request.set_timeout(deadline);
        }
        let mut stream = by.stub.clone().receive_message(request).await?.into_inner();
        let mut received = Received::default();
        while let Some(item) = stream.message().await? {
            received.order.push(match item.content {
                Some(Content::Status(status)) => {
                    received.status = Some(status);
                    's'
                }
                Some(Content::Message(message)) => {
                    received.messages.push(message);
                    'm'
                }
                Some(Content::DeliveryTimestamp(_)) => 't',
                None => '?',
            });
        }
        Ok(received)
    }

    pub(crate) async fn ack(
        &mut self,
        step: &str,
        by: &Caller,
        topic: &str,
        group: &str,
        handles: &[String],
    ) {
        let entry = |(i, handle): (usize, &String)| v2::AckMessageEntry {
            message_id: format!("entry{i}"),
            receipt_handle: handle.clone(),
            lite_topic: None,
        };
        let request = v2::AckMessageRequest {
            group: resource(group),
            topic: resource(topic),
            entries: handles.iter().enumerate().map(entry).collect(),
        };
        self.ack_as(step, by, request).await;
    }

    pub(crate) async fn ack_as(&mut self, step: &str, by: &Caller, request: v2::AckMessageRequest) {
        let answer = by.stub.clone().ack_message(by.request(request)).await;
        self.note(step, view::answer(&answer, |a| view::ack(a.get_ref())));
    }

    /// Changes the invisible duration and returns the new handle.
    pub(crate) async fn change(
        &mut self,
        step: &str,
        by: &Caller,
        (topic, group): (&str, &str),
        handle: &str,
        duration: Option<prost_types::Duration>,
    ) -> String {
        let request = v2::ChangeInvisibleDurationRequest {
            group: resource(group),
            topic: resource(topic),
            receipt_handle: handle.to_owned(),
            invisible_duration: duration,
            message_id: "any".to_owned(),
            lite_topic: None,
            suspend: None,
        };
        self.change_as(step, by, request).await
    }

    pub(crate) async fn change_as(
        &mut self,
        step: &str,
        by: &Caller,
        request: v2::ChangeInvisibleDurationRequest,
    ) -> String {
        let request = by.request(request);
        let answer = by.stub.clone().change_invisible_duration(request).await;
        self.note(step, view::answer(&answer, |a| view::change(a.get_ref())));
        answer.map_or_else(|_| String::new(), |a| a.into_inner().receipt_handle)
    }

    pub(crate) async fn forward(
        &mut self,
        step: &str,
        by: &Caller,
        (topic, group): (&str, &str),
        handle: &str,
    ) {
        let request = v2::ForwardMessageToDeadLetterQueueRequest {
            group: resource(group),
            topic: resource(topic),
            receipt_handle: handle.to_owned(),
            message_id: "any".to_owned(),
            delivery_attempt: 1,
            max_delivery_attempts: 3,
            lite_topic: None,
        };
        self.forward_as(step, by, request).await;
    }

    pub(crate) async fn forward_as(
        &mut self,
        step: &str,
        by: &Caller,
        request: v2::ForwardMessageToDeadLetterQueueRequest,
    ) {
        let request = by.request(request);
        let mut stub = by.stub.clone();
        let answer = stub.forward_message_to_dead_letter_queue(request).await;
        self.note(
            step,
            view::answer(&answer, |a| view::only(a.get_ref().status.as_ref())),
        );
    }

    pub(crate) async fn end(
        &mut self,
        step: &str,
        by: &Caller,
        request: v2::EndTransactionRequest,
    ) {
        let answer = by.stub.clone().end_transaction(by.request(request)).await;
        self.note(
            step,
            view::answer(&answer, |a| view::only(a.get_ref().status.as_ref())),
        );
    }

    pub(crate) async fn recall(&mut self, step: &str, by: &Caller, topic: &str, handle: &str) {
        let request = v2::RecallMessageRequest {
            topic: resource(topic),
            recall_handle: handle.to_owned(),
        };
        let answer = by.stub.clone().recall_message(by.request(request)).await;
        self.note(step, view::answer(&answer, |a| view::recall(a.get_ref())));
    }
}

fn id(message: &v2::Message) -> String {
    let system = message.system_properties.clone();
    system.unwrap_or_default().message_id
}

async fn send(by: &Caller, messages: Vec<v2::Message>) -> Result<v2::SendMessageResponse, Status> {
    let request = by.request(v2::SendMessageRequest { messages });
    let answer = by.stub.clone().send_message(request).await;
    answer.map(tonic::Response::into_inner)
}
