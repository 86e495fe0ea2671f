//! One request and its answer: headers, deadline, status, error.

use std::{future::Future, sync::Arc, time::Duration};

use rocketmq_proto::v2::{self as pb, Code, messaging_service_client::MessagingServiceClient};
use tokio::time::Instant;
use tonic::{Request, Response, transport::Channel};

use crate::{
    Error,
    connection::Connection,
    error::At,
    identity::{Identity, RequestId},
};

pub(crate) type Stub = MessagingServiceClient<Channel>;

/// Bodies may have 4 MiB, properties come on top, and servers can be told to take more.
pub(crate) const MESSAGE_BYTES_MAX: usize = 192 << 20;

/// A connection as one producer or consumer uses it.
#[derive(Debug, Clone)]
pub(crate) struct Rpc {
    pub(crate) identity: Arc<Identity>,
    pub(crate) connection: Arc<Connection>,
}

/// What is asked about, for errors.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) topic: Option<&'a str>,
    pub(crate) group: Option<&'a str>,
}

/// An answer with a status inside.
pub(crate) trait Answer {
    fn status(&self) -> Option<&pb::Status>;
}

macro_rules! answers {
    ($($answer:ident),* $(,)?) => {
        $(impl Answer for pb::$answer {
            fn status(&self) -> Option<&pb::Status> {
                self.status.as_ref()
            }
        })*
    };
}

answers!(
    QueryRouteResponse,
    HeartbeatResponse,
    SendMessageResponse,
    AckMessageResponse,
    ChangeInvisibleDurationResponse,
    EndTransactionResponse,
    ForwardMessageToDeadLetterQueueResponse,
    RecallMessageResponse,
    NotifyClientTerminationResponse,
);

impl Rpc {
    pub(crate) fn stub(&self) -> Stub {
        MessagingServiceClient::new(self.connection.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A request with the headers of the protocol and, if given, a deadline.
    pub(crate) fn request<Q>(
        &self,
        message: Q,
        timeout: Option<Duration>,
    ) -> (Request<Q>, RequestId) {
        let id = self.identity.next_request_id();
        let metadata = self.identity.metadata(id);
        let mut request = Request::from_parts(metadata, tonic::Extensions::default(), message);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        (request, id)
    }

    /// The answer whatever its status says, for answers with a status per entry.
    pub(crate) async fn call_any<Q, A, F>(
        &self,
        operation: &'static str,
        subject: Subject<'_>,
        message: Q,
        timeout: Duration,
        call: impl Fn(Stub, Request<Q>) -> F,
    ) -> Result<(A, RequestId), Error>
    where
        Q: Clone,
        A: Answer,
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        let Some(signer) = self.identity.signer() else {
            return self.ask(operation, subject, message, timeout, call).await;
        };
        signer.prepare().await?;
        let sent_at = Instant::now();
        let answer = self
            .ask(operation, subject, message.clone(), timeout, &call)
            .await;
        let unauthorized = match &answer {
            Ok((answer, _)) => answer
                .status()
                .is_some_and(|it| it.code == Code::Unauthorized as i32),
            Err(error) => error.is_unauthorized(),
        };
        if unauthorized && signer.refresh(sent_at).await {
            return self.ask(operation, subject, message, timeout, call).await;
        }
        answer
    }

    async fn ask<Q, A, F>(
        &self,
        operation: &'static str,
        subject: Subject<'_>,
        message: Q,
        timeout: Duration,
        call: impl FnOnce(Stub, Request<Q>) -> F,
    ) -> Result<(A, RequestId), Error>
    where
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        let (request, id) = self.request(message, Some(timeout));
        // tonic's own timer ends with the headers of the answer, this one with its last byte.
        match tokio::time::timeout(timeout, call(self.stub(), request)).await {
            Ok(Ok(answer)) => Ok((answer.into_inner(), id)),
            Ok(Err(status)) => Err(self.failed(status, self.at(operation, subject, id))),
            Err(_) => Err(Error::timeout(self.at(operation, subject, id), timeout)),
        }
    }

    /// The error of a gRPC status, with what is known about the connection.
    pub(crate) fn failed(&self, status: tonic::Status, at: At) -> Error {
        Error::grpc(status, at).because_of(self.connection.fault())
    }

    /// The answer, if its status is OK.
    pub(crate) async fn call<Q, A, F>(
        &self,
        operation: &'static str,
        subject: Subject<'_>,
        message: Q,
        timeout: Duration,
        call: impl Fn(Stub, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        A: Answer,
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        let (answer, id) = self
            .call_any(operation, subject, message, timeout, call)
            .await?;
        check(answer.status(), || self.at(operation, subject, id))?;
        Ok(answer)
    }

    pub(crate) fn at(&self, operation: &'static str, subject: Subject<'_>, id: RequestId) -> At {
        At {
            operation,
            topic: subject.topic.map(str::to_owned),
            group: subject.group.map(str::to_owned),
            endpoint: Some(self.connection.endpoints().to_string()),
            request_id: Some(id.to_string()),
        }
    }
}

/// OK, or the error that the status describes. No status at all is no success.
pub(crate) fn check(status: Option<&pb::Status>, at: impl FnOnce() -> At) -> Result<(), Error> {
    match status {
        Some(status) if status.code == Code::Ok as i32 => Ok(()),
        Some(status) => Err(Error::status(status.code, &status.message, at())),
        None => Err(Error::protocol("the answer has no status", at())),
    }
}
