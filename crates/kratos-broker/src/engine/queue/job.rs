//! A message in a queue.

use crate::{delivery::Received, engine::ticket::Ticket};

/// A message that waits for a lane, or for its next attempt; `Job<()>` while its handler has it.
///
/// Small, as it is moved often.
#[derive(Debug)]
pub(crate) struct Job<D = Received> {
    pub(crate) ticket: Ticket,
    pub(crate) delivery: D,
    /// Failed attempts in this process.
    pub(crate) failures: u32,
    /// Where it waits if it has a key, or has been parked.
    pub(super) slot: u32,
    /// Never handed back while the deadline allows: the broker gives up after this attempt, or
    /// messages behind it in its batch are done.
    pub(crate) must_finish: bool,
    /// The one message that an open kill switch tries.
    pub(crate) probe: bool,
    /// Messages behind it wait for it.
    pub(super) ordered: bool,
}

/// A message that was received, and is in no queue yet. Begins with what goes on into the queue, so
/// that it is copied in the same pieces there as here.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Arrived {
    pub(crate) job: Job,
    /// The subscription, of the topic's.
    pub(crate) route: usize,
    /// Part of a batch that the broker settles as one unit.
    pub(crate) in_batch: bool,
    /// What it is kept in order by, if by anything.
    pub(super) key: Option<u64>,
}

/// In place of a slot's number: there are never so many.
const NO_SLOT: u32 = u32::MAX;

// === impl Job ===

impl Job {
    #[inline]
    pub(crate) fn new(ticket: Ticket, delivery: Received) -> Self {
        Self {
            ticket,
            delivery,
            failures: 0,
            slot: NO_SLOT,
            must_finish: false,
            probe: false,
            ordered: false,
        }
    }

    /// The message, when its key goes on without it.
    pub(crate) fn without_key(mut self) -> Self {
        self.slot = NO_SLOT;
        self
    }

    /// Which attempt comes next: the broker's count, and what was made here since.
    #[inline]
    pub(crate) fn attempt(&self) -> u32 {
        self.delivery.broker_attempt().saturating_add(self.failures)
    }

    /// The message for its handler, and what is left: not to count references is cheaper.
    #[inline]
    pub(crate) fn part(self) -> (Received, Job<()>) {
        self.swap(())
    }
}

impl Job<()> {
    /// Whole again.
    pub(crate) fn with(self, delivery: Received) -> Job {
        self.swap(delivery).1
    }
}

impl<D> Job<D> {
    /// Whether messages behind it wait for it.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    #[inline]
    pub(crate) fn slot(&self) -> Option<usize> {
        (self.slot != NO_SLOT).then_some(self.slot as usize)
    }

    /// The same in a slot.
    #[inline]
    pub(super) fn at(mut self, slot: usize) -> Self {
        // There are never more slots than messages in flight, which are bounded.
        self.slot = slot as u32;
        self
    }

    #[inline]
    fn swap<E>(self, delivery: E) -> (D, Job<E>) {
        let job = Job {
            ticket: self.ticket,
            delivery,
            failures: self.failures,
            slot: self.slot,
            must_finish: self.must_finish,
            probe: self.probe,
            ordered: self.ordered,
        };
        (self.delivery, job)
    }
}

// === impl Arrived ===

impl Arrived {
    #[inline]
    pub(crate) fn new(job: Job, route: usize, in_batch: bool) -> Self {
        Self {
            job,
            route,
            in_batch,
            key: None,
        }
    }
}
