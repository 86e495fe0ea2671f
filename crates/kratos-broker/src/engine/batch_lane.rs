//! A lane of batches: a long-lived task that handles several messages at once.
//!
//! What follows for each message is what follows for a single one: the verdicts are those of
//! [`lane`](super::lane). What is different: a batch has one lane cell, so whatever cancels one of
//! its messages cancels the handler; and of a key whose order is kept nothing is settled behind a
//! message that will be tried again.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
    sync::{Arc, PoisonError},
    vec,
};

use kratos::trace::{self, Subject};
use tokio::{sync::Mutex, time::Instant};
use tower_service::Service;
use tracing::Span;

use super::{
    cell::{Cancel, LaneCell},
    lane::{Attempt, Ended, Inbox, Verdict, record},
    queue::Job,
    span,
};
use crate::{
    BatchSettings, Deliveries, Disposition, Failure, Outcomes, batch::Results, clock::from_now,
    delivery::Run,
};

/// What all lanes of one batch subscription share.
#[derive(Debug)]
pub(crate) struct Gathering {
    settings: BatchSettings,
    /// Whose turn it is to fill a batch: lanes that wait for messages side by side would share
    /// them out in small batches.
    turn: Mutex<()>,
}

/// A batch whose handler has ended.
struct Handled {
    ended: Ended<Outcomes>,
    /// The messages that the handler has not seen, by their index, in order: they cannot be
    /// decoded.
    rejected: VecDeque<(usize, Failure)>,
    panicked: bool,
    span: Span,
    held_until: Instant,
}

/// How the attempt ended for each message that the handler has seen.
enum Fates {
    All(Ended),
    Each(vec::IntoIter<Result<(), Failure>>),
}

/// Messages of one key that are not settled, in order.
struct Unsettled {
    /// The one that failed, and what follows for it.
    failed: (Job, Verdict),
    /// Nothing is done before what stands in front of it: they come again.
    behind: Vec<Job>,
}

/// A lane's whole loop, until the queue ends.
pub(crate) async fn run<Svc>(prototype: Svc, gathering: Arc<Gathering>, inbox: Inbox)
where
    Svc: Service<Deliveries, Response = Outcomes> + Clone,
    Svc::Error: Into<Failure>,
{
    let mut service = prototype.clone();
    while let Some(taken) = gathering.next(&inbox).await {
        let cell = Arc::new(LaneCell::of_batch(inbox.cell.extensions().clone()));
        let mut slots: Vec<usize> = taken.iter().filter_map(Job::slot).collect();
        slots.sort_unstable();
        slots.dedup();
        let mut held_until = None;
        let mut jobs = Vec::with_capacity(taken.len());
        let now = Instant::now();
        for job in taken {
            // Without a lease it is somebody else's.
            if let Some(until) = inbox.desk.start(job.ticket, &cell, now) {
                held_until = held_until.map_or(Some(until), |least| Some(until.min(least)));
                jobs.push(job);
            } else {
                inbox.inconclusive(job.probe);
            }
        }
        if let Some(held_until) = held_until {
            let handled = attempt(&mut service, &inbox, &jobs, &cell, held_until).await;
            cell.end();
            if handled.panicked {
                // It may be half changed.
                service = prototype.clone();
            }
            let kept = inbox.conclude_batch(jobs, handled);
            slots.retain(|slot| kept.binary_search(slot).is_err());
        } else {
            inbox.queue.not_started();
        }
        for slot in slots {
            inbox.queue.release(Some(slot));
        }
        // A backlog and a handler that never waits must not starve the other tasks.
        tokio::task::coop::consume_budget().await;
    }
}

/// Runs the handler once, in its span.
async fn attempt<Svc>(
    service: &mut Svc,
    inbox: &Inbox,
    jobs: &[Job],
    cell: &Arc<LaneCell>,
    held_until: Instant,
) -> Handled
where
    Svc: Service<Deliveries, Response = Outcomes>,
    Svc::Error: Into<Failure>,
{
    let settings = &*inbox.settings;
    let time_limit = settings.handler_timeout.map(from_now);
    let deadline = time_limit.map_or(held_until, |limit| limit.min(held_until));
    let deliveries = jobs.iter().map(|job| {
        let tally = settings.tally(job);
        let run = Run {
            deadline: Some(deadline),
            is_last: tally.exhausted,
            cell: Some(cell.clone()),
            ticket: job.ticket,
            extensions: None,
        };
        let attempt = tally.attempt.max(job.attempt());
        job.delivery.clone().run(attempt, run)
    });
    let batch = Deliveries::new(deliveries.collect());
    let rejected = batch.rejected();
    let span = span::process_batch(inbox, &batch);
    let measured = settings.metrics.as_ref();
    let measured = measured.map(|metrics| {
        batch.iter().for_each(|delivery| metrics.starts(delivery));
        (metrics, Instant::now(), batch.len())
    });

    let work = Attempt::new(service, batch, cell, time_limit);
    let about = trace::is_told().then(|| Subject::new(settings.part.clone()));
    let mut work = pin!(trace::about(about, work));
    let attempted = if span.is_disabled() {
        work.await
    } else {
        trace::scope(span.clone(), None, work.as_mut()).await
    };
    let (ended, panicked) = match attempted {
        Ok(outcomes) => (Ended::Done(outcomes), false),
        Err(not_done) => (not_done.why.into(), not_done.panicked),
    };
    if let Some((metrics, begun, messages)) = measured {
        metrics.ended(messages, begun.elapsed(), ended.error_type());
    }
    record(&span, &ended);
    let rejected = std::mem::take(&mut *rejected.lock().unwrap_or_else(PoisonError::into_inner));
    if let Ended::Done(outcomes) = &ended
        && let Some(failure) = rejected
            .first()
            .map(|(_, f)| f)
            .or(outcomes.first_failure())
    {
        span.record("error.type", failure.error_type());
        span.record("otel.status_code", "ERROR");
    }
    Handled {
        ended,
        rejected: rejected.into(),
        panicked,
        span,
        held_until,
    }
}

// === impl Gathering ===

impl Gathering {
    pub(crate) fn new(settings: BatchSettings) -> Self {
        Self {
            settings,
            turn: Mutex::default(),
        }
    }

    /// The next batch; `None` when there will be none.
    async fn next(&self, inbox: &Inbox) -> Option<Vec<Job>> {
        let _turn = self.turn.lock().await;
        let settings = &inbox.settings;
        // Whatever is wrong with another message must not cost this one its life.
        let alone = |job: &Job| settings.is_last_resort(job);
        inbox.queue.next_batch(&self.settings, &alone).await
    }
}

// === impl Inbox ===

impl Inbox {
    /// Settles the messages of a batch, each by its own outcome, or puts them back; answers the
    /// slots that are taken care of, sorted.
    fn conclude_batch(&self, jobs: Vec<Job>, handled: Handled) -> Vec<usize> {
        if let Ended::Cancelled(_) = handled.ended {
            jobs.iter().for_each(|job| self.inconclusive(job.probe));
        }
        let Handled {
            ended,
            rejected,
            span,
            held_until,
            ..
        } = handled;
        let outcomes = match ended {
            Ended::Done(outcomes) => outcomes,
            Ended::Failed(failure) => Outcomes::failed(failure),
            Ended::Cancelled(Cancel::Shutdown) => {
                jobs.iter().for_each(|job| self.desk.cut_off(job.ticket));
                return Vec::new();
            }
            Ended::Cancelled(Cancel::LeaseLost | Cancel::BatchLost) => {
                self.run_again(jobs);
                return Vec::new();
            }
        };
        self.settle_each(jobs, rejected, outcomes, &span, held_until)
    }

    fn settle_each(
        &self,
        jobs: Vec<Job>,
        mut rejected: VecDeque<(usize, Failure)>,
        outcomes: Outcomes,
        span: &Span,
        held_until: Instant,
    ) -> Vec<usize> {
        let mut results = match outcomes.into_results(jobs.len() - rejected.len()) {
            Results::All(result) => Fates::All(ended(result)),
            Results::Each(each) => Fates::Each(each),
        };
        let mut unsettled: BTreeMap<usize, Unsettled> = BTreeMap::new();
        let mut settling = span::Settling::begin(self, span);
        for (index, job) in jobs.into_iter().enumerate() {
            let own;
            let fate = if let Some((_, failure)) = rejected.pop_front_if(|(at, _)| *at == index) {
                own = Ended::Failed(failure);
                &own
            } else {
                match &mut results {
                    Fates::All(ended) => &*ended,
                    Fates::Each(each) => {
                        own = ended(each.next().unwrap_or_else(|| Err(unknown())));
                        &own
                    }
                }
            };
            if let Some(before) = job.slot().and_then(|slot| unsettled.get_mut(&slot)) {
                if matches!(fate, Ended::Done(())) {
                    self.settings.counters.repeated();
                }
                before.behind.push(job);
                continue;
            }
            match (self.verdict(&job, fate, span, held_until), job.slot()) {
                (Verdict::Settle(how), _) => {
                    settling.settle(job.ticket, how);
                    self.desk.settle(job.ticket, how);
                }
                // Those behind it have run: they do not wait for it, nor does their key.
                (Verdict::Bury(grave), _) => self.bury(job.without_key(), grave),
                (verdict, None) => self.conclude(job, verdict),
                (verdict, Some(slot)) => {
                    let key = Unsettled {
                        failed: (job, verdict),
                        behind: Vec::new(),
                    };
                    unsettled.insert(slot, key);
                }
            }
        }
        self.put_back(unsettled)
    }

    fn put_back(&self, mut unsettled: BTreeMap<usize, Unsettled>) -> Vec<usize> {
        // None of them runs any more: only then can it be told what has overtaken the failed ones.
        for key in unsettled.values_mut() {
            key.behind.retain(|job| self.desk.wait(job.ticket));
        }
        let slots = unsettled.keys().copied().collect();
        for (slot, Unsettled { failed, behind }) in unsettled {
            self.back_to_slot(slot, behind);
            let (job, verdict) = failed;
            self.conclude(job, verdict);
        }
        slots
    }

    /// The batch was cancelled because a lease is lost. Its other messages have not failed, and run
    /// again.
    fn run_again(&self, jobs: Vec<Job>) {
        let mut keyed: BTreeMap<usize, Vec<Job>> = BTreeMap::new();
        let mut free = Vec::new();
        for job in jobs {
            if !self.desk.wait(job.ticket) {
                continue;
            }
            match job.slot() {
                Some(slot) => keyed.entry(slot).or_default().push(job),
                None => free.push(job),
            }
        }
        for (slot, jobs) in keyed {
            self.back_to_slot(slot, jobs);
        }
        for job in free.into_iter().rev() {
            if let Err(job) = self.queue.put_back_free(job) {
                self.desk.hand_back(vec![job.ticket]);
            }
        }
    }

    /// Puts messages of a key in front of those that wait. If the process stops they go back to the
    /// broker, except what others have overtaken, which is finished here.
    fn back_to_slot(&self, slot: usize, jobs: Vec<Job>) {
        let Err(mut jobs) = self.queue.put_back(slot, jobs) else {
            return;
        };
        let overtaken = |job: &Job| job.must_finish || self.desk.is_overtaken(job.ticket);
        let keep = jobs.iter().rposition(overtaken).map_or(0, |last| last + 1);
        let back = jobs.split_off(keep);
        jobs.iter_mut().for_each(|job| job.must_finish = true);
        for job in self.queue.put_back(slot, jobs).err().unwrap_or_default() {
            // The process ends before it can start.
            self.desk.cut_off(job.ticket);
        }
        self.desk
            .hand_back(back.iter().map(|job| job.ticket).collect());
    }
}

/// There are as many results as messages, so this is never seen.
fn unknown() -> Failure {
    Failure::typed(Disposition::Retry, "no_outcome", "no outcome")
}

fn ended(result: Result<(), Failure>) -> Ended {
    match result {
        Ok(()) => Ended::Done(()),
        Err(failure) => Ended::Failed(failure),
    }
}
