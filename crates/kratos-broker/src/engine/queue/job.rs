//! A message in a queue.

use crate::{delivery::Received, engine::ticket::Ticket};

/// A message that waits for a lane, or for its next attempt; `Job<()>` while its handler has it.
#[derive(Debug)]
pub(crate) struct Job<D = Received> {
    pub(crate) ticket: Ticket,
    pub(crate) delivery: D,
    /// Failed attempts in this process.
    pub(crate) failures: u32,
    /// Never handed back while the deadline allows: the broker gives up after this attempt, or
    /// messages behind it in its batch are done.
    pub(crate) must_finish: bool,
    /// The subscription, of the topic's.
    pub(crate) route: usize,
    /// Part of a batch that the broker settles as one unit.
    pub(crate) in_batch: bool,
    /// The one message that an open kill switch tries.
    pub(crate) probe: bool,
    /// Messages behind it wait for it.
    pub(super) ordered: bool,
    /// What it is kept in order by, if by anything.
    pub(super) key: Option<u64>,
    /// Where it waits if it has a key, or has been parked.
    pub(super) slot: Option<usize>,
}

// === impl Job ===

impl Job {
    pub(crate) fn new(ticket: Ticket, delivery: Received) -> Self {
        Self {
            ticket,
            delivery,
            failures: 0,
            must_finish: false,
            route: 0,
            in_batch: false,
            probe: false,
            ordered: false,
            key: None,
            slot: None,
        }
    }

    /// The message, when its key goes on without it.
    pub(crate) fn without_key(mut self) -> Self {
        self.slot = None;
        self
    }

    /// Which attempt comes next: the broker's count, and what was made here since.
    pub(crate) fn attempt(&self) -> u32 {
        self.delivery.broker_attempt().saturating_add(self.failures)
    }

    /// The message for its handler, and what is left: not to count references is cheaper.
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

    pub(crate) fn slot(&self) -> Option<usize> {
        self.slot
    }

    fn swap<E>(self, delivery: E) -> (D, Job<E>) {
        let job = Job {
            ticket: self.ticket,
            delivery,
            failures: self.failures,
            must_finish: self.must_finish,
            route: self.route,
            in_batch: self.in_batch,
            probe: self.probe,
            ordered: self.ordered,
            key: self.key,
            slot: self.slot,
        };
        (self.delivery, job)
    }
}
