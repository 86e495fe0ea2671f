//! Dead letters that are published to a topic: one task per subscription, so that no lane waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kratos::trace::{self, SpanContext};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{
    counters::Counters,
    health::HealthBoard,
    lane::Desk,
    queue::{Job, Queue},
    span::{self, Origin},
};
use crate::{
    Backoff, Error, Failure, Message, Publisher, Receipt, Result, Topic,
    dead_letter::{self, Reason},
    driver::{Driver, Settlement},
};

/// First and longest wait after a publish that failed.
const BACKOFF: Backoff =
    Backoff::exponential(Duration::from_millis(500), Duration::from_secs(30)).jitter(0.5);

/// Most dead letters of one subscription that are published at once.
const PUBLISHES_MAX: usize = 32;

/// A publisher whose driver is not named.
pub(crate) trait Post: Send + Sync {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Receipt>>;
}

/// Where lanes leave what is to be published; clones are the same.
#[derive(Clone)]
pub(crate) struct Undertaker {
    topic: Topic,
    burials: UnboundedSender<Burial>,
}

/// Where they arrive.
pub(crate) struct Arrivals(UnboundedReceiver<Burial>);

/// A message on its way to the dead-letter topic; its key waits.
struct Burial {
    job: Job,
    grave: Box<Grave>,
}

/// What is to be published for a message.
pub(crate) struct Grave {
    letter: Message,
    reason: Reason,
    /// The attempt that failed last, if it has a span.
    attempt: Option<SpanContext>,
    /// That, or the sender: the parent of the publish.
    context: Option<SpanContext>,
}

/// What publishes.
pub(crate) struct Burials {
    pub(crate) post: Arc<dyn Post>,
    pub(crate) desk: Arc<dyn Desk>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Counters,
    pub(crate) health: Arc<HealthBoard>,
    /// The subscription, for the health.
    pub(crate) name: String,
    /// Letters whose last publish failed.
    pub(crate) troubled: AtomicUsize,
    /// The broker can move messages itself.
    pub(crate) native: bool,
    /// The server begins to stop.
    pub(crate) stop: CancellationToken,
    /// Nothing can be waited for any more.
    pub(crate) cut: CancellationToken,
}

/// How one attempt to publish ended.
enum Published {
    Confirmed,
    Failed(Error),
    Cut,
}

// === impl Post ===

impl<D: Driver> Post for Publisher<D> {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Receipt>> {
        Box::pin(self.publish(message))
    }
}

// === impl Undertaker ===

impl Undertaker {
    /// For dead letters to `topic`, with the place where they arrive.
    pub(crate) fn new(topic: Topic) -> (Self, Arrivals) {
        // Never more than messages in flight, which are bounded.
        let (burials, arrivals) = unbounded_channel();
        (Self { topic, burials }, Arrivals(arrivals))
    }

    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    /// For a message whose last attempt, of this number, failed in `span`.
    pub(crate) fn grave(
        &self,
        job: &Job,
        attempt: u32,
        reason: Reason,
        failure: &Failure,
        span: &Span,
    ) -> Box<Grave> {
        let delivery = &job.delivery.delivery();
        // Without a span the trace is one that is not sampled, and stays so.
        let sender = || trace::extract(|name| delivery.headers().get(name));
        let failed_in = trace::of(span);
        Box::new(Grave {
            letter: dead_letter::letter(&self.topic, delivery, attempt, reason, failure),
            reason,
            context: failed_in.clone().or_else(sender),
            attempt: failed_in,
        })
    }

    /// Takes over a message; gives it back if nobody publishes any more.
    pub(crate) fn bury(&self, job: Job, grave: Box<Grave>) -> Result<(), Job> {
        let sent = self.burials.send(Burial { job, grave });
        sent.map_err(|refused| refused.0.job)
    }
}

// === impl Burials ===

impl Burials {
    /// Publishes until no lane is left.
    pub(crate) async fn run(self, Arrivals(mut arrivals): Arrivals) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(burial) = arrivals.recv(), if under_way.len() < PUBLISHES_MAX => {
                    under_way.push(self.bury(burial));
                }
                Some(()) = under_way.next() => {}
                else => return,
            }
        }
    }

    async fn bury(&self, burial: Burial) {
        let mut troubled = false;
        self.work(&burial, &mut troubled).await;
        // However it ended for this letter, it is no trouble any more.
        if troubled && self.troubled.fetch_sub(1, Relaxed) == 1 {
            self.health.recovered(&self.part());
        }
    }

    async fn work(&self, burial: &Burial, troubled: &mut bool) {
        let (ticket, slot) = (burial.job.ticket, burial.job.slot());
        let mut failures = 0;
        // Not after its lease was lost: it comes again then.
        while self.desk.is_burying(ticket) {
            match self.publish(burial).await {
                Published::Confirmed => {
                    self.counters.given_up(burial.grave.reason);
                    self.settle(burial, Settlement::Ack);
                }
                Published::Failed(error) if error.is_invalid() && self.native => {
                    log(burial, &error, "moved by the broker instead");
                    self.counters.given_up(burial.grave.reason);
                    self.settle(burial, Settlement::DeadLetter);
                }
                Published::Failed(error) => {
                    failures += 1;
                    self.counters.dead_letter_failed();
                    if !std::mem::replace(troubled, true) {
                        self.troubled.fetch_add(1, Relaxed);
                    }
                    self.trouble(burial, &error);
                    let give_up = self.stop.is_cancelled() && !self.must_finish(burial);
                    if give_up {
                        log(burial, &error, "handed back");
                        return self.hand_back(&burial.job);
                    }
                    if error.is_invalid() {
                        refused_for_good(burial, &error);
                    } else {
                        log(burial, &error, "will try again");
                    }
                    self.pause(BACKOFF.after(failures), burial).await;
                    continue;
                }
                Published::Cut => self.desk.cut_off(ticket),
            }
            break;
        }
        self.queue.release(slot);
    }

    async fn publish(&self, burial: &Burial) -> Published {
        let publish = self.post.publish(burial.grave.letter.clone());
        // A child of the attempt that failed.
        let publish = trace::scope(Span::none(), burial.grave.context.clone(), publish);
        tokio::select! {
            biased;
            () = self.cut.cancelled() => Published::Cut,
            result = publish => match result {
                Ok(_) => Published::Confirmed,
                Err(error) => Published::Failed(error),
            },
        }
    }

    fn settle(&self, burial: &Burial, how: Settlement) {
        let (ticket, attempt) = (burial.job.ticket, burial.grave.attempt.clone());
        span::settle(&self.origin, &*self.desk, ticket, attempt, how);
        self.desk.settle(ticket, how);
    }

    /// Waits; at a stop not longer than to try once more.
    async fn pause(&self, wait: Duration, burial: &Burial) {
        let patient = self.must_finish(burial);
        tokio::select! {
            () = sleep(wait) => {}
            () = self.cut.cancelled() => {}
            () = self.stop.cancelled(), if !patient => {}
        }
    }

    /// A message that would be lost to this group, or repeated with others, if it were handed back.
    fn must_finish(&self, burial: &Burial) -> bool {
        burial.job.must_finish || self.desk.is_overtaken(burial.job.ticket)
    }

    /// It comes again: none that it stood in front of may run before it.
    fn hand_back(&self, job: &Job) {
        let behind = self.queue.hold(job.slot());
        let tickets = std::iter::once(job.ticket).chain(behind.iter().map(|job| job.ticket));
        self.desk.hand_back(tickets.collect());
    }

    fn trouble(&self, burial: &Burial, error: &Error) {
        let topic = burial.grave.letter.topic();
        let error = kratos::error_chain(error);
        let reason = format!("cannot publish dead letters to topic {topic}: {error}");
        self.health.troubled(&self.part(), reason, false);
    }

    /// How the health calls this.
    fn part(&self) -> String {
        format!("dead letters of {}", self.name)
    }
}

fn log(burial: &Burial, error: &Error, what: &'static str) {
    tracing::warn!(
        topic = %burial.job.delivery.topic,
        message.id = %burial.job.delivery.id,
        dead_letter.topic = %burial.grave.letter.topic(),
        error = %kratos::error_chain(error),
        "dead letter not published: {what}",
    );
}

/// A letter that the topic will never take, and no broker that could move it: somebody must look.
fn refused_for_good(burial: &Burial, error: &Error) {
    tracing::error!(
        topic = %burial.job.delivery.topic,
        message.id = %burial.job.delivery.id,
        dead_letter.topic = %burial.grave.letter.topic(),
        error = %kratos::error_chain(error),
        "dead letter refused for good, and the broker has no place for it: it comes again and again",
    );
}
