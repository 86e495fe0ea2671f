//! The gRPC service: wire types to operations of the state machine and back, nothing else.

mod convert;
mod fault;
mod receive;
mod request;
mod telemetry;
#[cfg(test)]
mod tests;

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use rocketmq_proto::v2::{self, messaging_service_server::MessagingService};
use tonic::{Request, Response, Status, Streaming};

use self::{
    convert::{duration, name, ok, queue, send_answer},
    request::Context,
};
use crate::{
    core::Core,
    state::{self, End, Refusal},
};

pub(crate) use self::{fault::Fault, request::Peer};

/// Names the only broker of a route.
const BROKER_NAME: &str = "devbroker";

type Reply<T> = Result<Response<T>, Status>;
type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service on one connection or many: state lives in the core.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    core: Arc<Core>,
}

impl Service {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn route(&self, topic: Option<&v2::Resource>) -> Result<Vec<v2::MessageQueue>, Refusal> {
        let full = name(topic);
        let endpoints = self.core.endpoints();
        self.core.with(|state, _| {
            let found = state.open_topic(&full)?;
            let types = found.accepts();
            let queues = (0..found.queue_count()).map(|id| queue(topic, id, &endpoints, types));
            Ok(queues.collect())
        })
    }

    fn ack_entries(
        &self,
        request: v2::AckMessageRequest,
    ) -> Result<Vec<v2::AckMessageResultEntry>, Refusal> {
        let topic = name(request.topic.as_ref());
        let group = name(request.group.as_ref());
        state::check_acks(&topic, &group, request.entries.len())?;
        self.core.with(|state, now| {
            let entries = request.entries.into_iter().map(|entry| {
                let settled = state.ack(now, &topic, &group, &entry.receipt_handle);
                v2::AckMessageResultEntry {
                    message_id: entry.message_id,
                    receipt_handle: entry.receipt_handle,
                    status: Some(settled.map_or_else(Into::into, |()| ok())),
                }
            });
            Ok(entries.collect())
        })
    }
}

/// The status of several results: theirs if they agree.
fn overall(entries: &[v2::AckMessageResultEntry]) -> v2::Status {
    let mut codes = entries
        .iter()
        .filter_map(|entry| entry.status.as_ref())
        .map(|s| s.code);
    let first = codes.next().unwrap_or_default();
    let code = if codes.all(|code| code == first) {
        v2::Code::try_from(first).unwrap_or_default()
    } else {
        v2::Code::MultipleResults
    };
    v2::Status {
        code: code.into(),
        message: code.as_str_name().to_owned(),
    }
}

/// Splits a result into the status of an answer and its content.
fn parts<T: Default>(result: Result<T, Refusal>) -> (Option<v2::Status>, T) {
    match result {
        Ok(content) => (Some(ok()), content),
        Err(refusal) => (Some(refusal.into()), T::default()),
    }
}

#[tonic::async_trait]
impl MessagingService for Service {
    type ReceiveMessageStream = ReplyStream<v2::ReceiveMessageResponse>;
    type PullMessageStream = ReplyStream<v2::PullMessageResponse>;
    type TelemetryStream = ReplyStream<v2::TelemetryCommand>;

    async fn query_route(
        &self,
        request: Request<v2::QueryRouteRequest>,
    ) -> Reply<v2::QueryRouteResponse> {
        let result = Context::of(&request)
            .client()
            .and_then(|_| self.route(request.get_ref().topic.as_ref()));
        let (status, message_queues) = parts(result);
        Ok(Response::new(v2::QueryRouteResponse {
            status,
            message_queues,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<v2::HeartbeatRequest>,
    ) -> Reply<v2::HeartbeatResponse> {
        let cx = Context::of(&request);
        let group = name(request.into_inner().group.as_ref());
        let result = cx.client().and_then(|id| {
            self.core.with(|state, _| state.heartbeat(id, &group))?;
            cx.language()
        });
        let (status, ()) = parts(result);
        Ok(Response::new(v2::HeartbeatResponse { status }))
    }

    async fn send_message(
        &self,
        request: Request<v2::SendMessageRequest>,
    ) -> Reply<v2::SendMessageResponse> {
        let cx = Context::of(&request);
        let messages = request.into_inner().messages;
        let result = cx.client().and_then(|_| {
            let drafts = messages
                .into_iter()
                .map(|message| convert::draft(message, &cx));
            let drafts = drafts.collect();
            self.core.can_keep()?;
            self.core.with(|state, now| state.send(now, drafts))
        });
        let result = self.core.confirm(result).await;
        Ok(Response::new(send_answer(result)))
    }

    async fn query_assignment(
        &self,
        request: Request<v2::QueryAssignmentRequest>,
    ) -> Reply<v2::QueryAssignmentResponse> {
        let cx = Context::of(&request);
        let request = request.into_inner();
        let topic = request.topic.as_ref();
        let group = name(request.group.as_ref());
        let endpoints = self.core.endpoints();
        let result = cx.client().and_then(|_| {
            self.core
                .with(|state, _| state.assignments(&name(topic), &group))
                .map(|queues| {
                    let assignment = |id| v2::Assignment {
                        message_queue: Some(queue(topic, id, &endpoints, &[])),
                    };
                    queues.into_iter().map(assignment).collect()
                })
        });
        let (status, assignments) = parts(result);
        Ok(Response::new(v2::QueryAssignmentResponse {
            status,
            assignments,
        }))
    }

    async fn receive_message(
        &self,
        request: Request<v2::ReceiveMessageRequest>,
    ) -> Reply<Self::ReceiveMessageStream> {
        let cx = Context::of(&request);
        let stream = receive::run(Arc::clone(&self.core), &cx, request.into_inner()).await;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn ack_message(
        &self,
        request: Request<v2::AckMessageRequest>,
    ) -> Reply<v2::AckMessageResponse> {
        let cx = Context::of(&request);
        let result = cx
            .client()
            .and_then(|_| self.ack_entries(request.into_inner()));
        Ok(Response::new(match result {
            Ok(entries) => v2::AckMessageResponse {
                status: Some(overall(&entries)),
                entries,
            },
            Err(refusal) => v2::AckMessageResponse {
                status: Some(refusal.into()),
                entries: Vec::new(),
            },
        }))
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<v2::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Reply<v2::ForwardMessageToDeadLetterQueueResponse> {
        let cx = Context::of(&request);
        let request = request.into_inner();
        let (topic, group) = (name(request.topic.as_ref()), name(request.group.as_ref()));
        let result = cx.client().and_then(|_| {
            self.core.with(|state, now| {
                state.forward_to_dead_letters(now, &topic, &group, &request.receipt_handle)
            })
        });
        let (status, ()) = parts(result);
        Ok(Response::new(v2::ForwardMessageToDeadLetterQueueResponse {
            status,
        }))
    }

    async fn pull_message(
        &self,
        _request: Request<v2::PullMessageRequest>,
    ) -> Reply<Self::PullMessageStream> {
        Err(unimplemented("PullMessage"))
    }

    async fn update_offset(
        &self,
        _request: Request<v2::UpdateOffsetRequest>,
    ) -> Reply<v2::UpdateOffsetResponse> {
        Err(unimplemented("UpdateOffset"))
    }

    async fn get_offset(
        &self,
        _request: Request<v2::GetOffsetRequest>,
    ) -> Reply<v2::GetOffsetResponse> {
        Err(unimplemented("GetOffset"))
    }

    async fn query_offset(
        &self,
        _request: Request<v2::QueryOffsetRequest>,
    ) -> Reply<v2::QueryOffsetResponse> {
        Err(unimplemented("QueryOffset"))
    }

    async fn end_transaction(
        &self,
        request: Request<v2::EndTransactionRequest>,
    ) -> Reply<v2::EndTransactionResponse> {
        let cx = Context::of(&request);
        let request = request.into_inner();
        let topic = name(request.topic.as_ref());
        let end = End {
            topic: &topic,
            transaction_id: &request.transaction_id,
            resolution: request.resolution(),
            source: request.source(),
        };
        let result = cx.client().and_then(|_| {
            self.core
                .with(|state, now| state.end_transaction(now, &end))
        });
        let result = self.core.confirm(result).await;
        let (status, ()) = parts(result);
        Ok(Response::new(v2::EndTransactionResponse { status }))
    }

    async fn telemetry(
        &self,
        request: Request<Streaming<v2::TelemetryCommand>>,
    ) -> Reply<Self::TelemetryStream> {
        let cx = Context::of(&request);
        telemetry::run(Arc::clone(&self.core), &cx, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn notify_client_termination(
        &self,
        request: Request<v2::NotifyClientTerminationRequest>,
    ) -> Reply<v2::NotifyClientTerminationResponse> {
        let cx = Context::of(&request);
        let group = name(request.into_inner().group.as_ref());
        let result = cx.client().and_then(|id| {
            self.core
                .with(|state, now| state.terminate(now, id, &group))
        });
        let (status, ()) = parts(result);
        Ok(Response::new(v2::NotifyClientTerminationResponse {
            status,
        }))
    }

    async fn change_invisible_duration(
        &self,
        request: Request<v2::ChangeInvisibleDurationRequest>,
    ) -> Reply<v2::ChangeInvisibleDurationResponse> {
        let cx = Context::of(&request);
        let request = request.into_inner();
        let (topic, group) = (name(request.topic.as_ref()), name(request.group.as_ref()));
        let invisible = duration(request.invisible_duration.as_ref());
        let result = cx.client().and_then(|id| {
            self.core.with(|state, now| {
                state.check_introduced(id)?;
                let (handle, suspend) = (&request.receipt_handle, request.suspend());
                state.change_invisible(now, &topic, &group, handle, invisible, suspend)
            })
        });
        let (status, receipt_handle) = parts(result);
        Ok(Response::new(v2::ChangeInvisibleDurationResponse {
            status,
            receipt_handle,
        }))
    }

    async fn recall_message(
        &self,
        request: Request<v2::RecallMessageRequest>,
    ) -> Reply<v2::RecallMessageResponse> {
        let cx = Context::of(&request);
        let request = request.into_inner();
        let topic = name(request.topic.as_ref());
        let result = cx.client().and_then(|_| {
            self.core
                .with(|state, now| state.recall(now, &topic, &request.recall_handle))
        });
        let result = self.core.confirm(result).await;
        let (status, message_id) = parts(result);
        Ok(Response::new(v2::RecallMessageResponse {
            status,
            message_id,
        }))
    }

    async fn sync_lite_subscription(
        &self,
        request: Request<v2::SyncLiteSubscriptionRequest>,
    ) -> Reply<v2::SyncLiteSubscriptionResponse> {
        let cx = Context::of(&request);
        let request = request.into_inner();
        let result = cx
            .client()
            .and_then(|_| state::sync_lite(&request.lite_topic_set));
        let (status, ()) = parts(result);
        Ok(Response::new(v2::SyncLiteSubscriptionResponse { status }))
    }
}

fn unimplemented(method: &str) -> Status {
    let message = format!("method MessagingService/{method} is unimplemented");
    Status::unimplemented(message)
}
