//! Leases: extended while they are needed, and what follows when one is lost.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use super::{
    Cancel, Table, Ticket,
    places::{Entry, Phase, ticket},
};
use crate::{clock::after, driver::Consumer};

/// A lease taken out to be extended.
pub(crate) struct Due<L> {
    pub(crate) ticket: Ticket,
    pub(crate) lease: L,
    pub(crate) expires_at: Instant,
}

impl<C: Consumer> Table<C> {
    /// Takes out the leases that are to be extended now: those that end within `margin`, except
    /// those whose time to be held is over.
    pub(crate) fn due(&self, margin: Duration) -> Vec<Due<C::Lease>> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut due = Vec::new();
        for (at, place) in state.places.iter_mut().enumerate() {
            let Some(entry) = &mut place.entry else {
                continue;
            };
            if entry.expires_at > after(now, margin) || entry.held_until <= now {
                continue;
            }
            if !matches!(entry.phase, Phase::Waiting) && !entry.is_on_its_way() {
                continue;
            }
            if let Some(lease) = entry.lease.take() {
                let ticket = ticket(at, place.generation);
                due.push(Due {
                    ticket,
                    lease,
                    expires_at: entry.expires_at,
                });
            }
        }
        due
    }

    /// A lease comes back from its extension.
    pub(crate) fn extended(&self, due: Due<C::Lease>, expires_at: Option<Instant>) {
        let Due { ticket, lease, .. } = due;
        let mut state = self.lock();
        let Some(entry) = state.entry(ticket) else {
            return;
        };
        if let Some(expires_at) = expires_at {
            entry.expires_at = expires_at;
            self.counters_of(entry).leases_extended();
        }
        if let Phase::Decided(how) = entry.phase {
            entry.phase = Phase::Settling(how);
            let topic = entry.topic;
            let room = state.loads[topic].settle();
            drop(state);
            self.hand_over(ticket, lease, how, room);
        } else {
            entry.lease = Some(lease);
        }
    }

    /// A lease is gone: the message is cancelled and forgotten.
    pub(crate) fn lost(&self, ticket: Ticket) {
        let mut state = self.lock();
        let Some(entry) = state.remove(ticket) else {
            return;
        };
        drop(state);
        self.forget(ticket, &entry);
    }

    /// Forgets every message whose lease has run out.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let mut gone = Vec::new();
        for (at, place) in state.places.iter().enumerate() {
            let Some(entry) = &place.entry else {
                continue;
            };
            // One that is away is being extended: its answer tells.
            if entry.expires_at <= now && entry.lease.is_some() {
                gone.push(ticket(at, place.generation));
            }
        }
        let gone: Vec<_> = gone
            .into_iter()
            .filter_map(|t| Some((t, state.remove(t)?)))
            .collect();
        drop(state);
        for (ticket, entry) in gone {
            self.forget(ticket, &entry);
        }
    }

    /// What has left the table while it waited, since this was asked last: its queue has it still.
    pub(crate) fn take_gone(&self) -> HashSet<Ticket> {
        std::mem::take(&mut self.lock().gone).into_iter().collect()
    }

    /// What follows from a lost lease: its handler is cancelled, and where a batch is one unit, all
    /// behind it end too. They would be out of order, and come again whatever we did.
    fn forget(&self, ticket: Ticket, entry: &Entry<C::Lease>) {
        if let Some(place) = entry.place {
            self.give_up_behind(place);
        }
        self.spans.lost(ticket);
        self.counters_of(entry).leases_lost();
        let (topic, id) = (&entry.delivery.topic, &entry.delivery.id);
        tracing::warn!(%topic, message.id = %id, "lease lost, the message comes again");
        match &entry.phase {
            Phase::Running(cell) => cell.cancel(ticket, Cancel::LeaseLost),
            Phase::Waiting => self.lock().gone.push(ticket),
            Phase::Burying | Phase::Decided(_) | Phase::Settling(_) => {}
        }
        self.freed.notify_waiters();
    }
}
