//! The places of the table: who is in flight, and what a topic has.

use std::sync::Arc;

use tokio::time::Instant;

use super::{LaneCell, Ticket, load::Load};
use crate::{
    MessageId,
    delivery::Received,
    driver::{BatchPlace, Settlement},
};

pub(super) struct State<L> {
    pub(super) places: Vec<Place<L>>,
    pub(super) free: Vec<u32>,
    pub(super) loads: Vec<Load>,
    /// Messages that the shutdown cut off.
    pub(super) cut_off: Vec<MessageId>,
    /// Receives may be under way: nothing is handed back yet.
    pub(super) intake_open: bool,
    /// To be handed back when intake has ended; leased until then.
    pub(super) put_back: Vec<Ticket>,
    /// Lost or given up while they waited: still in their queues.
    pub(super) gone: Vec<Ticket>,
    /// The server stops: what will come again is reported at its end.
    pub(super) draining: bool,
    /// Handlers are being cut off: none starts.
    pub(super) closing: bool,
}

/// Tickets are place and generation, so that a late one finds nothing.
pub(super) struct Place<L> {
    pub(super) generation: u32,
    pub(super) entry: Option<Entry<L>>,
}

pub(super) struct Entry<L> {
    pub(super) delivery: Received,
    pub(super) topic: usize,
    /// The subscription, of the topic's.
    pub(super) route: usize,
    /// Absent while it is being extended, and once it is settled.
    pub(super) lease: Option<L>,
    pub(super) expires_at: Instant,
    /// When renewal ends.
    pub(super) held_until: Instant,
    pub(super) place: Option<BatchPlace>,
    /// Its batch was lost while it ran: it does not wait for another attempt.
    pub(super) batch_lost: bool,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    Waiting,
    Running(Arc<LaneCell>),
    /// It is given up, and published to the dead-letter topic.
    Burying,
    /// Decided while the lease was away for an extension.
    Decided(Settlement),
    /// Handed to the driver, not confirmed yet.
    Settling(Settlement),
}

// === impl State ===

impl<L> State<L> {
    /// A place for a message.
    #[inline]
    pub(super) fn vacant(&mut self) -> (Ticket, &mut Option<Entry<L>>) {
        let at = match self.free.pop() {
            Some(at) => at as usize,
            None => {
                self.places.push(Place {
                    generation: 0,
                    entry: None,
                });
                self.places.len() - 1
            }
        };
        let place = &mut self.places[at];
        (ticket(at, place.generation), &mut place.entry)
    }

    /// A message runs from now on; answers when renewal of its lease ends. `None` if it may not run.
    #[inline]
    pub(super) fn start(
        &mut self,
        ticket: Ticket,
        cell: Arc<LaneCell>,
        horizon: Instant,
    ) -> Option<Instant> {
        let closing = self.closing;
        let entry = self.entry(ticket)?;
        let may = !closing && matches!(entry.phase, Phase::Waiting) && !entry.is_over(horizon);
        may.then(|| {
            entry.phase = Phase::Running(cell);
            entry.held_until
        })
    }

    /// A message is over: answers its lease, the lane that it ran on, and whether the intake has what
    /// it waits for. `None` if the lease is away, or over.
    #[inline]
    pub(super) fn settle(
        &mut self,
        ticket: Ticket,
        how: Settlement,
        horizon: Instant,
    ) -> Option<(L, Option<Arc<LaneCell>>, bool)> {
        let entry = self.entry(ticket)?;
        if entry.is_over(horizon) {
            return None;
        }
        let lease = entry.lease.take()?;
        let lane = match std::mem::replace(&mut entry.phase, Phase::Settling(how)) {
            Phase::Running(lane) => Some(lane),
            _ => None,
        };
        let topic = entry.topic;
        Some((lease, lane, self.loads[topic].settle()))
    }

    #[inline]
    pub(super) fn entry(&mut self, ticket: Ticket) -> Option<&mut Entry<L>> {
        let (at, generation) = untie(ticket);
        let place = self
            .places
            .get_mut(at)
            .filter(|place| place.generation == generation)?;
        place.entry.as_mut()
    }

    /// The messages behind a place of a batch.
    pub(super) fn behind(
        &mut self,
        place: BatchPlace,
    ) -> impl Iterator<Item = (Ticket, &mut Entry<L>)> {
        let entries = self
            .places
            .iter_mut()
            .enumerate()
            .filter_map(|(at, place)| {
                let entry = place.entry.as_mut()?;
                Some((ticket(at, place.generation), entry))
            });
        entries.filter(move |(_, entry)| {
            let there = entry.place;
            there.is_some_and(|there| there.batch == place.batch && there.index > place.index)
        })
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Entry<L>> {
        let (at, generation) = untie(ticket);
        let place = self
            .places
            .get_mut(at)
            .filter(|place| place.generation == generation)?;
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        // There are never more places than messages in flight, which are bounded.
        self.free.push(at as u32);
        let settling = matches!(entry.phase, Phase::Settling(_));
        self.loads[entry.topic].leave(entry.delivery.body.len(), settling);
        Some(entry)
    }

    /// As [`remove`](Self::remove) of a message that is done: nobody looks at it again.
    pub(super) fn confirm(&mut self, ticket: Ticket) -> bool {
        let (at, generation) = untie(ticket);
        let Some(place) = self
            .places
            .get_mut(at)
            .filter(|place| place.generation == generation)
        else {
            return false;
        };
        let Some(entry) = &place.entry else {
            return false;
        };
        let settling = matches!(entry.phase, Phase::Settling(_));
        self.loads[entry.topic].leave(entry.delivery.body.len(), settling);
        place.entry = None;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(at as u32);
        true
    }
}

// === impl Entry ===

impl<L> Entry<L> {
    /// Whether its lease has run out. One that ends after the `horizon` has not, whatever the time.
    #[inline]
    pub(super) fn is_over(&self, horizon: Instant) -> bool {
        self.expires_at <= horizon && self.expires_at <= Instant::now()
    }

    /// What becomes of it is decided.
    pub(super) fn is_settled(&self) -> bool {
        self.settlement().is_some()
    }

    /// Its handler is through with it, for good.
    pub(super) fn is_done(&self) -> bool {
        self.settlement()
            .is_some_and(|how| matches!(how, Settlement::Ack | Settlement::DeadLetter))
    }

    /// Its handler runs, or it is being buried: it is likely to be done.
    pub(super) fn is_on_its_way(&self) -> bool {
        matches!(self.phase, Phase::Running(_) | Phase::Burying)
    }

    /// It goes back to the broker.
    pub(super) fn is_handed_back(&self) -> bool {
        self.settlement().is_some() && !self.is_done()
    }

    fn settlement(&self) -> Option<Settlement> {
        match self.phase {
            Phase::Decided(how) | Phase::Settling(how) => Some(how),
            Phase::Waiting | Phase::Running(_) | Phase::Burying => None,
        }
    }
}

pub(super) fn ticket(at: usize, generation: u32) -> Ticket {
    Ticket::new((u64::from(generation) << 32) | at as u64)
}

fn untie(ticket: Ticket) -> (usize, u32) {
    let number = ticket.number();
    ((number & 0xffff_ffff) as usize, (number >> 32) as u32)
}
