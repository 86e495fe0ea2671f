//! The end of a queue: what a stop takes out of it.

use std::collections::{HashSet, VecDeque};

use tokio::time::Instant;

use super::{
    Job, Queue, Ticket,
    slots::{Mode, Ready},
};

/// What a drain takes out.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    /// To be handed back.
    pub(crate) back: Vec<Job>,
    /// What must be finished, and cannot start before handlers are cut off.
    pub(crate) late: Vec<Job>,
}

impl Queue {
    /// Lets nothing start until the [drain](Queue::drain).
    pub(crate) fn pause(&self) {
        let mut state = self.lock();
        if state.mode == Mode::Open {
            state.mode = Mode::Paused;
        }
    }

    /// How many messages have not started.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// The messages that have not started.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        let state = self.lock();
        let free = state.ready.iter().filter_map(|entry| match entry {
            Ready::Free(job) => Some(job.ticket),
            Ready::Slot(_) => None,
        });
        let slots = state.slots.iter().flat_map(|slot| &slot.jobs);
        free.chain(slots.map(|job| job.ticket)).collect()
    }

    /// Lets nothing in but what must be finished, `also` among it, and takes out what has not
    /// started. An ordered message stays if one behind it in its slot must. Nothing stays that
    /// cannot start before the `cut`.
    pub(crate) fn drain(&self, also: &HashSet<Ticket>, cut: Instant) -> Drained {
        let mut state = self.lock();
        if matches!(state.mode, Mode::Open | Mode::Paused) {
            state.mode = Mode::Draining;
        }
        state.cut = Some(cut);
        let all_in_vain = state.is_in_vain();
        let too_late = state.parked_too_late();
        let Drained { mut back, mut late } = Drained::default();
        let mut ready = VecDeque::new();
        for entry in std::mem::take(&mut state.ready) {
            match entry {
                Ready::Free(mut job) => {
                    job.must_finish |= also.contains(&job.ticket);
                    match (job.must_finish, all_in_vain) {
                        (true, false) => ready.push_back(Ready::Free(job)),
                        (true, true) => late.push(job),
                        (false, _) => back.push(job),
                    }
                }
                slot @ Ready::Slot(_) => ready.push_back(slot),
            }
        }
        for (at, slot) in state.slots.iter_mut().enumerate() {
            for job in &mut slot.jobs {
                job.must_finish |= also.contains(&job.ticket);
            }
            let held = std::mem::take(&mut slot.held);
            let last = slot.jobs.iter().rposition(|job| job.must_finish);
            if held && self.fifo {
                // Behind one that comes again nothing is finished for good in a kept order.
                back.extend(slot.jobs.drain(..));
            } else if all_in_vain || too_late.contains(&at) {
                let (must, may): (Vec<_>, Vec<_>) =
                    slot.jobs.drain(..).partition(|job| job.must_finish);
                late.extend(must);
                back.extend(may);
            } else {
                back.extend(slot.jobs.drain(last.map_or(0, |at| at + 1)..));
            }
            if held {
                ready.push_back(Ready::Slot(at));
            }
        }
        state.ready = ready;
        state.forget_empty_slots();
        drop(state);
        self.changed.notify_waiters();
        Drained { back, late }
    }

    /// No more will come: lanes end when nothing waits.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        if state.mode != Mode::Closed {
            state.mode = Mode::Finishing;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes out everything that has not started, and ends the lanes.
    pub(crate) fn close(&self) -> Vec<Job> {
        let mut state = self.lock();
        state.mode = Mode::Closed;
        let mut out = Vec::new();
        for entry in std::mem::take(&mut state.ready) {
            if let Ready::Free(job) = entry {
                out.push(job);
            }
        }
        for slot in &mut state.slots {
            out.extend(slot.jobs.drain(..));
        }
        state.forget_empty_slots();
        drop(state);
        self.changed.notify_waiters();
        out
    }
}
