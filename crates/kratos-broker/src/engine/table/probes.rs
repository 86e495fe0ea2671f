//! How long settlements take, once somebody reads metrics: of each operation one at a time is
//! measured, since those that are under way together are sent together. To measure each would cost
//! every message a place in a map and two looks at the clock.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;

use super::Ticket;
use crate::{
    driver::{Settled, Settlement},
    engine::metrics::{OPERATIONS, Settlements},
};

/// No settlement of the operation is measured just now.
const NONE: u64 = u64::MAX;

/// The settlements of one group that are measured.
pub(super) struct Probes {
    /// By topic.
    topics: Vec<Settlements>,
    /// The tickets of the below, by operation: who is not measured looks no further.
    tickets: [AtomicU64; OPERATIONS],
    begun: Mutex<[Option<(Settlement, Instant)>; OPERATIONS]>,
}

// === impl Probes ===

impl Probes {
    pub(super) fn new(topics: Vec<Settlements>) -> Self {
        Self {
            topics,
            tickets: [const { AtomicU64::new(NONE) }; OPERATIONS],
            begun: Mutex::default(),
        }
    }

    /// A settlement is about to be handed to the driver, which answers it.
    #[inline]
    pub(super) fn begin(&self, ticket: Ticket, how: Settlement) {
        if self.tickets[how.number()].load(Relaxed) == NONE {
            self.measure(ticket, how);
        }
    }

    fn measure(&self, ticket: Ticket, how: Settlement) {
        let mut begun = self.lock();
        let place = &mut begun[how.number()];
        if place.is_none() {
            *place = Some((how, Instant::now()));
            self.tickets[how.number()].store(ticket.number(), Relaxed);
        }
    }

    /// The driver has answered these, which are still in the table: `topic` tells whose they are.
    pub(super) fn answered(&self, answers: &[Settled], topic: impl Fn(Ticket) -> Option<usize>) {
        // What is measured was noted before the driver knew of it.
        let tickets = self.tickets.each_ref().map(|ticket| ticket.load(Relaxed));
        for answer in answers {
            let is_measured = |ticket: &u64| *ticket == answer.ticket.number();
            let Some(number) = tickets.iter().position(is_measured) else {
                continue;
            };
            let begun = self.lock()[number].take();
            self.tickets[number].store(NONE, Relaxed);
            let of = topic(answer.ticket).and_then(|topic| self.topics.get(topic));
            if let (Some((how, begun)), Some(of)) = (begun, of) {
                of.ended(how, begun.elapsed(), answer.result.as_ref().err());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Option<(Settlement, Instant)>; OPERATIONS]> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
