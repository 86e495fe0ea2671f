//! The slots of a queue: one for each key that has messages in flight.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use tokio::time::Instant;

use super::{
    Job, PROBES,
    gate::{Admits, Bucket, Gate, PROBE_MAX},
};
use crate::clock::from_now;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ready: VecDeque<Ready>,
    pub(super) slots: Vec<Slot>,
    /// Where the slot of a key in flight is. By the key's whole hash: with fewer slots than that,
    /// a key that is stuck now and then held up another.
    pub(super) index: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    /// Slots that no key has.
    pub(super) free: Vec<usize>,
    pub(super) parked: BinaryHeap<Reverse<(Instant, usize)>>,
    pub(super) mode: Mode,
    /// Of the kill switch.
    pub(super) gate: Gate,
    /// By hand.
    pub(super) held: bool,
    pub(super) rate: Option<Bucket>,
    /// The server stops, and cuts handlers off then.
    pub(super) cut: Option<Instant>,
}

/// What may run. With a tag of its own, as [`Pop`](super::Pop).
#[derive(Debug)]
#[repr(usize)]
pub(super) enum Ready {
    Free(Job),
    Slot(usize),
}

/// Messages of one key; at most one of them runs. A key has its slot only while it has messages.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) key: u64,
    pub(super) jobs: VecDeque<Job>,
    /// Listed in `ready`, running, or parked: not to be listed again.
    pub(super) busy: bool,
    /// Waits for its time; the entry in `parked` is valid only while this says so.
    pub(super) parked: bool,
    /// Its last message failed fatally: none that it stood in front of runs.
    pub(super) held: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Open,
    /// Nothing runs until it is known what must be finished: a drain follows at once.
    Paused,
    /// Only messages that must be finished are let in and run.
    Draining,
    /// As before, and no more will come: lanes end when nothing waits.
    Finishing,
    /// Nothing is.
    Closed,
}

/// Takes a key for its own hash: that is what it is.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

// === impl State ===

impl State {
    /// The slot of a key, a new one if it has none.
    pub(super) fn slot(&mut self, key: u64) -> usize {
        if let Some(at) = self.index.get(&key) {
            return *at;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.slots[at].key = key;
        self.index.insert(key, at);
        at
    }

    /// Nothing of a slot is listed, runs, or is parked any more: false if it is empty and gone.
    pub(super) fn let_go(&mut self, at: usize) -> bool {
        let slot = &mut self.slots[at];
        slot.busy = !slot.jobs.is_empty();
        if !slot.busy {
            self.index.remove(&slot.key);
            self.free.push(at);
        }
        slot.busy
    }

    /// Whether a lane may put these back, to run again here.
    pub(super) fn takes_back(&self, jobs: &[Job]) -> bool {
        match self.mode {
            Mode::Open => true,
            Mode::Paused | Mode::Draining | Mode::Finishing => {
                jobs.iter().all(|job| job.must_finish) && !self.is_in_vain()
            }
            Mode::Closed => false,
        }
    }

    /// Moves slots whose time has come to the ready ones.
    pub(super) fn unpark(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(Reverse((until, at))) = self.parked.peek().copied() {
            if until > now && self.slots[at].parked {
                return;
            }
            self.parked.pop();
            if std::mem::take(&mut self.slots[at].parked) {
                self.ready.push_back(Ready::Slot(at));
            }
        }
    }

    pub(super) fn forget_empty_slots(&mut self) {
        // One that is listed would be let go by the next lane: a rate limit may keep that from
        // coming.
        for entry in std::mem::take(&mut self.ready) {
            match entry {
                Ready::Slot(at) if self.slots[at].jobs.is_empty() => {
                    self.let_go(at);
                }
                kept => self.ready.push_back(kept),
            }
        }
        for at in 0..self.slots.len() {
            // A running slot is released by its lane.
            let slot = &mut self.slots[at];
            if slot.jobs.is_empty() && std::mem::take(&mut slot.parked) {
                self.let_go(at);
            }
        }
        let slots = &self.slots;
        self.parked.retain(|Reverse((_, at))| slots[*at].parked);
    }

    /// Whether whatever is ready may start, and nothing else could become ready.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.mode == Mode::Open && self.is_free() && self.parked.is_empty() && self.rate.is_none()
    }

    /// How many may start now. A drain takes no notice of gates: what must be finished is started.
    pub(super) fn admits(&mut self) -> Admits {
        match self.mode {
            Mode::Open => {}
            Mode::Paused => return Admits::None(None),
            Mode::Draining | Mode::Finishing | Mode::Closed => return Admits::All,
        }
        if self.held {
            return Admits::None(None);
        }
        match self.gate {
            Gate::Open => Admits::All,
            Gate::Shut(until) | Gate::Probing(until) if until > Instant::now() => {
                Admits::None(Some(until))
            }
            Gate::Shut(_) | Gate::Probe | Gate::Probing(_) => {
                self.gate = Gate::Probe;
                Admits::One
            }
        }
    }

    /// Whether neither a hand nor the kill switch holds it back.
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        self.gate == Gate::Open && !self.held
    }

    /// When the rate limit lets the next message start; `None` if now, or if there is none.
    pub(super) fn rate_wait(&self) -> Option<Instant> {
        let rate = self.rate.as_ref().filter(|_| !self.ready.is_empty())?;
        rate.wait(Instant::now())
    }

    /// Whether a time is so late that the stop does not wait for it.
    pub(super) fn is_late(&self, at: Instant) -> bool {
        self.cut.is_some_and(|cut| at >= cut)
    }

    /// Whether the rate limit lets nothing start before the end.
    pub(super) fn is_in_vain(&self) -> bool {
        let at = self
            .rate
            .as_ref()
            .and_then(|rate| rate.wait(Instant::now()));
        at.is_some_and(|at| self.is_late(at))
    }

    /// The slots that wait for a time that is too late.
    pub(super) fn parked_too_late(&self) -> HashSet<usize> {
        let late = |until| self.is_late(until);
        let parked = self.parked.iter().map(|Reverse(parked)| *parked);
        parked
            .filter(|(until, at)| late(*until) && self.slots[*at].parked)
            .map(|(_, at)| at)
            .collect()
    }

    /// A message starts.
    #[inline]
    pub(super) fn starts(&mut self, probe: bool) {
        if probe {
            self.gate = Gate::Probing(from_now(PROBE_MAX));
        }
        if let Some(rate) = &mut self.rate {
            rate.take(Instant::now());
        }
    }

    /// Whether there is a use for more messages.
    pub(super) fn wants_more(&self) -> bool {
        if self.held {
            return false;
        }
        match self.gate {
            Gate::Open => true,
            Gate::Shut(_) => false,
            Gate::Probe | Gate::Probing(_) => self.waiting() < PROBES,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        let free = |entry: &&Ready| matches!(entry, Ready::Free(_));
        let slots = self.slots.iter().map(|slot| slot.jobs.len());
        self.ready.iter().filter(free).count() + slots.sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.slots.iter().all(|slot| slot.jobs.is_empty())
    }
}

// === impl Hashed ===

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        // Not called: keys are numbers.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
