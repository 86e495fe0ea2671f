//! Several messages at once: what a lane takes for a batch, and what it puts back.

use std::cmp::Reverse;

use tokio::time::{Instant, sleep_until};

use super::{
    Job, Queue,
    slots::{Mode, Ready, State},
};
use crate::{BatchSettings, clock::from_now};

/// A batch that is being filled.
struct Filling<'a> {
    settings: &'a BatchSettings,
    /// Which messages are handled by themselves.
    alone: &'a (dyn Fn(&Job) -> bool + Sync),
    jobs: Vec<Job>,
    bytes: usize,
    /// Whose messages are in the batch: no other lane takes from them.
    slots: Vec<usize>,
    /// It takes no more: its message is alone, or the next one does not fit.
    closed: bool,
}

/// What a look at the queue has told a batch.
enum Look {
    /// There may be more soon, at that time for certain.
    Hungry(Option<Instant>),
    /// It is as full as it gets.
    Full,
    /// Nothing may start now.
    Shut,
}

// === impl Queue ===

impl Queue {
    /// Waits for messages that may run, and for more to come with them, up to the settings' linger;
    /// `None` when there will be none. What is `alone` comes by itself.
    ///
    /// Messages of one key come in order, as many as there are.
    pub(crate) async fn next_batch(
        &self,
        settings: &BatchSettings,
        alone: &(dyn Fn(&Job) -> bool + Sync),
    ) -> Option<Vec<Job>> {
        loop {
            let first = self.next().await?;
            if let Some(jobs) = self.gather(settings, alone, first).await {
                return Some(jobs);
            }
        }
    }

    /// Waits for what comes with a first message; `None` if nothing may start any more: all is back
    /// in its place then.
    async fn gather(
        &self,
        settings: &BatchSettings,
        alone: &(dyn Fn(&Job) -> bool + Sync),
        first: Job,
    ) -> Option<Vec<Job>> {
        let mut filling = Filling {
            settings,
            alone,
            bytes: first.delivery.body.len(),
            slots: first.slot().into_iter().collect(),
            closed: first.probe || alone(&first),
            jobs: vec![first],
        };
        let until = from_now(settings.linger);
        loop {
            let _waiter = self.waiter();
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let more_at = match self.fill(&mut filling) {
                Look::Hungry(more_at) => more_at,
                Look::Full => break,
                Look::Shut => {
                    self.take_back(filling);
                    return None;
                }
            };
            if Instant::now() >= until {
                break;
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(more_at.map_or(until, |at| at.min(until))) => {}
            }
        }
        // Hand the baton on: another lane takes the next one, or watches the next time.
        self.changed.notify_one();
        Some(filling.jobs)
    }

    /// Puts what a lane has taken of one slot back in front of it, in order; the slot stays the
    /// lane's. Gives all back if the queue does not take every one.
    pub(crate) fn put_back(&self, slot: usize, jobs: Vec<Job>) -> Result<(), Vec<Job>> {
        let mut state = self.lock();
        if !state.takes_back(&jobs) {
            return Err(jobs);
        }
        for job in jobs.into_iter().rev() {
            state.slots[slot].jobs.push_front(job);
        }
        Ok(())
    }

    /// Puts a message that has no slot back in front of all; gives it back if the queue does not
    /// take it.
    pub(crate) fn put_back_free(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if !state.takes_back(std::slice::from_ref(&job)) {
            return Err(job);
        }
        state.ready.push_front(Ready::Free(job));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Puts everything in front again, in order.
    fn take_back(&self, filling: Filling<'_>) {
        let mut state = self.lock();
        for job in filling.jobs.into_iter().rev() {
            match job.slot() {
                Some(at) => state.slots[at].jobs.push_front(job),
                None => state.ready.push_front(Ready::Free(job)),
            }
        }
        // Still busy, and listed again.
        for at in filling.slots.into_iter().rev() {
            state.ready.push_front(Ready::Slot(at));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Takes what is there.
    fn fill(&self, filling: &mut Filling<'_>) -> Look {
        let mut state = self.lock();
        if filling.closed || state.mode == Mode::Paused {
            return Look::Full;
        }
        if !state.is_free() {
            return Look::Shut;
        }
        state.unpark();
        // What has come for a key of the batch is listed nowhere: its slot is taken.
        for held in 0..filling.slots.len() {
            filling.take_of(&mut state, held);
        }
        while !filling.is_full()
            && let Some(entry) = state.ready.pop_front()
        {
            match entry {
                Ready::Free(job) if filling.fits(&job) => filling.add(job),
                Ready::Slot(at) if state.slots[at].jobs.is_empty() => {
                    state.let_go(at);
                }
                Ready::Slot(at) if filling.fits(&state.slots[at].jobs[0]) => {
                    filling.slots.push(at);
                    filling.take_of(&mut state, filling.slots.len() - 1);
                }
                too_much => {
                    state.ready.push_front(too_much);
                    filling.closed = true;
                }
            }
        }
        if state.ready.is_empty() {
            self.hungry.notify_waiters();
        }
        if filling.is_full() || state.mode != Mode::Open {
            Look::Full
        } else {
            Look::Hungry(state.parked.peek().map(|Reverse((at, _))| *at))
        }
    }
}

// === impl Filling ===

impl Filling<'_> {
    fn fits(&self, job: &Job) -> bool {
        let bytes = self.bytes.saturating_add(job.delivery.body.len());
        !self.is_full() && bytes <= self.settings.max_bytes && !(self.alone)(job)
    }

    fn is_full(&self) -> bool {
        self.closed
            || self.jobs.len() >= self.settings.max_messages
            || self.bytes >= self.settings.max_bytes
    }

    fn add(&mut self, mut job: Job) {
        job.probe = false;
        self.bytes = self.bytes.saturating_add(job.delivery.body.len());
        self.jobs.push(job);
    }

    /// Takes what fits of a slot that the batch holds.
    fn take_of(&mut self, state: &mut State, held: usize) {
        let waiting = &mut state.slots[self.slots[held]].jobs;
        while let Some(job) = waiting.pop_front_if(|job| self.fits(job)) {
            self.add(job);
        }
    }
}
