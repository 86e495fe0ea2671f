//! A lane: a long-lived task that handles one message after another.

mod attempt;
mod outcome;

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use kratos::trace::{self, About, Attributes, SpanContext, Subject};
use tokio::time::Instant;
use tower_service::Service;
use tracing::Span;

pub(crate) use self::{
    attempt::{Attempt, Why},
    outcome::Verdict,
};
use super::{
    burial::Undertaker,
    cell::{Cancel, LaneCell},
    control::Notes,
    counters::Counters,
    metrics::Metrics,
    queue::{Job, Pop, Queue},
    span,
    switch::Switch,
    ticket::Ticket,
};
use crate::{
    Delivery, Failure, Policy, Topic,
    clock::{Recently, from_now},
    delivery::{Received, Run},
    driver::Settlement,
    policy::Tally,
};

/// The lease table, as lanes see it: it knows the driver, they do not.
pub(crate) trait Desk: Send + Sync {
    /// A message is about to run on a lane; `None` if its lease is gone. Answers when renewal of
    /// the lease ends. A lease that ends after the `horizon` is good without a look at the clock.
    fn start(&self, ticket: Ticket, cell: &Arc<LaneCell>, horizon: Instant) -> Option<Instant>;

    /// As [`settle_at`](Self::settle_at) of a message that is done, if one is, and after that
    /// [`start`](Self::start) of the next: in one look.
    fn turn(
        &self,
        done: Option<Ticket>,
        next: Ticket,
        cell: &Arc<LaneCell>,
        horizon: Instant,
    ) -> Option<Instant>;

    /// A message waits again, for its next attempt in this process; false if it does not, because
    /// its lease is gone or given up.
    fn wait(&self, ticket: Ticket) -> bool;

    /// A message is given up and will be published to the dead-letter topic.
    fn bury(&self, ticket: Ticket);

    /// Whether it still is to be: its lease was not lost meanwhile.
    fn is_burying(&self, ticket: Ticket) -> bool;

    /// What is here of a subscription: the topic's number, and the route's in it.
    fn holds(&self, topic: usize, route: usize) -> Holds;

    /// The room of a topic changes with the lanes of a subscription: what that needs, and may use.
    fn resize(&self, topic: usize, before: (usize, usize), now: (usize, usize));

    /// Whether the broker has assigned something of a topic to this process.
    fn is_assigned(&self, topic: &Topic) -> Option<bool>;

    /// Messages of a topic that wait on the broker, if that is known.
    fn lag(&self, topic: &Topic) -> Option<u64>;

    /// The message, if its lease was not lost.
    fn received(&self, ticket: Ticket) -> Option<Received>;

    /// A message is over.
    fn settle(&self, ticket: Ticket, how: Settlement) {
        self.settle_at(ticket, how, Instant::now());
    }

    /// A message is over. A lease that ends after the `horizon` is good without a look at the clock.
    fn settle_at(&self, ticket: Ticket, how: Settlement, horizon: Instant);

    /// Messages that never started are handed back.
    fn hand_back(&self, tickets: Vec<Ticket>);

    /// A message ends because its batch is lost: handed back at once.
    fn give_up(&self, ticket: Ticket);

    /// Whether a message behind this one in its batch is done, or runs: it would come again if this
    /// one were handed back.
    fn is_overtaken(&self, ticket: Ticket) -> bool;

    /// A message was cut off by the shutdown: handed back and reported.
    fn cut_off(&self, ticket: Ticket);

    /// What only the driver knows of a delivery, or of the consumer.
    fn describe(&self, delivery: Option<&Delivery>, attributes: &mut Attributes);

    /// A message is about to be settled after an attempt that is recorded: in a span that it shares
    /// with others.
    fn settles(
        &self,
        ticket: Ticket,
        of: &Arc<span::Origin>,
        attempt: SpanContext,
        how: Settlement,
    );

    /// A message is about to be settled, in a span that ends when that is confirmed.
    fn settles_in(&self, ticket: Ticket, span: Span);

    /// The process cannot work.
    fn fatal(&self, error: kratos::Error);
}

/// What is here of a subscription.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    pub(crate) running: usize,
    /// For a lane, or for their next attempt.
    pub(crate) waiting: usize,
    /// On their way to the dead-letter topic.
    pub(crate) burying: usize,
    /// When the first of them was received.
    pub(crate) since: Option<Instant>,
    pub(crate) first: Option<Received>,
    /// When the oldest of them was published.
    pub(crate) oldest: Option<SystemTime>,
}

/// A subscription, as lines of the log name it: by its id.
#[derive(Debug)]
pub(crate) struct Part(pub(crate) String);

/// What all lanes of one subscription share.
pub(crate) struct LaneSettings {
    pub(crate) origin: Arc<span::Origin>,
    pub(crate) part: Arc<Part>,
    /// While somebody reads metrics.
    pub(crate) metrics: Option<Metrics>,
    pub(crate) policy: Policy,
    pub(crate) ordered_policy: Policy,
    pub(crate) handler_timeout: Option<Duration>,
    /// Publishes dead letters; without one the broker moves them.
    pub(crate) undertaker: Option<Undertaker>,
    pub(crate) switch: Option<Arc<Switch>>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) counters: Counters,
}

/// Where a lane gets its messages from and reports to.
pub(crate) struct Inbox {
    pub(crate) queue: Arc<Queue>,
    pub(crate) desk: Arc<dyn Desk>,
    pub(crate) settings: Arc<LaneSettings>,
    pub(crate) cell: Arc<LaneCell>,
}

/// How an attempt ended.
pub(crate) enum Ended<R = ()> {
    Done(R),
    Failed(Failure),
    Cancelled(Cancel),
}

/// After so many messages a lane lets other tasks run: a backlog and a handler that never waits must
/// not starve them.
const MESSAGES_PER_POLL: u32 = 128;

/// What a lane has done and not told yet. Nothing may be left of it when the lane waits.
#[derive(Default)]
struct Untold {
    /// A message that is done, for the desk. It has no slot: what waits behind one is told after
    /// the desk.
    done: Option<Ticket>,
    /// Whose next message may run, for the queue.
    slot: Option<usize>,
}

/// A lane's whole loop, until the queue ends.
pub(crate) async fn run<Svc>(prototype: Svc, inbox: Inbox)
where
    Svc: Service<Delivery, Response = ()> + Clone,
    Svc::Error: Into<Failure>,
{
    let mut service = prototype.clone();
    let mut recently = Recently::new();
    let mut untold = Untold::default();
    let mut left = MESSAGES_PER_POLL;
    loop {
        if left == 0 {
            untold.tell(&inbox, &mut recently);
            if inbox.queue.is_surplus() {
                return;
            }
            let_others_run().await;
            left = MESSAGES_PER_POLL;
        }
        let next = inbox.queue.try_next(untold.slot.take());
        let job = if let Pop::Job(job) = next {
            job
        } else {
            untold.tell(&inbox, &mut recently);
            let Some(job) = inbox.queue.next().await else {
                return;
            };
            recently.forget();
            left = MESSAGES_PER_POLL;
            job
        };
        left -= 1;
        // What runs is not in a function of its own, which would move the largest things there are
        // for a message.
        let (ticket, slot) = (job.ticket, job.slot());
        inbox.cell.begin(ticket);
        let (done, horizon) = (untold.done.take(), recently.horizon());
        let started = inbox.desk.turn(done, ticket, &inbox.cell, horizon);
        let Some(held_until) = started else {
            inbox.cell.end();
            inbox.inconclusive(job.probe);
            inbox.queue.not_started();
            untold.slot = slot;
            continue;
        };
        // The span ends before its message is settled.
        let after = {
            let settings = &*inbox.settings;
            let time_limit = settings.handler_timeout.map(from_now);
            let tally = settings.tally(&job);
            let attempt = tally.attempt.max(job.attempt());
            let (received, job) = job.part();
            // Made in its place, and so is the message in it.
            let deadline = time_limit.map_or(held_until, |limit| limit.min(held_until));
            let work = pin!(Attempt::new(
                &mut service,
                received.run(
                    attempt,
                    Run {
                        deadline: Some(deadline),
                        is_last: tally.exhausted,
                        cell: Some(inbox.cell.clone()),
                        ticket,
                        extensions: None,
                    }
                ),
                &inbox.cell,
                time_limit,
            ));
            let (span, parent, about, measured);
            if let Some(delivery) = work.request()
                && settings.is_watched(delivery)
            {
                (span, parent) = span::process(&inbox, delivery);
                let told = trace::is_told();
                about = told.then(|| Subject::new(delivery.about()).of(settings.part.clone()));
                measured = settings.metrics.as_ref().map(|metrics| {
                    metrics.starts(delivery);
                    (metrics, Instant::now())
                });
            } else {
                (span, parent, about, measured) = (Span::none(), None, None, None);
            }
            let attempted = if parent.is_none() && about.is_none() {
                work.await
            } else {
                let work = trace::about(about, work);
                match parent {
                    None => work.await,
                    Some(parent) => trace::scope_with(span.clone(), parent, pin!(work)).await,
                }
            };
            if let Some((metrics, begun)) = measured {
                let failed = attempted.as_ref().err().map(|it| it.why.error_type());
                metrics.ended(1, begun.elapsed(), failed);
            }
            match attempted {
                Ok(()) => {
                    inbox.settles(ticket, &span, Settlement::Ack);
                    inbox.succeeded(job.probe);
                    After::Done
                }
                Err(not_done) => {
                    if not_done.panicked {
                        // It may be half changed.
                        service = prototype.clone();
                    }
                    inbox.not_done(job, &span, not_done.why, held_until)
                }
            }
        };
        inbox.cell.end();
        if inbox.cell.has_waited() {
            recently.forget();
            left = MESSAGES_PER_POLL;
            if inbox.queue.has_surplus() {
                left = 0;
            }
        }
        match after {
            After::Done if slot.is_none() => untold.done = Some(ticket),
            After::Done => {
                inbox
                    .desk
                    .settle_at(ticket, Settlement::Ack, recently.horizon());
                untold.slot = slot;
            }
            After::Lost => untold.slot = slot,
            After::Else(it) => inbox.conclude(it.0, it.1),
        }
    }
}

/// What follows an attempt.
enum After {
    Done,
    /// The lease is gone: nothing to settle.
    Lost,
    Else(Box<(Job, Verdict)>),
}

/// Goes to the end of the runtime's queue.
async fn let_others_run() {
    let mut gone = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(super) fn record<R>(span: &Span, ended: &Ended<R>) {
    let Some(error_type) = ended.error_type() else {
        return;
    };
    span.record("error.type", error_type);
    if let Ended::Failed(failure) = ended
        && !failure.is_put_off()
    {
        span.record("otel.status_code", "ERROR");
    }
}

// === impl Part ===

impl About for Part {
    fn tell(&self, field: &mut dyn FnMut(&'static str, &str)) {
        field("subscription", &self.0);
    }
}

// === impl Why ===

impl Why {
    pub(super) fn error_type(&self) -> &str {
        match self {
            Self::Failed(failure) => failure.error_type(),
            Self::Cancelled(Cancel::LeaseLost | Cancel::BatchLost) => "lease_lost",
            Self::Cancelled(Cancel::Shutdown) => "shutdown",
        }
    }
}

// === impl Ended ===

impl<R> From<Why> for Ended<R> {
    fn from(why: Why) -> Self {
        match why {
            Why::Failed(failure) => Self::Failed(failure),
            Why::Cancelled(why) => Self::Cancelled(why),
        }
    }
}

impl<R> Ended<R> {
    /// Of an attempt that did not succeed.
    pub(super) fn error_type(&self) -> Option<&str> {
        Some(match self {
            Self::Done(_) => return None,
            Self::Failed(failure) => failure.error_type(),
            Self::Cancelled(Cancel::LeaseLost | Cancel::BatchLost) => "lease_lost",
            Self::Cancelled(Cancel::Shutdown) => "shutdown",
        })
    }
}

// === impl Untold ===

impl Untold {
    fn tell(&mut self, inbox: &Inbox, recently: &mut Recently) {
        if let Some(ticket) = self.done.take() {
            let horizon = recently.horizon();
            inbox.desk.settle_at(ticket, Settlement::Ack, horizon);
        }
        inbox.queue.release(self.slot.take());
    }
}

// === impl Inbox ===

impl Inbox {
    /// A message is about to be settled, after an attempt that was recorded or not.
    #[inline]
    fn settles(&self, ticket: Ticket, attempt: &Span, how: Settlement) {
        if !attempt.is_disabled() {
            let (origin, attempt) = (&self.settings.origin, trace::of(attempt));
            span::settle(origin, &*self.desk, ticket, attempt, how);
        }
    }

    /// What follows an attempt that has not succeeded.
    #[cold]
    fn not_done(&self, job: Job<()>, span: &Span, why: Why, held_until: Instant) -> After {
        let ended = Ended::from(why);
        record(span, &ended);
        let ticket = job.ticket;
        let Some(received) = self.desk.received(ticket) else {
            self.inconclusive(job.probe);
            return After::Lost;
        };
        let job = job.with(received);
        let verdict = self.verdict(&job, &ended, span, held_until);
        if let Verdict::Settle(how) = verdict {
            self.settles(ticket, span, how);
        }
        After::Else(Box::new((job, verdict)))
    }
}

// === impl LaneSettings ===

impl LaneSettings {
    /// Whether anybody wants to know of the attempts of this message.
    #[inline]
    fn is_watched(&self, delivery: &Delivery) -> bool {
        self.metrics.is_some() || trace::is_told() || span::is_wanted(delivery)
    }

    /// The number of an attempt, as handlers see it. With retries here before those of the broker
    /// neither count alone goes on where the other one ends.
    pub(super) fn attempt_of(&self, job: &Job) -> u32 {
        self.tally(job).attempt.max(job.attempt())
    }

    /// Whether this is the last attempt of a message that has failed before.
    pub(super) fn is_last_resort(&self, job: &Job) -> bool {
        let tally = self.tally(job);
        tally.exhausted && tally.attempt > 1
    }

    /// The policy of a message.
    #[inline]
    pub(super) fn policy_of(&self, job: &Job) -> &Policy {
        if job.is_ordered() {
            &self.ordered_policy
        } else {
            &self.policy
        }
    }

    /// The attempt of a message that runs, or is next, should it fail.
    #[inline]
    pub(super) fn tally(&self, job: &Job) -> Tally {
        let (delivered, limit) = (job.delivery.broker_attempt(), job.delivery.attempts_limit);
        self.policy_of(job).tally(delivered, limit, job.failures)
    }
}
