//! The receive loops: long polls of one broker for one topic.
//!
//! The loops of a broker share a mark that it is busy: while its answers come full, all of them
//! poll; otherwise only the first does.

mod answer;

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rocketmq_proto::v2 as pb;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use tracing::debug;
use uuid::Uuid;

use self::answer::Answer;
use super::{inbox::Credit, intake::Intake, settler::Settler};
use crate::{
    Error,
    backoff::{Backoff, jitter},
    convert,
    error::chain,
    instance::Instance,
    route::Broker,
    rpc::{Rpc, Subject},
};

/// Of one receive: the server's limit.
const BATCH_MAX: usize = 32;
/// Shortest long poll of the proxy.
pub(crate) const LONG_POLL_MIN: Duration = Duration::from_secs(5);
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
/// The HTTP/2 client tells the server of a cancelled receive in a task of its own. Until the server
/// knows, it hands to that receive what is handed back: nobody hands back earlier than this.
const CANCEL_SENT: Duration = Duration::from_millis(10);
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
    error: Option<Error>,
    /// The server may have given more than came: the same attempt is made again.
    lost: bool,
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
            let credit = self.intake.pool.credit(most, first, &self.busy);
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
            self.intake.pool.close_credit(credit);
            if self.is_over() {
                tokio::time::sleep(CANCEL_SENT).await;
                return;
            }
            if !outcome.lost {
                attempt_id = Uuid::new_v4();
            }
            match outcome.error {
                None if hasty => {
                    let delay = delays.throttled.next_delay();
                    self.until_over(tokio::time::sleep(delay)).await;
                }
                None => {
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
        // Only the first loop of a broker waits long for an end of the silence, and only while no
        // other broker waits for its room.
        let long_poll = self
            .instance
            .settings
            .borrow()
            .long_polling_timeout
            .min(self.long_poll);
        let long_poll = if first && !credit.scarce {
            long_poll
        } else {
            long_poll.min(LONG_POLL_MIN)
        };
        let timeout = long_poll + self.instance.request_timeout();
        let invisible = self.intake.pool.invisible();
        let request = self.request(credit.size, invisible, long_poll, attempt_id);
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
        let mut answer = Answer::new(self, rpc, credit, broker_name, invisible);
        let mut give_up_at = Instant::now() + timeout;
        let mut stopped = false;
        loop {
            let next = tokio::select! {
                biased;
                item = items.next() => item,
                () = self.intake.stopping.cancelled(), if !stopped => {
                    stopped = true;
                    give_up_at = give_up_at.min(Instant::now() + READ_OUT_MAX);
                    if answer.has_begun() {
                        continue;
                    }
                    match tokio::time::timeout(self.last_look(), items.next()).await {
                        Ok(item) => item,
                        Err(_) => return answer.broken(None),
                    }
                }
                _ = generation.changed() => {
                    let lost = Status::unavailable("the connection was given up");
                    return answer.broken(Some(Error::grpc(lost, at())));
                }
                () = tokio::time::sleep_until(give_up_at) => {
                    return answer.broken(Some(Error::timeout(at(), timeout)));
                }
            };
            let Some(item) = next else {
                return answer.complete(at);
            };
            if let Err(status) = answer.take(item, items.as_mut()) {
                // The proxy ends a long poll that it forgot with the deadline: nothing came.
                let forgotten =
                    status.code() == tonic::Code::DeadlineExceeded && !answer.has_begun();
                let error = (!forgotten).then(|| Error::grpc(status, at()));
                return answer.broken(error);
            }
        }
    }

    fn request(
        &self,
        size: usize,
        invisible: Duration,
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
            invisible_duration: Some(convert::proto_duration(invisible)),
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
            error = %chain(&error),
            retry_in_ms = delay.as_millis(),
            "receive failed"
        );
        if !error.is_retryable() && !error.is_closed() && !self.is_over() {
            self.intake.pool.fail(error);
        }
        self.until_over(tokio::time::sleep(delay)).await;
    }

    /// How long a stopped receive on which nothing has arrived is waited for.
    fn last_look(&self) -> Duration {
        let flows = self.last_message_at().is_some_and(|at| at.elapsed() < FLOW);
        if flows { LAST_LOOK_IN_FLOW } else { LAST_LOOK }
    }

    fn message_came(&self) {
        *self.last_message_at() = Some(Instant::now());
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
