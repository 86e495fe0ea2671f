//! What producers ask for, beside plain sends.

use rocketmq_proto::v2::{self as pb, Code, telemetry_command::Command};
use tonic::{Request, Response, Status};

use super::{Answers, Fake, status};

/// The script for producers, and what they asked.
#[derive(Default)]
pub(crate) struct Producing {
    /// Types that the topics take; NORMAL if there are none.
    pub(crate) accepts: Vec<pb::MessageType>,
    pub(crate) ends: Answers<pb::EndTransactionResponse>,
    pub(crate) recalls: Answers<pb::RecallMessageResponse>,
    pub(crate) seen_ends: Vec<pb::EndTransactionRequest>,
    pub(crate) seen_recalls: Vec<pb::RecallMessageRequest>,
    /// Messages of each send.
    pub(crate) seen_sizes: Vec<usize>,
    /// Call and host of each send, end and recall.
    pub(crate) hosts: Vec<(&'static str, String)>,
}

/// Which of the hosts was dialled.
#[derive(Clone)]
struct Host(String);

/// Keeps the host of a request for the handlers.
pub(super) fn note_host<B>(mut request: http::Request<B>) -> http::Request<B> {
    let host = request.uri().host().unwrap_or_default().to_owned();
    request.extensions_mut().insert(Host(host));
    request
}

impl Fake {
    /// Asks all clients about an orphaned transaction.
    pub(crate) fn ask_about(&self, message_id: &str, transaction_id: &str) {
        let message = pb::Message {
            topic: Some(pb::Resource {
                resource_namespace: String::new(),
                name: super::TOPIC.to_owned(),
            }),
            user_properties: [("p".to_owned(), "v".to_owned())].into(),
            system_properties: Some(pb::SystemProperties {
                message_id: message_id.to_owned(),
                keys: vec!["order-7".to_owned()],
                ..Default::default()
            }),
            body: "half".into(),
        };
        self.command(&Command::RecoverOrphanedTransactionCommand(
            pb::RecoverOrphanedTransactionCommand {
                message: Some(message),
                transaction_id: transaction_id.to_owned(),
            },
        ));
    }

    /// Has new settings sent to all clients.
    pub(crate) fn push_publishing(&self, max_body_size: i32, validate_message_type: bool) {
        let backoff_policy = self.state().backoff_ms.map(super::retries_every);
        self.command(&Command::Settings(pb::Settings {
            backoff_policy,
            pub_sub: Some(pb::settings::PubSub::Publishing(pb::Publishing {
                topics: Vec::new(),
                max_body_size,
                validate_message_type,
            })),
            ..Default::default()
        }));
    }

    pub(super) fn note_call<T>(&self, call: &'static str, request: &Request<T>) {
        let host = request.extensions().get::<Host>().cloned();
        let host = host.map_or_else(String::new, |it| it.0);
        self.state().producing.hosts.push((call, host));
    }

    pub(super) async fn end(
        &self,
        request: Request<pb::EndTransactionRequest>,
    ) -> Result<Response<pb::EndTransactionResponse>, Status> {
        self.note_call("end", &request);
        self.state().producing.seen_ends.push(request.into_inner());
        self.enter("end").await;
        let scripted = self.state().producing.ends.pop_front();
        scripted.unwrap_or_else(|| end(Code::Ok)).map(Into::into)
    }

    pub(super) async fn recall(
        &self,
        request: Request<pb::RecallMessageRequest>,
    ) -> Result<Response<pb::RecallMessageResponse>, Status> {
        self.note_call("recall", &request);
        let request = request.into_inner();
        let message_id = request.recall_handle.trim_start_matches("r-").to_owned();
        self.state().producing.seen_recalls.push(request);
        self.enter("recall").await;
        let scripted = self.state().producing.recalls.pop_front();
        let fine = || {
            Ok(pb::RecallMessageResponse {
                status: status(Code::Ok),
                message_id,
            })
        };
        scripted.unwrap_or_else(fine).map(Into::into)
    }
}

pub(crate) fn end(code: Code) -> Result<pb::EndTransactionResponse, Status> {
    Ok(pb::EndTransactionResponse {
        status: status(code),
    })
}

/// What a well-behaved server says of a send, in the one entry of the Apache proxy.
pub(super) fn stored(messages: &[pb::Message]) -> Result<pb::SendMessageResponse, Status> {
    let first = messages.first().and_then(|it| it.system_properties.clone());
    let system = first.unwrap_or_default();
    let id = &system.message_id;
    let only = |kind, prefix: &str| {
        if system.message_type() == kind {
            format!("{prefix}{id}")
        } else {
            String::new()
        }
    };
    let entry = pb::SendResultEntry {
        status: status(Code::Ok),
        message_id: id.clone(),
        transaction_id: only(pb::MessageType::Transaction, "t-"),
        recall_handle: only(pb::MessageType::Delay, "r-"),
        offset: 7,
    };
    Ok(pb::SendMessageResponse {
        status: status(Code::Ok),
        entries: vec![entry],
    })
}
