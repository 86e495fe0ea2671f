//! Batches that are one unit: what happens to one message concerns those behind it.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::{
    Table, Ticket,
    places::{Phase, Place, ticket},
};
use crate::{
    driver::{BatchPlace, Consumer, Settlement},
    engine::cell::Cancel,
};

impl<C: Consumer> Table<C> {
    /// Of messages that wait in queues, those that must be handled rather than handed back: one
    /// behind them in their batch is done or runs, and would come again with them.
    pub(crate) fn overtaken(&self, queued: &HashSet<Ticket>) -> HashSet<Ticket> {
        let state = self.lock();
        let mut frontiers: HashMap<u64, u32> = HashMap::new();
        let mut waiting = Vec::new();
        for (at, entry) in state.places.iter().enumerate() {
            let Place {
                generation,
                entry: Some(entry),
            } = entry
            else {
                continue;
            };
            let (ticket, Some(place)) = (ticket(at, *generation), entry.place) else {
                continue;
            };
            if queued.contains(&ticket) {
                waiting.push((ticket, place));
            } else if !entry.is_handed_back() {
                let frontier = frontiers.entry(place.batch).or_insert(place.index);
                *frontier = place.index.max(*frontier);
            }
        }
        let overtaken = waiting.into_iter().filter(|(_, place)| {
            frontiers
                .get(&place.batch)
                .is_some_and(|frontier| *frontier > place.index)
        });
        overtaken.map(|(ticket, _)| ticket).collect()
    }

    /// Hands back what waits behind a lost message of a batch, so that others get it soon, and
    /// cancels what runs there.
    pub(super) fn give_up_behind(&self, lost: BatchPlace) {
        let mut state = self.lock();
        let mut waiting = Vec::new();
        for (ticket, entry) in state.behind(lost) {
            match &entry.phase {
                Phase::Waiting | Phase::Burying => {
                    self.counters_of(entry).handed_back();
                    waiting.push(ticket);
                }
                Phase::Running(cell) => {
                    cell.cancel(ticket, Cancel::BatchLost);
                    entry.batch_lost = true;
                }
                Phase::Decided(_) | Phase::Settling(_) => {}
            }
        }
        state.put_back.retain(|ticket| !waiting.contains(ticket));
        state.gone.extend(&waiting);
        drop(state);
        for ticket in waiting {
            self.settle_now(ticket, Settlement::HandBack, Instant::now());
        }
    }

    /// Whether a message behind this one in its batch is done, or runs.
    pub(super) fn has_started_behind(&self, ticket: Ticket) -> bool {
        let mut state = self.lock();
        let Some(place) = state.entry(ticket).and_then(|entry| entry.place) else {
            return false;
        };
        state
            .behind(place)
            .any(|(_, entry)| entry.is_done() || entry.is_on_its_way())
    }
}
