//! Where tests listen in on a driver, and make it lie.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    Delivery, DeliveryParts, Error, ErrorKind, Message, RecallHandle, Receipt, Result,
    clock::from_now,
    driver::{GroupSpec, Settled, Settlement, Ticket},
    testing::Journal,
};

/// Where tests listen in on a driver: a driver that holds one, and tells it of everything, can be
/// given to a [`TestApp`](crate::testing::TestApp). Nobody listens until there is a journal.
#[derive(Clone, Debug, Default)]
pub struct Tap {
    journal: Option<Journal>,
}

/// A message on its way to the broker: dropped, it was not confirmed.
#[derive(Debug)]
#[must_use]
pub struct Sending {
    noted: Option<(Journal, DeliveryParts, Instant)>,
}

/// A member of a group, as a test sees it: kept by the driver's consumer for as long as that is in
/// the group.
#[derive(Debug, Default)]
pub struct Member {
    seat: Option<Seat>,
}

#[derive(Debug)]
struct Seat {
    journal: Journal,
    number: u64,
    invisible: Duration,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    leases: HashMap<u64, Delivery>,
    settling: HashMap<u64, Settling>,
}

/// What the engine wants, and what it is told.
#[derive(Debug)]
struct Settling {
    delivery: Delivery,
    how: Settlement,
    lie: Option<Lie>,
}

/// A fault on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The acknowledgement is confirmed and forgotten.
    DroppedAck,
    /// The message is delivered once more.
    Duplicate,
    /// The lease is out of date.
    Expired,
}

// === impl Tap ===

impl Tap {
    /// A message is about to be sent.
    pub fn sending(&self, message: &Message) -> Sending {
        let noted = self.journal.as_ref().map(|journal| {
            journal.sending();
            let parts = message.clone().into_parts();
            let now = SystemTime::now();
            let delay = parts.deliver_at.map(|at| at.duration_since(now));
            let due = from_now(delay.and_then(std::result::Result::ok).unwrap_or_default());
            let mut delivery = DeliveryParts::new("", parts.topic, parts.body);
            delivery.headers = parts.headers;
            delivery.keys = parts.keys;
            delivery.tag = parts.tag;
            delivery.group = parts.group;
            (journal.clone(), delivery, due)
        });
        Sending { noted }
    }

    /// A delayed message was called back.
    pub fn recalled(&self, handle: &RecallHandle) {
        if let Some(journal) = &self.journal {
            journal.recalled(handle);
        }
    }

    /// A consumer has joined a group.
    pub fn member(&self, spec: &GroupSpec) -> Member {
        let seat = self.journal.as_ref().map(|journal| Seat {
            journal: journal.clone(),
            number: journal.joined(spec),
            invisible: spec.invisible,
            held: Mutex::default(),
        });
        Member { seat }
    }
}

impl From<Journal> for Tap {
    fn from(journal: Journal) -> Self {
        Self {
            journal: Some(journal),
        }
    }
}

// === impl Sending ===

impl Sending {
    /// The broker has confirmed it.
    pub fn sent(mut self, receipt: &Receipt) {
        if let Some((journal, mut parts, due)) = self.noted.take() {
            parts.id = receipt.id.clone();
            journal.sent(Delivery::from(parts), due, receipt.recall.as_ref());
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some((journal, ..)) = self.noted.take() {
            journal.not_sent();
        }
    }
}

// === impl Member ===

impl Member {
    /// A message was received, under a number that no other lease of this consumer has.
    pub fn received(&self, lease: u64, delivery: &Delivery) {
        let Some(seat) = &self.seat else { return };
        seat.journal.received(seat.number, delivery);
        seat.held().leases.insert(lease, delivery.clone());
    }

    /// A message is about to be settled; answers how to settle it really.
    #[must_use]
    pub fn settle(&self, lease: u64, ticket: Ticket, how: Settlement) -> Settlement {
        let Some(seat) = &self.seat else { return how };
        let mut held = seat.held();
        let Some(delivery) = held.leases.remove(&lease) else {
            return how;
        };
        let lie = seat.journal.lie(seat.number, &delivery, how);
        let settling = Settling { delivery, how, lie };
        held.settling.insert(ticket.number(), settling);
        match lie {
            None => how,
            // As if it was left to lapse.
            Some(Lie::DroppedAck) => Settlement::RetryAfter(seat.invisible),
            Some(Lie::Duplicate | Lie::Expired) => Settlement::HandBack,
        }
    }

    /// The broker has answered a settlement; changes the answer if a test wants another.
    pub fn settled(&self, settled: &mut Settled) {
        let Some(seat) = &self.seat else { return };
        let settling = seat.held().settling.remove(&settled.ticket.number());
        let Some(Settling { delivery, how, lie }) = settling else {
            return;
        };
        if lie == Some(Lie::Expired) {
            settled.result = Err(expired());
        }
        if settled.result.is_ok() {
            seat.journal.settled(seat.number, &delivery, how, lie);
        }
    }

    /// A lease is about to be extended.
    ///
    /// # Errors
    ///
    /// A test has taken it away.
    pub fn extend(&self, lease: u64) -> Result<()> {
        let Some(seat) = &self.seat else {
            return Ok(());
        };
        let mut held = seat.held();
        let expired_here = held
            .leases
            .get(&lease)
            .is_some_and(|delivery| seat.journal.is_expired(seat.number, delivery));
        if expired_here {
            held.leases.remove(&lease);
            return Err(expired());
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.journal.left(seat.number);
        }
    }
}

impl Seat {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expired() -> Error {
    Error::new(ErrorKind::LeaseLost, "the lease has expired on demand")
}
