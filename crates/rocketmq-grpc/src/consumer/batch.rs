//! The batches of an orderly group: what one receive brought of one queue.
//!
//! The server settles a queue's batch as one unit: an acknowledgement is kept only if everything
//! before it in the batch is settled as well. What is handed back, runs out or is dropped comes
//! again with everything behind it, acknowledged or not. So an acknowledgement that the server has
//! confirmed waits here until those before it are confirmed, too.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::settler::{Job, Settler};
use crate::{Error, lease::BatchId};

/// A lease that ran out is looked at again so much later, when an extension that was answered at
/// the last moment is known.
const LAPSE_GRACE: Duration = Duration::from_millis(100);

/// What one receive brought of one queue, in its order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: BatchId,
    pub(crate) broker: Arc<str>,
    pub(crate) queue_id: i32,
    settler: Weak<Settler>,
    slots: Mutex<Slots>,
    /// Something happened to a slot.
    changed: Notify,
}

/// A message's place in its batch. Dropped unsettled, it tells that the message comes again.
#[derive(Debug)]
pub(crate) struct Member {
    /// None when the settlement is known.
    batch: Option<Arc<Batch>>,
    position: usize,
}

#[derive(Debug)]
struct Slots {
    slots: Vec<Slot>,
    /// All before are confirmed.
    confirmed: usize,
    /// It comes again, with all behind it.
    lost: Option<usize>,
    /// A task watches the leases before those that wait.
    watched: bool,
}

#[derive(Debug)]
enum Slot {
    /// Held by the caller, until then.
    Open(Instant),
    /// Its settlement is under way.
    Settling,
    /// Confirmed by the server; it waits for those before it.
    Waiting(Box<Job>),
    Answered,
}

/// Settlements and what became of them.
type Answers = Vec<(Job, Result<(), Error>)>;

impl Batch {
    /// Of `len` messages that are held until `deadline`.
    pub(super) fn new(
        settler: &Arc<Settler>,
        broker: Arc<str>,
        queue_id: i32,
        len: usize,
        deadline: Instant,
    ) -> Arc<Self> {
        static BATCHES: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: BatchId(BATCHES.fetch_add(1, Ordering::Relaxed)),
            broker,
            queue_id,
            settler: Arc::downgrade(settler),
            slots: Mutex::new(Slots {
                slots: (0..len).map(|_| Slot::Open(deadline)).collect(),
                confirmed: 0,
                lost: None,
                watched: false,
            }),
            changed: Notify::new(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.slots().slots.len()
    }

    /// Those of the batch in its order.
    pub(super) fn members(self: &Arc<Self>) -> impl Iterator<Item = Member> {
        let batch = self.clone();
        (0..self.len()).map(move |position| Member {
            batch: Some(batch.clone()),
            position,
        })
    }

    /// Ends leases that ran out, as long as a settlement waits for one.
    async fn watch(self: Arc<Self>, settler: Arc<Settler>) {
        loop {
            let changed = self.changed.notified();
            let (waits, lapse) = self.slots().next_lapse();
            if !waits {
                return;
            }
            let lapsed = async {
                match lapse {
                    Some(at) => tokio::time::sleep_until(at + LAPSE_GRACE).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = settler.abort.cancelled() => {
                    let waiting = self.slots().take_waiting(0);
                    waiting.into_iter().for_each(|job| settler.give_up(job));
                    return;
                }
                () = changed => {}
                () = lapsed => {
                    let answers = self.slots().lapse(Instant::now());
                    answers.into_iter().for_each(|(job, result)| settler.answer(job, result));
                }
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    pub(crate) fn batch(&self) -> Option<&Arc<Batch>> {
        self.batch.as_ref()
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn extended(&self, deadline: Instant) {
        self.set(Slot::Open(deadline));
    }

    pub(super) fn settling(&self) {
        self.set(Slot::Settling);
    }

    /// Of one that the caller still holds.
    fn set(&self, slot: Slot) {
        let Some(batch) = &self.batch else { return };
        let mut slots = batch.slots();
        if let Some(current @ Slot::Open(_)) = slots.slots.get_mut(self.position) {
            *current = slot;
        }
        drop(slots);
        batch.changed.notify_one();
    }

    /// What is to be answered now that the server has answered `job`, which was at this place.
    pub(super) fn answered(mut self, job: Job, result: Result<(), Error>) -> Answers {
        let Some(batch) = self.batch.take() else {
            return vec![(job, result)];
        };
        let mut slots = batch.slots();
        let answers = slots.answered(self.position, job, result);
        let watch = slots.waits() && !std::mem::replace(&mut slots.watched, true);
        drop(slots);
        batch.changed.notify_one();
        if watch && let Some(settler) = batch.settler.upgrade() {
            settler.clone().spawn(batch.watch(settler));
        }
        answers
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        let mut slots = batch.slots();
        let answers = slots.lose(self.position);
        drop(slots);
        if let Some(settler) = batch.settler.upgrade() {
            for (job, result) in answers {
                settler.answer(job, result);
            }
        }
        batch.changed.notify_one();
    }
}

impl Slots {
    fn answered(&mut self, position: usize, job: Job, result: Result<(), Error>) -> Answers {
        if result.is_err() || job.wants_delivery() {
            let mut answers = vec![(job, result)];
            answers.extend(self.lose(position));
            return answers;
        }
        if self.lost.is_some_and(|lost| lost <= position) {
            self.put(position, Slot::Answered);
            let error = comes_again(&job);
            return vec![(job, Err(error))];
        }
        self.put(position, Slot::Waiting(Box::new(job)));
        let mut answers = Vec::new();
        while let Some(slot @ Slot::Waiting(_)) = self.slots.get_mut(self.confirmed) {
            if let Slot::Waiting(job) = std::mem::replace(slot, Slot::Answered) {
                answers.push((*job, Ok(())));
            }
            self.confirmed += 1;
        }
        answers
    }

    fn lose(&mut self, position: usize) -> Answers {
        self.put(position, Slot::Answered);
        self.lost = Some(self.lost.map_or(position, |lost| lost.min(position)));
        let waiting = self.take_waiting(position);
        let failed = waiting.into_iter().map(|job| {
            let error = comes_again(&job);
            (job, Err(error))
        });
        failed.collect()
    }

    fn lapse(&mut self, now: Instant) -> Answers {
        let over =
            |slot: &Slot| matches!(slot, Slot::Open(deadline) if *deadline + LAPSE_GRACE <= now);
        match self.slots.iter().position(over) {
            Some(first) => self.lose(first),
            None => Vec::new(),
        }
    }

    /// Whether any settlement waits, and when the first lease before one runs out.
    fn next_lapse(&mut self) -> (bool, Option<Instant>) {
        let last = self.slots.iter().rposition(Slot::waits);
        self.watched = last.is_some();
        let before = self.slots.iter().take(last.unwrap_or(0));
        let deadlines = before.filter_map(|slot| match slot {
            Slot::Open(deadline) => Some(*deadline),
            Slot::Settling | Slot::Waiting(_) | Slot::Answered => None,
        });
        (last.is_some(), deadlines.min())
    }

    fn waits(&self) -> bool {
        self.slots.iter().any(Slot::waits)
    }

    fn take_waiting(&mut self, from: usize) -> Vec<Job> {
        let mut waiting = Vec::new();
        for slot in self.slots.iter_mut().skip(from) {
            if slot.waits()
                && let Slot::Waiting(job) = std::mem::replace(slot, Slot::Answered)
            {
                waiting.push(*job);
            }
        }
        waiting
    }

    fn put(&mut self, position: usize, slot: Slot) {
        if let Some(place) = self.slots.get_mut(position) {
            *place = slot;
        }
    }
}

impl Slot {
    fn waits(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}

fn comes_again(job: &Job) -> Error {
    let text = format!(
        "message {} was settled, but one before it in its queue was not: both will be delivered \
         again",
        job.grip.message_id
    );
    Error::lease_expired(text, None)
}
