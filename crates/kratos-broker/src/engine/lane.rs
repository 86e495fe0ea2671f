//! A lane: a long-lived task that handles one message after another.

mod outcome;

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::poll_fn};
use kratos::trace;
use tokio::time::{Instant, sleep_until};
use tower_service::Service;
use tracing::Span;

pub(crate) use self::outcome::Verdict;
use super::{
    burial::Undertaker,
    cell::{Cancel, LaneCell},
    control::Notes,
    counters::Counters,
    queue::{Job, Queue},
    span,
    switch::Switch,
    ticket::Ticket,
};
use crate::{
    Delivery, Disposition, Failure, Group, Policy,
    clock::{Recently, from_now},
    delivery::Run,
    driver::Settlement,
    policy::Tally,
};

/// The lease table, as lanes see it: it knows the driver, they do not.
pub(crate) trait Desk: Send + Sync {
    /// A message is about to run on a lane; `None` if its lease is gone. Answers when renewal of
    /// the lease ends. A lease that ends after the `horizon` is good without a look at the clock.
    fn start(&self, ticket: Ticket, cell: &Arc<LaneCell>, horizon: Instant) -> Option<Instant>;

    /// A message waits again, for its next attempt in this process; false if it does not, because
    /// its lease is gone or given up.
    fn wait(&self, ticket: Ticket) -> bool;

    /// A message is given up and will be published to the dead-letter topic.
    fn bury(&self, ticket: Ticket);

    /// Whether it still is to be: its lease was not lost meanwhile.
    fn is_burying(&self, ticket: Ticket) -> bool;

    /// What is here of a subscription: the topic's number, and the route's in it.
    fn holds(&self, topic: usize, route: usize) -> Holds;

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

    /// The process cannot work.
    fn fatal(&self, error: kratos::Error);
}

/// What is here of a subscription.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holds {
    pub(crate) running: usize,
    /// For a lane, or for their next attempt.
    pub(crate) waiting: usize,
    /// On their way to the dead-letter topic.
    pub(crate) burying: usize,
    /// When the first of them was received.
    pub(crate) since: Option<Instant>,
    /// When the oldest of them was published.
    pub(crate) oldest: Option<SystemTime>,
}

/// What all lanes of one subscription share.
pub(crate) struct LaneSettings {
    pub(crate) system: &'static str,
    pub(crate) group: Group,
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

/// A lane's whole loop, until the queue ends.
pub(crate) async fn run<Svc>(prototype: Svc, inbox: Inbox)
where
    Svc: Service<Delivery, Response = ()> + Clone,
    Svc::Error: Into<Failure>,
{
    let mut service = prototype.clone();
    let mut recently = Recently::new();
    while let Some(job) = inbox.next(&mut recently).await {
        let slot = job.slot();
        inbox.cell.begin(job.ticket);
        let started = inbox
            .desk
            .start(job.ticket, &inbox.cell, recently.horizon());
        if let Some(held_until) = started {
            let (verdict, panicked) = attempt(&mut service, &inbox, &job, held_until).await;
            inbox.cell.end();
            if panicked {
                // It may be half changed.
                service = prototype.clone();
            }
            if inbox.cell.has_waited() {
                recently.forget();
            }
            match verdict {
                Verdict::Settle(how) => {
                    inbox.desk.settle_at(job.ticket, how, recently.horizon());
                    inbox.queue.release(slot);
                }
                verdict => inbox.conclude(job, verdict),
            }
        } else {
            inbox.cell.end();
            inbox.inconclusive(&job);
            inbox.queue.not_started();
            inbox.queue.release(slot);
        }
        // A backlog and a handler that never waits must not starve the other tasks.
        tokio::task::coop::consume_budget().await;
    }
}

/// Runs the handler once, in its span; answers what follows, and whether the handler panicked.
async fn attempt<Svc>(
    service: &mut Svc,
    inbox: &Inbox,
    job: &Job,
    held_until: Instant,
) -> (Verdict, bool)
where
    Svc: Service<Delivery, Response = ()>,
    Svc::Error: Into<Failure>,
{
    let settings = &*inbox.settings;
    let time_limit = settings.handler_timeout.map(from_now);
    let tally = settings.tally(job);
    let run = Run {
        deadline: Some(time_limit.map_or(held_until, |limit| limit.min(held_until))),
        is_last: tally.exhausted,
        cell: Some(inbox.cell.clone()),
        ticket: job.ticket,
        extensions: None,
    };
    let attempt = tally.attempt.max(job.attempt());
    let delivery = job.delivery.clone().with_run(attempt, run);
    let (span, parent) = span::process(settings, &delivery);

    // The whole attempt is inside, the drop of the handler's future too: either may panic.
    let work = handle(service, delivery, &inbox.cell, time_limit);
    let work = AssertUnwindSafe(work).catch_unwind();
    let caught = if span.is_disabled() && parent.is_none() {
        work.await
    } else {
        trace::scope(span.clone(), parent, work).await
    };
    let (ended, panicked) = match caught {
        Ok(ended) => (ended, false),
        Err(panic) => (Ended::Failed(panic_failure(&*panic)), true),
    };
    record(&span, &ended);
    (inbox.verdict(job, &ended, &span, held_until), panicked)
}

/// Calls the service and waits for it, for a cancellation, or for the time limit.
pub(super) async fn handle<Svc, Req>(
    service: &mut Svc,
    request: Req,
    cell: &LaneCell,
    time_limit: Option<Instant>,
) -> Ended<Svc::Response>
where
    Svc: Service<Req>,
    Svc::Error: Into<Failure>,
{
    let called = pin!(async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    });
    let limit = pin!(async {
        match time_limit {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    });
    let (mut called, mut limit) = (called, limit);
    let ended = poll_fn(|cx| {
        if let Some(why) = cell.cancelled() {
            return Poll::Ready(Ended::Cancelled(why));
        }
        if let Poll::Ready(result) = called.as_mut().poll(cx) {
            return Poll::Ready(match result {
                Ok(response) => Ended::Done(response),
                Err(error) => Ended::Failed(error.into()),
            });
        }
        // Only a handler that waits needs to be woken.
        if let Some(why) = cell.poll_cancelled(cx.waker()) {
            return Poll::Ready(Ended::Cancelled(why));
        }
        limit.as_mut().poll(cx).map(|()| {
            Ended::Failed(Failure::typed(
                Disposition::Retry,
                "timeout",
                "handler timed out",
            ))
        })
    })
    .await;
    // Fires before the future is dropped, which is at the end of this function. After a handler
    // that returned, what it spawned goes on.
    match &ended {
        Ended::Cancelled(_) => cell.fire(),
        Ended::Failed(failure) if failure.error_type() == "timeout" => cell.fire(),
        Ended::Failed(_) | Ended::Done(_) => {}
    }
    ended
}

pub(super) fn panic_failure(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!("handler panicked: {}", words.unwrap_or("no message"));
    Failure::typed(Disposition::Retry, "panic", message)
}

pub(super) fn record<R>(span: &Span, ended: &Ended<R>) {
    match ended {
        Ended::Done(_) => {}
        Ended::Failed(failure) => {
            span.record("error.type", failure.error_type());
            if !failure.is_put_off() {
                span.record("otel.status_code", "ERROR");
            }
        }
        Ended::Cancelled(why) => {
            let why = match why {
                Cancel::LeaseLost | Cancel::BatchLost => "lease_lost",
                Cancel::Shutdown => "shutdown",
            };
            span.record("error.type", why);
        }
    }
}

// === impl Inbox ===

impl Inbox {
    /// Waits for a message that may run; `None` when there will be none.
    async fn next(&self, recently: &mut Recently) -> Option<Job> {
        if let Some(job) = self.queue.try_next() {
            return Some(job);
        }
        let job = self.queue.next().await;
        recently.forget();
        job
    }
}

// === impl LaneSettings ===

impl LaneSettings {
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
    pub(super) fn policy_of(&self, job: &Job) -> &Policy {
        if job.is_ordered() {
            &self.ordered_policy
        } else {
            &self.policy
        }
    }

    /// The attempt of a message that runs, or is next, should it fail.
    pub(super) fn tally(&self, job: &Job) -> Tally {
        let (delivered, limit) = (job.delivery.broker_attempt(), job.delivery.attempts_limit());
        self.policy_of(job).tally(delivered, limit, job.failures)
    }
}
