//! What follows an attempt: settled, retried here or by the broker, kept, given up.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::{Ended, Inbox};
use crate::{
    Disposition, Failure,
    clock::from_now,
    dead_letter::Reason,
    driver::Settlement,
    engine::{burial::Grave, cell::Cancel, queue::Job, switch::Failed},
    policy::Tally,
};

/// What follows an attempt.
pub(crate) enum Verdict {
    Settle(Settlement),
    /// Tried again in this process.
    Park(Duration),
    /// The kill switch is open: it waits for that here, and the attempt does not count.
    Keep {
        /// The back-off, had it counted.
        wait: Duration,
        /// It would have been the last.
        exhausted: bool,
    },
    /// Its handler did not run: it waits for that here, and no attempt is spent.
    PutOff {
        wait: Duration,
        /// It has no other attempt.
        exhausted: bool,
    },
    /// Published to the dead-letter topic.
    Bury(Box<Grave>),
    Fatal(kratos::Error),
    CutOff,
    GiveUp,
    /// The lease is gone: nothing to settle.
    Nothing,
}

// === impl Inbox ===

impl Inbox {
    /// Decides what follows an attempt, in its span.
    pub(crate) fn verdict(
        &self,
        job: &Job,
        ended: &Ended,
        span: &Span,
        held_until: Instant,
    ) -> Verdict {
        match ended {
            Ended::Done(()) => {
                self.succeeded(job.probe);
                Verdict::Settle(Settlement::Ack)
            }
            Ended::Failed(failure) if failure.is_put_off() => {
                span.in_scope(|| self.put_off(job, failure, held_until))
            }
            Ended::Failed(failure) => span.in_scope(|| self.judge(job, failure, span, held_until)),
            Ended::Cancelled(why) => {
                self.inconclusive(job.probe);
                match why {
                    Cancel::LeaseLost => Verdict::Nothing,
                    Cancel::BatchLost => Verdict::GiveUp,
                    Cancel::Shutdown => Verdict::CutOff,
                }
            }
        }
    }

    /// Settles a message after its attempt, parks it for the next one, or gives it away.
    pub(crate) fn conclude(&self, mut job: Job, verdict: Verdict) {
        let (ticket, slot) = (job.ticket, job.slot());
        match verdict {
            Verdict::Park(wait) => {
                job.failures += 1;
                return self.park(job, from_now(wait), wait, false);
            }
            Verdict::Keep { wait, exhausted } => {
                // One that must be finished is tried while the process stops too: not in a hot loop.
                let wait_here = if job.must_finish {
                    wait
                } else {
                    Duration::ZERO
                };
                return self.park(job, from_now(wait_here), wait, exhausted);
            }
            Verdict::PutOff { wait, exhausted } => {
                return self.park(job, from_now(wait), wait, exhausted);
            }
            Verdict::Bury(grave) => return self.bury(job, grave),
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

    /// A handler returned.
    #[inline]
    pub(crate) fn succeeded(&self, probe: bool) {
        self.settings.counters.handled();
        if let Some(switch) = &self.settings.switch {
            switch.succeeded(probe);
        }
    }

    /// If this was the message that an open kill switch tries, it tries another.
    pub(crate) fn inconclusive(&self, probe: bool) {
        if probe && let Some(switch) = &self.settings.switch {
            switch.inconclusive();
        }
    }

    fn judge(&self, job: &Job, failure: &Failure, span: &Span, held_until: Instant) -> Verdict {
        let settings = &*self.settings;
        settings.counters.failed();
        let policy = settings.policy_of(job);
        let delivery = &job.delivery;
        let tally = settings.tally(job);
        settings
            .notes
            .failed(failure, &delivery.id, settings.attempt_of(job), span);
        let wait = match failure.disposition() {
            Disposition::Retry => policy.backoff.after(tally.attempt),
            Disposition::RetryAfter(wait) => wait,
            Disposition::Poison => {
                self.inconclusive(job.probe);
                return self.give_up(job, Reason::Poison, failure, span);
            }
            Disposition::Fatal => {
                let (topic, id) = (&delivery.topic, &delivery.id);
                let what = format!("message {id} of topic {topic} failed fatally: {failure}");
                return Verdict::Fatal(kratos::Error::msg(what));
            }
        };
        if self.is_switched_off(job, failure, tally) {
            self.log(
                job,
                failure,
                "handler failed, the message waits for the kill switch",
            );
            settings.counters.kept();
            let exhausted = tally.exhausted;
            return Verdict::Keep { wait, exhausted };
        }
        if tally.exhausted {
            return self.give_up(job, Reason::Exhausted, failure, span);
        }
        self.log(job, failure, "handler failed, the message will be retried");
        settings.counters.retried();
        if tally.here && (policy.is_all_here() || from_now(wait) < held_until) {
            Verdict::Park(wait)
        } else {
            Verdict::Settle(Settlement::RetryAfter(wait))
        }
    }

    /// Not a failure: it is neither counted, nor told to the kill switch, nor the end of a message
    /// that has no other attempt.
    fn put_off(&self, job: &Job, failure: &Failure, held_until: Instant) -> Verdict {
        self.inconclusive(job.probe);
        let settings = &*self.settings;
        let (policy, tally) = (settings.policy_of(job), settings.tally(job));
        let wait = match failure.disposition() {
            Disposition::RetryAfter(wait) => wait,
            _ => policy.backoff.after(tally.attempt),
        };
        tracing::debug!(message.id = %job.delivery.id, ?wait, why = %failure, "not handled now");
        let here = tally.here && (policy.is_all_here() || from_now(wait) < held_until);
        if here || tally.exhausted {
            let exhausted = tally.exhausted;
            Verdict::PutOff { wait, exhausted }
        } else {
            Verdict::Settle(Settlement::RetryAfter(wait))
        }
    }

    /// Tells the kill switch of a failure; answers whether it is open.
    fn is_switched_off(&self, job: &Job, failure: &Failure, tally: Tally) -> bool {
        let Some(switch) = &self.settings.switch else {
            return false;
        };
        // All its attempts were made in this process, one after another.
        let alone = tally.exhausted && job.failures > 0 && job.failures + 1 == tally.attempt;
        switch.failed(Failed {
            failure,
            probe: job.probe,
            used_up: alone.then_some(tally.attempt),
        })
    }

    fn give_up(&self, job: &Job, reason: Reason, failure: &Failure, span: &Span) -> Verdict {
        let what = match reason {
            Reason::Poison => "handler failed, the message is dead-lettered: poison",
            Reason::Exhausted => "handler failed, the message is dead-lettered: attempts exhausted",
        };
        self.log(job, failure, what);
        span.record("dead_letter.reason", reason.as_str());
        if let Some(metrics) = &self.settings.metrics {
            metrics.given_up(reason, failure);
        }
        match &self.settings.undertaker {
            None => {
                self.settings.counters.given_up(reason);
                Verdict::Settle(Settlement::DeadLetter)
            }
            Some(undertaker) => {
                span.record("dead_letter.topic", undertaker.topic().as_str());
                let attempt = self.settings.attempt_of(job);
                Verdict::Bury(undertaker.grave(job, attempt, reason, failure, span))
            }
        }
    }

    /// Gives a message to who publishes dead letters; its key waits until that is done.
    pub(crate) fn bury(&self, job: Job, grave: Box<Grave>) {
        self.desk.bury(job.ticket);
        let refused = match &self.settings.undertaker {
            Some(undertaker) => undertaker.bury(job, grave),
            None => Err(job),
        };
        if let Err(job) = refused {
            // The process ends, and nobody publishes any more.
            self.desk.cut_off(job.ticket);
            self.queue.release(job.slot());
        }
    }

    /// Keeps a message here until its next attempt, with its lease. If the process stops it goes
    /// back to the broker, or is tried here after `wait` if others are done behind it and the end
    /// is not before that.
    fn park(&self, job: Job, until: Instant, wait: Duration, exhausted: bool) {
        let (ticket, slot) = (job.ticket, job.slot());
        if !self.desk.wait(ticket) {
            // It is somebody else's: its key waits for nothing.
            return self.queue.release(slot);
        }
        let parked = match self.queue.park(job, until) {
            Err(mut job) if self.desk.is_overtaken(ticket) => {
                job.must_finish = true;
                self.queue.park(job, from_now(wait))
            }
            parked => parked,
        };
        let Err(job) = parked else {
            return;
        };
        if job.must_finish {
            // The process ends before its time comes.
            self.desk.cut_off(ticket);
        } else if exhausted {
            // It is not its fault, as far as anybody knows: no dead letter.
            self.desk.hand_back(vec![ticket]);
        } else {
            self.desk.settle(ticket, Settlement::RetryAfter(wait));
        }
        self.queue.release(slot);
    }

    fn log(&self, job: &Job, failure: &Failure, what: &'static str) {
        tracing::warn!(
            group = %self.settings.origin.group,
            topic = %job.delivery.topic,
            message.id = %job.delivery.id,
            attempt = self.settings.attempt_of(job),
            error.type = failure.error_type(),
            error = %failure,
            "{what}",
        );
    }
}
