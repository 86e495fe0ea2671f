//! One topic as one group sees it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::store::Stored;
use crate::{
    Delivery,
    clock::after,
    driver::{Filter, Room, Settlement},
};

/// Messages of a topic that a group has not finished.
#[derive(Debug, Default)]
pub(super) struct GroupQueue {
    /// Waiting or delayed, in the order of publication.
    waiting: BTreeMap<u64, Waiting>,
    held: HashMap<u64, Held>,
    /// The unfinished message of each message group that was delivered: the next one waits for it.
    owners: HashMap<String, u64>,
}

#[derive(Debug)]
struct Waiting {
    stored: Arc<Stored>,
    visible_at: Instant,
    /// Attempts so far.
    attempts: u32,
}

#[derive(Debug)]
struct Held {
    stored: Arc<Stored>,
    until: Instant,
    attempt: u32,
}

impl GroupQueue {
    pub(super) fn add(&mut self, stored: Arc<Stored>) {
        let waiting = Waiting {
            visible_at: stored.visible_at,
            attempts: 0,
            stored,
        };
        self.waiting.insert(waiting.stored.sequence, waiting);
    }

    /// Takes out a message that waits.
    pub(super) fn recall(&mut self, id: &str) {
        self.waiting
            .retain(|_, waiting| &*waiting.stored.parts.id != id);
    }

    /// Makes held messages visible again whose time is over; answers those out of attempts.
    pub(super) fn lapse(&mut self, now: Instant, limit: u32) -> Vec<Delivery> {
        let over = self.held.iter().filter(|(_, held)| held.until <= now);
        let over: Vec<u64> = over.map(|(handle, _)| *handle).collect();
        let mut dead = Vec::new();
        for handle in over {
            if let Some(held) = self.held.remove(&handle) {
                dead.extend(self.again(held, now, limit));
            }
        }
        dead
    }

    /// Takes visible messages in order, and holds them until `until`.
    pub(super) fn take(
        &mut self,
        now: Instant,
        filter: &Filter,
        room: Room,
        until: Instant,
        mut handle: impl FnMut() -> u64,
    ) -> Vec<(u64, Arc<Stored>, u32)> {
        let (mut chosen, mut foreign, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (sequence, waiting) in &self.waiting {
            if chosen.len() >= room.messages || (bytes >= room.bytes && !chosen.is_empty()) {
                break;
            }
            let parts = &waiting.stored.parts;
            if !filter.accepts_tag(parts.tag.as_deref()) {
                foreign.push(*sequence);
                continue;
            }
            if waiting.visible_at > now {
                // A delayed retry keeps the ones behind it in its message group waiting.
                continue;
            }
            if let Some(group) = &parts.group {
                let owner = self.owners.entry(group.clone()).or_insert(*sequence);
                if owner != sequence {
                    continue;
                }
            }
            bytes += parts.body.len();
            chosen.push(*sequence);
        }
        for sequence in foreign {
            self.waiting.remove(&sequence);
        }
        let taken = chosen
            .into_iter()
            .filter_map(|sequence| self.waiting.remove(&sequence));
        taken
            .map(
                |Waiting {
                     stored, attempts, ..
                 }| {
                    let (handle, attempt) = (handle(), attempts + 1);
                    self.held.insert(
                        handle,
                        Held {
                            stored: stored.clone(),
                            until,
                            attempt,
                        },
                    );
                    (handle, stored, attempt)
                },
            )
            .collect()
    }

    /// When something becomes visible by itself.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let now = Instant::now();
        let held = self.held.values().map(|held| held.until);
        let delayed = self.waiting.values().map(|waiting| waiting.visible_at);
        held.chain(delayed.filter(|at| *at > now)).min()
    }

    pub(super) fn extend(&mut self, handle: u64, new: u64, until: Instant) -> bool {
        let current = self
            .held
            .get(&handle)
            .is_some_and(|held| held.until > Instant::now());
        if !current {
            return false;
        }
        if let Some(mut held) = self.held.remove(&handle) {
            held.until = until;
            self.held.insert(new, held);
        }
        true
    }

    /// Settles a held message; `None` if the handle is out of date, else the dead letter, if any.
    pub(super) fn settle(
        &mut self,
        handle: u64,
        how: Settlement,
        now: Instant,
        hand_back_spends: bool,
        limit: u32,
    ) -> Option<Option<Delivery>> {
        if self.held.get(&handle)?.until <= now {
            return None;
        }
        let mut held = self.held.remove(&handle)?;
        let dead = match how {
            Settlement::Ack => {
                self.disown(&held);
                None
            }
            Settlement::DeadLetter => {
                self.disown(&held);
                Some(dead_letter(&held))
            }
            Settlement::RetryAfter(wait) => self.again(held, after(now, wait), limit),
            Settlement::HandBack if hand_back_spends => self.again(held, now, limit),
            Settlement::HandBack => {
                held.attempt -= 1;
                self.again(held, now, limit)
            }
        };
        Some(dead)
    }

    /// Ends the lease of a message.
    pub(super) fn lose(&mut self, id: &str) -> bool {
        let held = self
            .held
            .values_mut()
            .find(|held| &*held.stored.parts.id == id);
        held.is_some_and(|held| {
            held.until = Instant::now();
            true
        })
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Puts a message back; it is a dead letter if its attempts are used up.
    fn again(&mut self, held: Held, at: Instant, limit: u32) -> Option<Delivery> {
        if held.attempt >= limit {
            self.disown(&held);
            return Some(dead_letter(&held));
        }
        let Held {
            stored, attempt, ..
        } = held;
        let sequence = stored.sequence;
        self.waiting.insert(
            sequence,
            Waiting {
                stored,
                visible_at: at,
                attempts: attempt,
            },
        );
        None
    }

    fn disown(&mut self, held: &Held) {
        if let Some(group) = &held.stored.parts.group {
            self.owners.remove(group);
        }
    }
}

fn dead_letter(held: &Held) -> Delivery {
    let mut parts = held.stored.parts.clone();
    parts.attempt = held.attempt;
    Delivery::from(parts)
}
