//! A group without order: every message has a lease of its own.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::state::{
    Timestamp,
    cursor::{AUTO_RENEW_STEP, CursorId, Held, Lapsed, Take, Taken},
    facts::{Journal, Key, Position, Value},
    handle::Handle,
    log::Place,
    message::{Delivered, Stored},
    refusal::Refusal,
    timers::{Event, TimerKey, Timers},
    topic::Topic,
};

/// Dead letters that are remembered; of older ones no handle is current.
const MAX_GIVEN_UP: usize = 10_000;

/// Deliveries of one group on one topic.
#[derive(Debug)]
pub(crate) struct Concurrent {
    id: CursorId,
    /// The next offset to deliver for the first time, by queue.
    positions: Vec<u64>,
    /// Delivered at least once and not settled.
    entries: HashMap<Place, Entry>,
    /// Entries that wait for their next attempt, oldest first.
    ready: VecDeque<Place>,
    /// Deliveries to be made once more, whatever became of them.
    again: VecDeque<Place>,
    /// Dead letters: an acknowledgement that comes too late for one is no success.
    given_up: BTreeSet<Place>,
    next_queue: usize,
    generation: u64,
    /// Handles up to this generation are from before a restart: none is current.
    start: u64,
    /// Places and positions of which the journal is to be told.
    changed: BTreeSet<Place>,
    told: Vec<Option<u64>>,
}

#[derive(Debug)]
struct Entry {
    /// Deliveries so far.
    attempts: u32,
    /// Absent while the message waits in `ready`.
    lease: Option<Lease>,
}

#[derive(Debug)]
struct Lease {
    generation: u64,
    /// The generation of the delivery; the lease's own is newer once it was extended.
    delivery: u64,
    deadline: Timestamp,
    timer: TimerKey,
    client: Arc<str>,
    /// The broker extends the lease until then, while the client is connected.
    renew_until: Option<Timestamp>,
    /// The consumer has put the message off: its end spends no attempt.
    suspended: bool,
}

impl Concurrent {
    pub(crate) fn new(id: CursorId, generation: u64, starts: Vec<u64>) -> Self {
        Self {
            id,
            told: vec![None; starts.len()],
            positions: starts,
            entries: HashMap::new(),
            ready: VecDeque::new(),
            again: VecDeque::new(),
            given_up: BTreeSet::new(),
            next_queue: 0,
            generation,
            start: generation,
            changed: BTreeSet::new(),
        }
    }

    /// Hands out messages: those that wait for another attempt first, then new ones, queue by
    /// queue. What the filter does not want is passed over for good.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        take: &Take<'_>,
        topic: &Topic,
        timers: &mut Timers,
    ) -> Taken {
        let mut taken = Taken::default();
        while taken.delivered.len() < take.batch {
            let Some(place) = self.ready.pop_front() else {
                break;
            };
            self.changed.insert(place);
            let Some(message) = topic.at(place) else {
                self.entries.remove(&place);
                continue;
            };
            let attempts = self.attempts(place).unwrap_or(0);
            if !take.filter.wants(message) {
                self.entries.remove(&place);
            } else if attempts >= take.max_attempts {
                self.give_up(place);
                taken.exhausted.push(Arc::clone(message));
            } else {
                taken
                    .delivered
                    .push(self.lease(now, take, message, attempts + 1, timers));
            }
        }
        self.take_again(now, take, topic, timers, &mut taken);
        let queues = topic.queues.len();
        for queue in topic.order(self.next_queue) {
            let log = &topic.queues[queue];
            while taken.delivered.len() < take.batch {
                let offset = self.positions[queue].max(log.first());
                let Some(message) = log.at(offset) else { break };
                self.positions[queue] = offset + 1;
                if !take.filter.wants(message) {
                    continue;
                }
                let attempt = message.spent() + 1;
                if attempt > take.max_attempts {
                    taken.exhausted.push(Arc::clone(message));
                } else {
                    let delivered = self.lease(now, take, message, attempt, timers);
                    taken.delivered.push(delivered);
                }
            }
        }
        self.next_queue = (self.next_queue + 1) % queues;
        taken
    }

    /// How often a message that is not settled was handed out, and what was spent before.
    pub(crate) fn attempts(&self, place: Place) -> Option<u32> {
        self.entries.get(&place).map(|entry| entry.attempts)
    }

    /// Lets go of a message that has no attempt left.
    fn give_up(&mut self, place: Place) {
        self.entries.remove(&place);
        self.changed.insert(place);
        self.given_up.insert(place);
        if self.given_up.len() > MAX_GIVEN_UP {
            self.given_up.pop_first();
        }
    }

    /// Lets a delivered message come once more, whatever becomes of the delivery.
    pub(crate) fn duplicate(&mut self, place: Place) {
        self.again.push_back(place);
    }

    /// Makes deliveries once more. The older handle of a message that is held goes out of date.
    fn take_again(
        &mut self,
        now: Timestamp,
        take: &Take<'_>,
        topic: &Topic,
        timers: &mut Timers,
        taken: &mut Taken,
    ) {
        while taken.delivered.len() < take.batch {
            let Some(place) = self.again.pop_front() else {
                return;
            };
            let message = topic.at(place).filter(|message| take.filter.wants(message));
            let Some(message) = message else { continue };
            let attempts = match self.entries.get_mut(&place) {
                None => message.spent(),
                Some(entry) if entry.attempts >= take.max_attempts => continue,
                Some(entry) => match entry.lease.take() {
                    // It waits for its next attempt and comes anyway.
                    None => continue,
                    Some(lease) => {
                        timers.remove(lease.timer);
                        entry.attempts
                    }
                },
            };
            let delivered = self.lease(now, take, message, attempts + 1, timers);
            taken.delivered.push(delivered);
        }
    }

    fn lease(
        &mut self,
        now: Timestamp,
        take: &Take<'_>,
        message: &Arc<Stored>,
        attempt: u32,
        timers: &mut Timers,
    ) -> Delivered {
        let place = message.place();
        self.changed.insert(place);
        self.generation += 1;
        let deadline = now.plus(take.invisible.first_step());
        let lease = Lease {
            generation: self.generation,
            delivery: self.generation,
            deadline,
            timer: timers.add(deadline, Event::Lapse(self.id, place)),
            client: Arc::clone(take.client),
            renew_until: take.invisible.renew_until(now),
            suspended: false,
        };
        self.entries.insert(
            place,
            Entry {
                attempts: attempt,
                lease: Some(lease),
            },
        );
        let handle = Handle {
            cursor: self.id,
            place,
            generation: self.generation,
            deadline: take.invisible.handle_deadline(now),
        };
        Delivered {
            message: Arc::clone(message),
            handle: handle.encode(),
            attempt,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn queues(&self) -> u32 {
        u32::try_from(self.positions.len()).unwrap_or(u32::MAX)
    }

    /// Of all that is delivered and not settled, and of what the journal is to be told.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.entries.keys().chain(&self.changed).copied().collect()
    }

    pub(crate) fn ack(
        &mut self,
        now: Timestamp,
        handle: &Handle,
        timers: &mut Timers,
    ) -> Result<(), Refusal> {
        let current = handle.deadline > now && handle.generation > self.start;
        let gone = !self.entries.contains_key(&handle.place);
        if current && gone && !self.given_up.contains(&handle.place) {
            return Ok(());
        }
        if self.is_replaced(now, handle) {
            // As on the real server: fine, it says, and nothing is settled.
            return Ok(());
        }
        self.check(now, handle)?;
        self.changed.insert(handle.place);
        if let Some(lease) = self
            .entries
            .remove(&handle.place)
            .and_then(|entry| entry.lease)
        {
            timers.remove(lease.timer);
        }
        Ok(())
    }

    /// Whether an extension has given a newer handle to the same delivery.
    fn is_replaced(&self, now: Timestamp, handle: &Handle) -> bool {
        let entry = self.entries.get(&handle.place);
        let lease = entry.and_then(|entry| entry.lease.as_ref());
        let older = |lease: &Lease| (lease.delivery..lease.generation).contains(&handle.generation);
        handle.deadline > now && lease.is_some_and(older)
    }

    pub(crate) fn check(&self, now: Timestamp, handle: &Handle) -> Result<(), Refusal> {
        let lapsed = || Refusal::handle("has lapsed: the message is delivered again");
        if handle.deadline <= now {
            return Err(lapsed());
        }
        let entry = self.entries.get(&handle.place);
        let entry = entry.ok_or_else(|| Refusal::handle("is settled"))?;
        let lease = entry.lease.as_ref().ok_or_else(lapsed)?;
        if lease.generation != handle.generation {
            return Err(Refusal::handle("is out of date: a newer one was given out"));
        }
        Ok(())
    }

    pub(crate) fn change_invisible(
        &mut self,
        now: Timestamp,
        handle: &Handle,
        invisible: Duration,
        suspend: bool,
        timers: &mut Timers,
    ) -> Result<Handle, Refusal> {
        self.check(now, handle)?;
        self.generation += 1;
        let deadline = now.plus(invisible);
        let generation = self.generation;
        let event = Event::Lapse(self.id, handle.place);
        if let Some(lease) = self.lease_mut(handle.place) {
            timers.remove(lease.timer);
            lease.timer = timers.add(deadline, event);
            lease.deadline = deadline;
            lease.generation = generation;
            lease.renew_until = None;
            lease.suspended = suspend;
        }
        Ok(Handle {
            generation,
            deadline,
            ..*handle
        })
    }

    fn lease_mut(&mut self, place: Place) -> Option<&mut Lease> {
        self.entries.get_mut(&place)?.lease.as_mut()
    }

    /// Acts on a due lease. `connected` tells whether a client is still there.
    pub(crate) fn lapse(
        &mut self,
        now: Timestamp,
        place: Place,
        max_attempts: u32,
        connected: impl Fn(&str) -> bool,
        timers: &mut Timers,
    ) -> Lapsed {
        let event = Event::Lapse(self.id, place);
        let Some(entry) = self.entries.get_mut(&place) else {
            return Lapsed::Nothing;
        };
        let Some(lease) = entry.lease.as_mut() else {
            return Lapsed::Nothing;
        };
        if lease.deadline > now {
            return Lapsed::Nothing;
        }
        if lease.renew_until.is_some_and(|until| until > now) && connected(&lease.client) {
            lease.deadline = now.plus(AUTO_RENEW_STEP);
            lease.timer = timers.add(lease.deadline, event);
            return Lapsed::Nothing;
        }
        if lease.suspended {
            entry.attempts -= 1;
            self.changed.insert(place);
        }
        entry.lease = None;
        if entry.attempts >= max_attempts {
            let attempts = entry.attempts;
            self.give_up(place);
            return Lapsed::Exhausted(place, attempts);
        }
        self.ready.push_back(place);
        Lapsed::Ready
    }

    pub(crate) fn hand_back(&mut self, handles: &[Handle], timers: &mut Timers) {
        for handle in handles.iter().rev() {
            let Some(entry) = self.entries.get_mut(&handle.place) else {
                continue;
            };
            let lease = entry.lease.as_ref();
            if lease.is_none_or(|lease| lease.generation != handle.generation) {
                continue;
            }
            if let Some(lease) = entry.lease.take() {
                timers.remove(lease.timer);
            }
            entry.attempts -= 1;
            self.changed.insert(handle.place);
            self.ready.push_front(handle.place);
        }
    }

    pub(crate) fn end_leases(
        &mut self,
        at: Timestamp,
        renewed_for: Option<&str>,
        timers: &mut Timers,
    ) {
        for (place, entry) in &mut self.entries {
            let Some(lease) = &mut entry.lease else {
                continue;
            };
            let renewed = lease.renew_until.is_some();
            if renewed_for.is_some_and(|client| !renewed || *lease.client != *client) {
                continue;
            }
            timers.remove(lease.timer);
            lease.renew_until = None;
            lease.deadline = at;
            lease.timer = timers.add(at, Event::Lapse(self.id, *place));
        }
    }

    /// Leaves the facts that are new since the last call.
    pub(crate) fn journal(&mut self, journal: &mut Journal) {
        let id = self.id;
        while let Some(place) = self.changed.pop_first() {
            let key = || Key::Delivery(id, place);
            match self.entries.get(&place) {
                Some(entry) => journal.set(key, || Value::Delivery(entry.attempts)),
                None => journal.end(key),
            }
        }
        for (queue, (told, next)) in (0..).zip(self.told.iter_mut().zip(&self.positions)) {
            if told.replace(*next) != Some(*next) {
                let position = || Position {
                    next: *next,
                    batch: Vec::new(),
                };
                journal.set(|| Key::Position(id, queue), || Value::Position(position()));
            }
        }
    }

    pub(crate) fn floor(&self, queue: u32) -> u64 {
        let position = self
            .positions
            .get(queue as usize)
            .copied()
            .unwrap_or(u64::MAX);
        let places = self.entries.keys().filter(|place| place.queue == queue);
        places
            .map(|place| place.offset)
            .min()
            .unwrap_or(position)
            .min(position)
    }

    pub(crate) fn held(&self) -> Vec<Held> {
        let held = |(place, entry): (&Place, &Entry)| {
            let lease = entry.lease.as_ref()?;
            let (attempt, deadline) = (entry.attempts, lease.deadline);
            Some(Held {
                place: *place,
                attempt,
                deadline,
                client: Arc::clone(&lease.client),
            })
        };
        self.entries.iter().filter_map(held).collect()
    }

    /// By queue.
    pub(crate) fn waiting(&self, topic: &Topic) -> Vec<u64> {
        let new = topic.queues.iter().zip(&self.positions);
        let mut waiting: Vec<u64> = new
            .map(|(log, at)| log.end() - (*at).max(log.first()))
            .collect();
        for place in &self.ready {
            if let Some(queue) = waiting.get_mut(place.queue as usize) {
                *queue += 1;
            }
        }
        waiting
    }
}

#[cfg(feature = "persist")]
impl Concurrent {
    pub(crate) fn restore_position(&mut self, queue: u32, position: &Position) -> Option<()> {
        *self.positions.get_mut(queue as usize)? = position.next;
        *self.told.get_mut(queue as usize)? = Some(position.next);
        Some(())
    }

    pub(crate) fn restore_delivery(&mut self, place: Place, attempts: u32) {
        let lease = None;
        self.entries.insert(place, Entry { attempts, lease });
        self.ready.push_back(place);
    }
}
