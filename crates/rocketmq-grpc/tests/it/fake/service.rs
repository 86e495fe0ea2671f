//! What it answers, call by call: by the script, and beyond it that all is well.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use rocketmq_proto::v2::{
    self as pb, Code, messaging_service_server::MessagingService,
    receive_message_response::Content, settings::PubSub, telemetry_command::Command,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Fake, Item, TOPIC, producing, result, retries_every, route, status};

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
