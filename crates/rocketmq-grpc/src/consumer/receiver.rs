//! The receive loops: long polls of one broker for one topic.
//!
//! The loops of a broker share a mark that it is busy: while its answers come full, all of them
//! poll; otherwise only the first does. A message is handed over when it comes off the stream, the
//! rest of the answer may still be under way.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use rocketmq_proto::v2::{self as pb, Code, receive_message_response::Content};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{inbox::Credit, intake::Intake, settler::Settler};
use crate::{
    Error, Lease, MessageView, Settlement,
    backoff::{Backoff, jitter},
    convert,
    instance::Instance,
    message::decode,
    route::Broker,
    rpc::{Rpc, Subject, check},
};

/// Of one receive: the server's limit.
const BATCH_MAX: usize = 32;
/// Shortest long poll of the proxy.
const LONG_POLL_MIN: Duration = Duration::from_secs(5);
/// After an error that may pass.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const THROTTLED_FIRST: Duration = Duration::from_millis(20);
const THROTTLED_MAX: Duration = Duration::from_secs(1);
/// An answer without messages that comes sooner was no long poll: the next waits a little, too.
const HASTY: Duration = Duration::from_secs(1);
/// After an error that repeats until somebody does something.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// A stopped receive is given this long for bytes that are in this machine already.
const LAST_LOOK: Duration = Duration::from_millis(10);
/// Where messages flow, a stopped receive is given this long for its answer to begin: cancelled in
/// between, it would lose what the proxy has written and nobody has read, until the lease is over.
const LAST_LOOK_IN_FLOW: Duration = Duration::from_millis(300);
/// Messages flow if the last one is not older than this.
const FLOW: Duration = Duration::from_secs(1);
/// How long a stopped receive whose answer has begun is read.
const READ_OUT_MAX: Duration = Duration::from_secs(2);

/// One broker of one topic.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) instance: Arc<Instance>,
    pub(super) intake: Arc<Intake>,
    pub(super) settler: Arc<Settler>,
    pub(super) group: String,
    pub(super) broker: Broker,
    pub(super) invisible: Duration,
    pub(super) long_poll: Duration,
    pub(super) busy: AtomicBool,
    /// When the last message came.
    pub(super) last_message_at: Mutex<Option<Instant>>,
    /// The broker left the route; receives under way end by themselves.
    pub(super) gone: CancellationToken,
    /// Messages whose bodies were damaged.
    pub(super) corrupted: Arc<AtomicU64>,
}

/// What one receive brought.
struct Outcome {
    messages: usize,
    /// `None`: the answer is complete.
    error: Option<Error>,
}

/// Delays after failures of one loop.
struct Delays {
    throttled: Backoff,
    refused: Backoff,
}

impl Source {
    pub(super) async fn run(self: Arc<Self>, first: bool) {
        let mut attempt_id = Uuid::new_v4();
        let mut delays = Delays {
            throttled: Backoff::new(THROTTLED_FIRST, THROTTLED_MAX),
            refused: Backoff::new(REFUSED_FIRST, REFUSED_MAX),
        };
        let broker_name: Arc<str> = self.broker.name.as_str().into();
        while !self.is_over() {
            let Some(rpc) = self.until_over(self.ready()).await else {
                return;
            };
            let rpc = match rpc {
                Ok(rpc) => rpc,
                Err(error) => {
                    self.pause(&mut delays, error).await;
                    continue;
                }
            };
            let most = BATCH_MAX.min(self.instance.settings.borrow().receive_batch_size);
            let credit = self.intake.credit(most, first, &self.busy);
            let Some(mut credit) = self.until_over(credit).await else {
                return;
            };
            let (asked, asked_at) = (credit.size, Instant::now());
            let outcome = self
                .receive(&rpc, &mut credit, first, attempt_id, &broker_name)
                .await;
            let hasty = outcome.messages == 0 && asked_at.elapsed() < HASTY;
            self.busy
                .store(outcome.messages >= asked, Ordering::Relaxed);
            self.intake.close_credit(credit);
            match outcome.error {
                None if hasty => {
                    attempt_id = Uuid::new_v4();
                    let delay = delays.throttled.next_delay();
                    self.until_over(tokio::time::sleep(delay)).await;
                }
                None => {
                    // The same id again would bring the same messages of an ordered group again.
                    attempt_id = Uuid::new_v4();
                    delays.throttled.reset();
                    delays.refused.reset();
                }
                Some(error) => self.pause(&mut delays, error).await,
            }
        }
    }

    async fn ready(&self) -> Result<Rpc, Error> {
        let endpoints = &self.broker.endpoints;
        if let Some(session) = self.instance.session(endpoints) {
            session.ready_or_refused().await?;
        }
        self.instance.rpc(endpoints)
    }

    async fn receive(
        &self,
        rpc: &Rpc,
        credit: &mut Credit,
        first: bool,
        attempt_id: Uuid,
        broker_name: &Arc<str>,
    ) -> Outcome {
        // Only the first loop of a broker waits long for an end of the silence.
        let long_poll = self
            .instance
            .settings
            .borrow()
            .long_polling_timeout
            .min(self.long_poll);
        let long_poll = if first {
            long_poll
        } else {
            long_poll.min(LONG_POLL_MIN)
        };
        let timeout = long_poll + self.instance.request_timeout();
        let request = self.request(credit.size, long_poll, attempt_id);
        let (request, id) = rpc.request(request, Some(timeout));
        let subject = Subject {
            topic: Some(&self.intake.topic),
            group: Some(&self.group),
        };
        let at = || rpc.at("receive", subject, id);

        let mut generation = rpc.connection.generation();
        generation.mark_unchanged();
        let mut stub = rpc.stub();
        let opening = async move {
            stub.receive_message(request)
                .await
                .map(Response::into_inner)
        };
        let mut items = pin!(stream::once(opening).try_flatten());
        let mut answer = Answer {
            first_item_at: None,
            messages: 0,
            status: None,
        };
        let mut give_up_at = Instant::now() + timeout;
        let mut stopped = false;
        loop {
            let next = tokio::select! {
                biased;
                item = items.next() => item,
                () = self.intake.stopping.cancelled(), if !stopped => {
                    stopped = true;
                    give_up_at = give_up_at.min(Instant::now() + READ_OUT_MAX);
                    if answer.first_item_at.is_some() {
                        continue;
                    }
                    match tokio::time::timeout(self.last_look(), items.next()).await {
                        Ok(item) => item,
                        Err(_) => return answer.end(None),
                    }
                }
                _ = generation.changed() => {
                    let lost = Status::unavailable("the connection was given up");
                    return answer.end(Some(Error::grpc(lost, at())));
                }
                () = tokio::time::sleep_until(give_up_at) => {
                    return answer.end(Some(Error::timeout(at(), timeout)));
                }
            };
            let Some(item) = next else { break };
            if let Err(status) =
                self.take_in(item, items.as_mut(), credit, &mut answer, rpc, broker_name)
            {
                // The proxy ends a long poll that it forgot with the deadline: nothing came.
                if status.code() == tonic::Code::DeadlineExceeded && answer.first_item_at.is_none()
                {
                    return answer.end(None);
                }
                return answer.end(Some(Error::grpc(status, at())));
            }
        }
        let error = match &answer.status {
            Some(status) if status.code == Code::MessageNotFound as i32 => None,
            Some(status) => check(Some(status), at).err(),
            None if answer.messages > 0 => None,
            None => Some(Error::protocol("the answer is empty", at())),
        };
        answer.end(error)
    }

    /// Takes an item, and all others that are there already, so that a caller is woken once.
    fn take_in(
        &self,
        item: Result<pb::ReceiveMessageResponse, Status>,
        mut items: std::pin::Pin<
            &mut impl Stream<Item = Result<pb::ReceiveMessageResponse, Status>>,
        >,
        credit: &mut Credit,
        answer: &mut Answer,
        rpc: &Rpc,
        broker_name: &Arc<str>,
    ) -> Result<(), Status> {
        let deadline = *answer.first_item_at.get_or_insert_with(Instant::now) + self.invisible;
        let mut leases = Vec::new();
        let mut next = Some(item);
        let mut result = Ok(());
        while let Some(item) = next {
            match item {
                Ok(item) => match item.content {
                    Some(Content::Message(message)) => {
                        answer.messages += 1;
                        leases.push(self.lease(message, deadline, rpc, broker_name));
                    }
                    Some(Content::Status(status)) => answer.status = Some(status),
                    Some(Content::DeliveryTimestamp(_)) | None => {}
                },
                Err(status) => {
                    result = Err(status);
                    break;
                }
            }
            next = items.next().now_or_never().flatten();
        }
        if !leases.is_empty() {
            *self.last_message_at() = Some(Instant::now());
            self.intake.put(credit, leases);
        }
        result
    }

    /// None if nobody shall see the message.
    fn lease(
        &self,
        message: pb::Message,
        deadline: Instant,
        rpc: &Rpc,
        broker_name: &Arc<str>,
    ) -> Option<Lease> {
        let Some(mut system) = message.system_properties else {
            warn!(topic = %self.intake.topic, "a message came without system properties");
            return None;
        };
        let handle = system.receipt_handle.take().unwrap_or_default();
        let (digest, encoding) = (system.body_digest.take(), system.body_encoding);
        let topic = self.intake.topic.clone();
        let mut view =
            MessageView::from_proto(system, message.user_properties, topic, broker_name.clone());
        let body = decode(message.body, digest.as_ref(), encoding);
        match body {
            Ok(body) => view.body = body,
            Err(error) => {
                self.corrupted.fetch_add(1, Ordering::Relaxed);
                warn!(
                    topic = %self.intake.topic,
                    message_id = view.id,
                    attempt = view.attempt,
                    error = %error,
                    "a message is damaged and goes back"
                );
                let delay = self
                    .instance
                    .settings
                    .borrow()
                    .retry_delays
                    .after_attempt(view.attempt);
                let lease = Lease::new(view, handle, deadline, rpc.connection.clone());
                self.settler.discard(lease, Settlement::RetryAfter(delay));
                return None;
            }
        }
        Some(Lease::new(view, handle, deadline, rpc.connection.clone()))
    }

    fn request(
        &self,
        size: usize,
        long_poll: Duration,
        attempt_id: Uuid,
    ) -> pb::ReceiveMessageRequest {
        let topic = self.instance.resource(&self.intake.topic);
        pb::ReceiveMessageRequest {
            group: Some(self.instance.resource(&self.group)),
            message_queue: Some(pb::MessageQueue {
                topic: Some(topic),
                // All queues of the broker.
                id: -1,
                permission: pb::Permission::ReadWrite.into(),
                broker: Some(pb::Broker {
                    name: self.broker.name.clone(),
                    id: 0,
                    endpoints: Some(self.broker.endpoints.to_proto()),
                }),
                accept_message_types: Vec::new(),
            }),
            filter_expression: Some(self.intake.filter.to_proto()),
            batch_size: i32::try_from(size).unwrap_or(i32::MAX),
            invisible_duration: Some(convert::proto_duration(self.invisible)),
            auto_renew: false,
            long_polling_timeout: Some(convert::proto_duration(long_poll)),
            attempt_id: Some(attempt_id.to_string()),
        }
    }

    /// Waits after a failure, so that none is repeated in a hot loop.
    async fn pause(&self, delays: &mut Delays, error: Error) {
        self.instance.react(&self.broker.endpoints, &error);
        let delay = if error.is_throttled() {
            delays.throttled.next_delay()
        } else if error.is_retryable() {
            jitter(RETRY_DELAY)
        } else {
            delays.refused.next_delay()
        };
        debug!(
            topic = %self.intake.topic,
            group = self.group,
            error = %error,
            retry_in_ms = delay.as_millis(),
            "receive failed"
        );
        if !error.is_retryable() && !error.is_closed() && !self.is_over() {
            self.intake.fail(error);
        }
        self.until_over(tokio::time::sleep(delay)).await;
    }

    /// How long a stopped receive on which nothing has arrived is waited for.
    fn last_look(&self) -> Duration {
        let flows = self.last_message_at().is_some_and(|at| at.elapsed() < FLOW);
        if flows { LAST_LOOK_IN_FLOW } else { LAST_LOOK }
    }

    fn last_message_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.last_message_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.intake.stopping.is_cancelled() || self.gone.is_cancelled()
    }

    async fn until_over<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.intake.stopping.cancelled() => None,
            () = self.gone.cancelled() => None,
            output = future => Some(output),
        }
    }
}

/// What has come of an answer.
struct Answer {
    first_item_at: Option<Instant>,
    messages: usize,
    status: Option<pb::Status>,
}

impl Answer {
    fn end(&self, error: Option<Error>) -> Outcome {
        Outcome {
            messages: self.messages,
            error,
        }
    }
}
