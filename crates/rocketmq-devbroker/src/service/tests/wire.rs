//! A call as it comes over the wire: a body in pieces, and an answer that is read or not.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::body::{Body, Frame};
use prost::Message as _;
use rocketmq_proto::v2::{
    self, messaging_service_server::MessagingServiceServer, receive_message_response::Content,
};
use tower_service::Service as _;

use crate::{
    core::{Core, lock},
    service::Service,
};

/// Names that answers have told, newest last: so many of each kind are remembered.
const REMEMBERED: usize = 32;
/// Longer than any answer but that of a telemetry stream.
const MAX_FRAMES: usize = 100_000;

/// What comes after the pieces of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    #[default]
    Ended,
    /// Nothing: the caller went silent.
    Open,
    Broken,
}

/// A body that comes in pieces, one at a time.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) rest: VecDeque<Bytes>,
    pub(super) ending: Ending,
    /// The next piece is not there at once.
    pub(super) late: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.late = !self.late;
        if self.late {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = self.rest.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match self.ending {
            Ending::Ended => Poll::Ready(None),
            Ending::Open => Poll::Pending,
            Ending::Broken => {
                self.ending = Ending::Ended;
                Poll::Ready(Some(Err(io::Error::other("the caller is gone"))))
            }
        }
    }
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: &'static str,
    /// Of a receive.
    pub(super) group: Option<v2::Resource>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Pieces,
    /// How much of the answer is read before the caller goes away.
    pub(super) frames: usize,
    /// The caller does not wait for the end of it.
    pub(super) stays: bool,
}

/// A message that was handed out.
#[derive(Clone, Debug, Default)]
pub(super) struct Receipt {
    pub(super) topic: Option<v2::Resource>,
    pub(super) group: Option<v2::Resource>,
    pub(super) handle: String,
}

/// What answers have told that later calls may name.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) receipts: VecDeque<Receipt>,
    pub(super) transactions: VecDeque<String>,
    pub(super) recalls: VecDeque<String>,
    /// What was done right, so that a run in which everything is refused is noticed.
    pub(super) sent: usize,
    pub(super) received: usize,
    pub(super) acked: usize,
    pub(super) registered: usize,
    pub(super) changed: usize,
    pub(super) ended: usize,
    pub(super) recalled: usize,
    pub(super) buried: usize,
}

impl Seen {
    fn read(&mut self, call: &Call, message: &[u8]) {
        match call.method {
            "SendMessage" => {
                let answer = v2::SendMessageResponse::decode(message).unwrap();
                for entry in answer.entries {
                    self.sent += 1;
                    remember(&mut self.transactions, entry.transaction_id);
                    if !entry.recall_handle.is_empty() {
                        remember(&mut self.recalls, entry.recall_handle);
                    }
                }
            }
            "ReceiveMessage" => {
                let answer = v2::ReceiveMessageResponse::decode(message).unwrap();
                if let Some(Content::Message(message)) = answer.content {
                    self.received += 1;
                    let system = message.system_properties.unwrap();
                    let receipt = Receipt {
                        topic: message.topic,
                        group: call.group.clone(),
                        handle: system.receipt_handle.unwrap(),
                    };
                    remember(&mut self.receipts, receipt);
                }
            }
            "ChangeInvisibleDuration" => {
                let answer = v2::ChangeInvisibleDurationResponse::decode(message).unwrap();
                if !answer.receipt_handle.is_empty() {
                    self.changed += 1;
                }
            }
            "EndTransaction" => {
                let answer = v2::EndTransactionResponse::decode(message).unwrap();
                self.ended += usize::from(is_ok(answer.status.as_ref()));
            }
            "RecallMessage" => {
                let answer = v2::RecallMessageResponse::decode(message).unwrap();
                self.recalled += usize::from(is_ok(answer.status.as_ref()));
            }
            "ForwardMessageToDeadLetterQueue" => {
                let answer = v2::ForwardMessageToDeadLetterQueueResponse::decode(message).unwrap();
                self.buried += usize::from(is_ok(answer.status.as_ref()));
            }
            "AckMessage" => {
                let answer = v2::AckMessageResponse::decode(message).unwrap();
                let entries = answer.entries.iter();
                self.acked += entries.filter(|it| is_ok(it.status.as_ref())).count();
            }
            "Telemetry" => {
                v2::TelemetryCommand::decode(message).unwrap();
                self.registered += 1;
            }
            _ => {}
        }
    }
}

fn is_ok(status: Option<&v2::Status>) -> bool {
    status.is_some_and(|status| status.code() == v2::Code::Ok)
}

fn remember<T>(names: &mut VecDeque<T>, name: T) {
    names.push_back(name);
    if names.len() > REMEMBERED {
        names.pop_front();
    }
}

/// Makes the call and reads what it says of the answer.
pub(super) async fn run(core: Arc<Core>, mut call: Call, seen: Arc<Mutex<Seen>>) {
    let mut service = MessagingServiceServer::new(Service::new(core));
    let path = format!("/apache.rocketmq.v2.MessagingService/{}", call.method);
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let body = std::mem::take(&mut call.body);
    let answer = service.call(request.body(body).unwrap()).await;
    let mut answer = answer.unwrap().into_body();
    let mut unread = BytesMut::new();
    for _ in 0..call.frames {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await;
        let Some(Ok(frame)) = frame else { return };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        unread.extend_from_slice(&data);
        while let Some(length) = unread.get(1..5) {
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if unread.len() < 5 + length {
                break;
            }
            unread.advance(5);
            lock(&seen).read(&call, &unread.split_to(length));
        }
    }
    assert!(call.frames < MAX_FRAMES, "an answer without end");
}

/// Of an answer that is read to its end.
pub(super) const ALL_FRAMES: usize = MAX_FRAMES;
