//! The long poll and the stream that answers it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll as TaskPoll},
    time::Duration,
};

use futures_util::Stream;
use rocketmq_proto::v2::{self, receive_message_response::Content};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::{
    core::Core,
    service::{
        convert::{delivery, duration, name, ok, wire_timestamp},
        request::Context,
    },
    state::{Answer, Ask, Delivered, Poll, Refusal, Timestamp},
};

/// An empty answer leaves this much before the poll's end, so that it arrives in time.
const LONG_POLL_RESERVE: Duration = Duration::from_millis(100);

/// Waits for messages. Dropped before it ends, it leaves nothing behind.
pub(crate) async fn run(
    core: Arc<Core>,
    cx: &Context,
    request: v2::ReceiveMessageRequest,
) -> Deliveries {
    let topic = request
        .message_queue
        .as_ref()
        .and_then(|queue| queue.topic.clone());
    let topic = topic.unwrap_or_default();
    if let Err(refusal) = cx.client() {
        return Deliveries::refused(core, refusal);
    }
    let opened =
        ask(cx, &request, &topic).and_then(|ask| core.with(|state, _| state.open_poll(ask)));
    let answer = match opened {
        Ok(poll) => wait(&core, &poll).await,
        Err(refusal) => Err(refusal),
    };
    let mut deliveries = Deliveries::new(core, topic, answer);
    if cx.client().is_err() {
        // Refused before it was looked at: the real server then says nothing else.
        deliveries.delivered_at = None;
    }
    deliveries
}

fn ask(
    cx: &Context,
    request: &v2::ReceiveMessageRequest,
    topic: &v2::Resource,
) -> Result<Ask, Refusal> {
    let filter = request.filter_expression.as_ref();
    let some = |wire: &Option<prost_types::Duration>| {
        wire.as_ref()
            .map(|wire| duration(Some(wire)).unwrap_or_default())
    };
    Ok(Ask {
        client: cx.client()?.to_owned(),
        group: name(request.group.as_ref()),
        topic: name(Some(topic)),
        filter: filter.map(|filter| (filter.r#type(), filter.expression.clone())),
        batch: request.batch_size,
        invisible: some(&request.invisible_duration),
        auto_renew: request.auto_renew,
        attempt_id: request.attempt_id.clone(),
        long_poll: some(&request.long_polling_timeout),
        remaining: cx.remaining(),
        old_client: cx.is_old(),
    })
}

async fn wait(core: &Core, poll: &Poll) -> Result<Answer, Refusal> {
    let until = Instant::now() + (poll.wait - LONG_POLL_RESERVE.min(poll.wait / 10));
    let waiter = core.waiter(&poll.topic);
    loop {
        // Registered before the look, so that nothing that comes in between is missed.
        let mut changed = std::pin::pin!(waiter.notified());
        changed.as_mut().enable();
        let answer = core.with(|state, now| {
            let delivered = state.receive(now, poll);
            state.answer(delivered)
        });
        if !answer.delivered.is_empty() {
            return Ok(answer);
        }
        if timeout_at(until, changed).await.is_err() {
            return Err(Refusal::new(v2::Code::MessageNotFound, "no new message"));
        }
    }
}

/// The answer of a receive: status, messages, time of delivery, or the other way round. What is not
/// written when it is dropped goes back to the group at once.
#[derive(Debug)]
pub(crate) struct Deliveries {
    core: Arc<Core>,
    topic: v2::Resource,
    store_host: String,
    status: Option<v2::Status>,
    messages: VecDeque<Delivered>,
    delivered_at: Option<Timestamp>,
    status_last: bool,
    breaks_after: Option<usize>,
    /// An item was just given: pause, so that it is flushed on its own.
    pause: bool,
}

impl Deliveries {
    fn new(core: Arc<Core>, topic: v2::Resource, answer: Result<Answer, Refusal>) -> Self {
        let refused = || core.with(|state, _| state.answer(Vec::new()));
        let (status, answer) = match answer {
            Ok(answer) => (ok(), answer),
            Err(refusal) => (refusal.into(), refused()),
        };
        let now = core.with(|_, now| now);
        let store_host = core.store_host();
        Self {
            core,
            topic,
            store_host,
            status: Some(status),
            breaks_after: answer.breaks_after.map(|k| k.min(answer.delivered.len())),
            messages: answer.delivered.into(),
            delivered_at: Some(now),
            status_last: answer.status_last,
            pause: false,
        }
    }

    /// A status and nothing else: what a call gets that is not looked at.
    fn refused(core: Arc<Core>, refusal: Refusal) -> Self {
        let mut refused = Self::new(core, v2::Resource::default(), Err(refusal));
        refused.delivered_at = None;
        refused
    }

    fn next(&mut self) -> Option<Content> {
        let first = if self.status_last {
            self.take_time()
        } else {
            self.take_status()
        };
        if first.is_some() {
            return first;
        }
        if let Some(delivered) = self.messages.pop_front() {
            self.breaks_after = self.breaks_after.map(|left| left.saturating_sub(1));
            return Some(Content::Message(delivery(
                &delivered,
                &self.topic,
                &self.store_host,
            )));
        }
        self.take_status().or_else(|| self.take_time())
    }

    fn take_status(&mut self) -> Option<Content> {
        self.status.take().map(Content::Status)
    }

    fn take_time(&mut self) -> Option<Content> {
        let at = self.delivered_at.take()?;
        Some(Content::DeliveryTimestamp(wire_timestamp(at)))
    }

    /// Whether the stream breaks here. What is left then was written, but never arrives.
    fn breaks(&mut self) -> bool {
        let begun = if self.status_last {
            self.delivered_at.is_none()
        } else {
            self.status.is_none()
        };
        let breaks = begun && self.breaks_after == Some(0);
        if breaks {
            self.messages.clear();
        }
        breaks
    }
}

impl Stream for Deliveries {
    type Item = Result<v2::ReceiveMessageResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> TaskPoll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return TaskPoll::Pending;
        }
        if self.breaks() {
            let message = "injected fault: the stream breaks";
            return TaskPoll::Ready(Some(Err(Status::unavailable(message))));
        }
        let content = self.next();
        self.pause = content.is_some();
        let item = |content| {
            Ok(v2::ReceiveMessageResponse {
                content: Some(content),
            })
        };
        TaskPoll::Ready(content.map(item))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let unwritten: Vec<Delivered> = self.messages.drain(..).collect();
        if !unwritten.is_empty() {
            self.core
                .with(|state, now| state.hand_back(now, &unwritten));
        }
    }
}
