//! A lane: a long-lived task that handles one message after another.

use std::{any::Any, panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{FutureExt, future::poll_fn};
use kratos::trace;
use tokio::time::{Instant, sleep_until};
use tower_service::Service;
use tracing::Span;

use super::{
    cell::{Cancel, LaneCell},
    counters::Counters,
    queue::{Job, Queue},
    span,
    ticket::Ticket,
};
use crate::{
    Delivery, Disposition, Failure, Group, Policy, clock::from_now, delivery::Run,
    driver::Settlement, extensions::Extensions,
};

/// The lease table, as lanes see it: it knows the driver, they do not.
pub(crate) trait Desk: Send + Sync {
    /// A message is about to run on a lane; `None` if its lease is gone. Answers when renewal of
    /// the lease ends.
    fn start(&self, ticket: Ticket, cell: &Arc<LaneCell>) -> Option<Instant>;

    /// A message waits again, for its next attempt in this process.
    fn wait(&self, ticket: Ticket);

    /// A message is over.
    fn settle(&self, ticket: Ticket, how: Settlement);

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

/// What all lanes of one subscription share.
pub(crate) struct LaneSettings {
    pub(crate) system: &'static str,
    pub(crate) group: Group,
    pub(crate) policy: Policy,
    pub(crate) ordered_policy: Policy,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) extensions: Arc<Extensions>,
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
pub(super) enum Ended<R = ()> {
    Done(R),
    Failed(Failure),
    Cancelled(Cancel),
}

/// What follows an attempt.
pub(super) enum Verdict {
    Settle(Settlement),
    Park(Duration),
    Fatal(kratos::Error),
    CutOff,
    GiveUp,
    /// The lease is gone: nothing to settle.
    Nothing,
}

/// A lane's whole loop, until the queue ends.
pub(crate) async fn run<Svc>(prototype: Svc, inbox: Inbox)
where
    Svc: Service<Delivery, Response = ()> + Clone,
    Svc::Error: Into<Failure>,
{
    let mut service = prototype.clone();
    while let Some(job) = inbox.queue.next().await {
        let slot = job.slot();
        inbox.cell.begin(job.ticket);
        if let Some(held_until) = inbox.desk.start(job.ticket, &inbox.cell) {
            let (ended, panicked) = attempt(&mut service, &inbox, &job, held_until).await;
            inbox.cell.end();
            if panicked {
                // It may be half changed.
                service = prototype.clone();
            }
            let verdict = inbox.verdict(&job, &ended);
            inbox.conclude(job, verdict);
        } else {
            inbox.cell.end();
            inbox.queue.release(slot);
        }
        // A backlog and a handler that never waits must not starve the other tasks.
        tokio::task::coop::consume_budget().await;
    }
}

/// Runs the handler once, in its span.
async fn attempt<Svc>(
    service: &mut Svc,
    inbox: &Inbox,
    job: &Job,
    held_until: Instant,
) -> (Ended, bool)
where
    Svc: Service<Delivery, Response = ()>,
    Svc::Error: Into<Failure>,
{
    let settings = &*inbox.settings;
    let time_limit = settings.handler_timeout.map(from_now);
    let run = Run {
        deadline: Some(time_limit.map_or(held_until, |limit| limit.min(held_until))),
        cell: Some(inbox.cell.clone()),
        ticket: job.ticket,
        extensions: settings.extensions.clone(),
    };
    let delivery = job.delivery.clone().with_run(job.attempt(), run);
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
    (ended, panicked)
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
        if let Some(why) = cell.poll_cancelled(cx.waker()) {
            return Poll::Ready(Ended::Cancelled(why));
        }
        if let Poll::Ready(result) = called.as_mut().poll(cx) {
            return Poll::Ready(match result {
                Ok(response) => Ended::Done(response),
                Err(error) => Ended::Failed(error.into()),
            });
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
            span.record("otel.status_code", "ERROR");
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

// === impl LaneSettings ===

impl LaneSettings {
    /// Whether this is the last attempt of a message that has failed before.
    pub(super) fn is_last_resort(&self, job: &Job) -> bool {
        let (attempt, exhausted) = attempts(job, self.policy_of(job));
        exhausted && attempt > 1
    }

    fn policy_of(&self, job: &Job) -> &Policy {
        if job.is_ordered() {
            &self.ordered_policy
        } else {
            &self.policy
        }
    }
}

// === impl Inbox ===

impl Inbox {
    /// What follows an attempt; counted and logged.
    pub(super) fn verdict(&self, job: &Job, ended: &Ended) -> Verdict {
        match ended {
            Ended::Done(()) => {
                self.settings.counters.handled();
                Verdict::Settle(Settlement::Ack)
            }
            Ended::Failed(failure) => self.judge(job, failure),
            Ended::Cancelled(Cancel::LeaseLost) => Verdict::Nothing,
            Ended::Cancelled(Cancel::BatchLost) => Verdict::GiveUp,
            Ended::Cancelled(Cancel::Shutdown) => Verdict::CutOff,
        }
    }

    /// Settles a message after its attempt, or parks it for the next one.
    pub(super) fn conclude(&self, job: Job, verdict: Verdict) {
        let (ticket, slot) = (job.ticket, job.slot());
        match verdict {
            Verdict::Park(wait) => return self.park(job, wait),
            Verdict::Settle(how) => self.desk.settle(ticket, how),
            Verdict::CutOff => self.desk.cut_off(ticket),
            Verdict::GiveUp => self.desk.give_up(ticket),
            Verdict::Fatal(error) => {
                self.desk.settle(ticket, Settlement::HandBack);
                self.desk.fatal(error);
                let behind = self.queue.hold(slot);
                return self
                    .desk
                    .hand_back(behind.iter().map(|job| job.ticket).collect());
            }
            Verdict::Nothing => {}
        }
        self.queue.release(slot);
    }

    fn judge(&self, job: &Job, failure: &Failure) -> Verdict {
        let settings = &*self.settings;
        settings.counters.failed();
        let policy = settings.policy_of(job);
        let (attempt, exhausted) = attempts(job, policy);
        let after = match failure.disposition() {
            Disposition::Retry => Some(policy.backoff.after(attempt)),
            Disposition::RetryAfter(wait) => Some(wait),
            Disposition::Poison => None,
            Disposition::Fatal => {
                let (topic, id) = (job.delivery.topic(), job.delivery.id());
                let what = format!("message {id} of topic {topic} failed fatally: {failure}");
                return Verdict::Fatal(kratos::Error::msg(what));
            }
        };
        match after {
            Some(wait) if !exhausted => {
                self.log(job, failure, "handler failed, the message will be retried");
                settings.counters.retried();
                if job.is_ordered() {
                    Verdict::Park(wait)
                } else {
                    Verdict::Settle(Settlement::RetryAfter(wait))
                }
            }
            _ => {
                self.log(job, failure, "handler failed, the message is dead-lettered");
                settings.counters.dead_lettered();
                Verdict::Settle(Settlement::DeadLetter)
            }
        }
    }

    /// Retries in this process: the slot waits, the lease is kept.
    fn park(&self, mut job: Job, wait: Duration) {
        job.failures += 1;
        let (ticket, slot) = (job.ticket, job.slot());
        self.desk.wait(ticket);
        let until = from_now(wait);
        let refused = match self.queue.park(job, until) {
            Err(mut job) if self.desk.is_overtaken(ticket) => {
                job.must_finish = true;
                self.queue.park(job, until).is_err()
            }
            parked => parked.is_err(),
        };
        if refused {
            // The process stops: the broker retries instead.
            self.desk.settle(ticket, Settlement::RetryAfter(wait));
            self.queue.release(slot);
        }
    }

    fn log(&self, job: &Job, failure: &Failure, what: &'static str) {
        tracing::warn!(
            group = %self.settings.group,
            topic = %job.delivery.topic(),
            message.id = %job.delivery.id(),
            attempt = job.attempt(),
            error.type = failure.error_type(),
            error = %failure,
            "{what}",
        );
    }
}

/// Which attempt of the policy has just failed, and whether it was the last one.
///
/// Ordered messages are retried in this process, which the broker does not count; for all others
/// the broker's count is the count.
fn attempts(job: &Job, policy: &Policy) -> (u32, bool) {
    if job.is_ordered() {
        let attempt = job.failures + 1;
        return (attempt, attempt >= policy.max_attempts);
    }
    let attempt = job.delivery.broker_attempt();
    let limit = job
        .delivery
        .attempts_limit()
        .unwrap_or(u32::MAX)
        .min(policy.max_attempts);
    (attempt, attempt >= limit)
}
