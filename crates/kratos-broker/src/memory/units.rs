//! One topic as one group sees it that consumes in order, on a broker whose batches are units.
//!
//! Each partition has at most one batch under way. It blocks the partition until all its messages
//! are settled, or the rest of them are visible again: then everything from the first unsettled one
//! on comes again, settled or not.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use tokio::{sync::oneshot, time::Instant};

use super::store::Stored;
use crate::{
    Delivery,
    clock::after,
    driver::{BatchPlace, Filter, Room, Settlement},
};

#[derive(Debug)]
pub(super) struct UnitQueue {
    partitions: Vec<Partition>,
    /// Where the next receive begins to look.
    turn: usize,
}

#[derive(Debug, Default)]
struct Partition {
    waiting: VecDeque<Waiting>,
    batch: VecDeque<Member>,
}

#[derive(Debug)]
struct Waiting {
    stored: Arc<Stored>,
    attempts: u32,
}

#[derive(Debug)]
struct Member {
    stored: Arc<Stored>,
    handle: u64,
    until: Instant,
    attempt: u32,
    /// Acknowledged or dead, and who waits to hear that this counts.
    done: Option<oneshot::Sender<()>>,
}

/// A message that was taken.
pub(super) struct Taken {
    pub(super) stored: Arc<Stored>,
    pub(super) handle: u64,
    pub(super) attempt: u32,
    pub(super) partition: usize,
    pub(super) place: BatchPlace,
}

/// How a settlement went.
pub(super) enum Unit {
    /// At once.
    Settled,
    /// When everything before it is settled; an error when it will come again.
    Later(oneshot::Receiver<()>, Option<Delivery>),
}

impl UnitQueue {
    pub(super) fn new(partitions: usize) -> Self {
        let partitions = std::iter::repeat_with(Partition::default).take(partitions);
        Self {
            partitions: partitions.collect(),
            turn: 0,
        }
    }

    pub(super) fn add(&mut self, stored: Arc<Stored>) {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let hash = match &stored.parts.group {
            Some(group) => hasher.hash_one(group),
            None => stored.sequence,
        };
        let at = hash % self.partitions.len() as u64;
        let waiting = Waiting {
            stored,
            attempts: 0,
        };
        self.partitions[at as usize].waiting.push_back(waiting);
    }

    /// Takes out a message that waits.
    pub(super) fn recall(&mut self, id: &str) {
        for partition in &mut self.partitions {
            partition
                .waiting
                .retain(|waiting| &*waiting.stored.parts.id != id);
        }
    }

    /// Takes batches of partitions that are not blocked.
    pub(super) fn take(
        &mut self,
        now: Instant,
        filter: &Filter,
        room: Room,
        until: Instant,
        mut number: impl FnMut() -> u64,
    ) -> Vec<Taken> {
        self.release(now);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let count = self.partitions.len();
        self.turn = (self.turn + 1) % count;
        for at in (0..count).map(|n| (self.turn + n) % count) {
            let partition = &mut self.partitions[at];
            if !partition.batch.is_empty() {
                continue;
            }
            let batch = number();
            while taken.len() < room.messages && (bytes < room.bytes || taken.is_empty()) {
                let Some(next) = partition
                    .waiting
                    .pop_front_if(|w| w.stored.visible_at <= now)
                else {
                    break;
                };
                if !filter.accepts_tag(next.stored.parts.tag.as_deref()) {
                    continue;
                }
                bytes += next.stored.parts.body.len();
                let index = partition.batch.len() as u32;
                let (handle, attempt) = (number(), next.attempts + 1);
                partition.batch.push_back(Member {
                    stored: next.stored.clone(),
                    handle,
                    until,
                    attempt,
                    done: None,
                });
                taken.push(Taken {
                    stored: next.stored,
                    handle,
                    attempt,
                    partition: at,
                    place: BatchPlace { batch, index },
                });
            }
        }
        taken
    }

    /// When something becomes visible by itself.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let blocked = self.partitions.iter().filter_map(Partition::blocked_until);
        let fronts = self.partitions.iter().filter_map(|p| p.waiting.front());
        let delayed = fronts.map(|waiting| waiting.stored.visible_at);
        blocked.chain(delayed.filter(|at| *at > now)).min()
    }

    pub(super) fn extend(&mut self, handle: u64, new: u64, until: Instant) -> bool {
        let Some(member) = self.current(handle, Instant::now()) else {
            return false;
        };
        member.handle = new;
        member.until = until;
        true
    }

    /// Settles a held message; `None` if the handle is out of date.
    pub(super) fn settle(&mut self, handle: u64, how: Settlement, now: Instant) -> Option<Unit> {
        let member = self.current(handle, now)?;
        let unit = match how {
            Settlement::Ack | Settlement::DeadLetter => {
                let (done, heard) = oneshot::channel();
                member.done = Some(done);
                let dead = (how == Settlement::DeadLetter).then(|| {
                    let mut parts = member.stored.parts.clone();
                    parts.attempt = member.attempt;
                    Delivery::from(parts)
                });
                Unit::Later(heard, dead)
            }
            Settlement::HandBack => {
                member.until = now;
                Unit::Settled
            }
            Settlement::RetryAfter(wait) => {
                member.until = after(now, wait);
                // Whoever let it go can settle it no more.
                member.handle = 0;
                Unit::Settled
            }
        };
        for partition in &mut self.partitions {
            while let Some(mut first) = partition.batch.pop_front_if(|first| first.done.is_some()) {
                let _ = first.done.take().map(|done| done.send(()));
            }
        }
        self.release(now);
        Some(unit)
    }

    /// Gives back the rest of batches that nobody holds any more.
    pub(super) fn release(&mut self, now: Instant) {
        for partition in &mut self.partitions {
            if partition.blocked_until().is_some_and(|until| until > now) {
                continue;
            }
            // Who waits to hear of one of these hears that it comes again: its channel is dropped.
            while let Some(member) = partition.batch.pop_back() {
                partition.waiting.push_front(Waiting {
                    stored: member.stored,
                    attempts: member.attempt,
                });
            }
        }
    }

    /// Ends the lease of a message.
    pub(super) fn lose(&mut self, id: &str) -> bool {
        let mut members = self.partitions.iter_mut().flat_map(|p| &mut p.batch);
        let found = members.find(|member| &*member.stored.parts.id == id && member.done.is_none());
        found.is_some_and(|member| {
            member.until = Instant::now();
            true
        })
    }

    pub(super) fn len(&self) -> usize {
        let waiting = self.partitions.iter().map(|p| p.waiting.len());
        waiting.sum::<usize>() + self.held()
    }

    pub(super) fn held(&self) -> usize {
        self.partitions.iter().map(|p| p.batch.len()).sum()
    }

    fn current(&mut self, handle: u64, now: Instant) -> Option<&mut Member> {
        let mut members = self.partitions.iter_mut().flat_map(|p| &mut p.batch);
        members.find(|m| m.handle == handle && m.done.is_none() && m.until > now)
    }
}

impl Partition {
    /// While anything unsettled of its batch is invisible, nobody gets anything.
    fn blocked_until(&self) -> Option<Instant> {
        let unsettled = self.batch.iter().filter(|member| member.done.is_none());
        unsettled.map(|member| member.until).max()
    }
}
