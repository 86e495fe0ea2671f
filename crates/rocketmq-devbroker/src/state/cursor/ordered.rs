//! An ordered group: a queue's batch is one unit.
//!
//! While any message of the batch is held, the queue is blocked for everybody, except for the
//! receive that took it asking again under the same attempt id. An acknowledgement counts when all
//! messages before it in the batch are settled; otherwise everything from the first unsettled
//! message on comes again.

mod batch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use self::batch::{Batch, Member, Queue};
#[cfg(feature = "persist")]
use crate::state::facts::{self, Position};
use crate::state::{
    Timestamp,
    cursor::{AUTO_RENEW_STEP, CursorId, Held, Take, Taken},
    facts::{Journal, Key, Value},
    handle::Handle,
    log::{Log, Place},
    message::{Delivered, Stored},
    refusal::Refusal,
    timers::{Event, Timers},
    topic::Topic,
};

/// Deliveries of one ordered group on one topic.
#[derive(Debug)]
pub(crate) struct Ordered {
    id: CursorId,
    queues: Vec<Queue>,
    next_queue: usize,
    generation: u64,
    /// Handles up to this generation are from before a restart: none is current.
    start: u64,
}

impl Ordered {
    pub(crate) fn new(id: CursorId, generation: u64, starts: Vec<u64>) -> Self {
        let queue = |committed| Queue {
            committed,
            batch: None,
            told: None,
        };
        let queues = starts.into_iter().map(queue).collect();
        Self {
            id,
            queues,
            next_queue: 0,
            generation,
            start: generation,
        }
    }

    /// Hands out the next messages of every queue that is not blocked.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        take: &Take<'_>,
        topic: &Topic,
        timers: &mut Timers,
    ) -> Taken {
        let mut taken = Taken::default();
        let count = topic.queues.len();
        for turn in 0..count {
            let index = (self.next_queue + turn) % count;
            while taken.delivered.len() < take.batch {
                if !self.take_queue(now, take, index, &topic.queues[index], &mut taken, timers) {
                    break;
                }
            }
        }
        self.next_queue = (self.next_queue + 1) % count;
        taken
    }

    /// Takes one batch. Returns whether the queue was given up to `exhausted` and more may follow.
    fn take_queue(
        &mut self,
        now: Timestamp,
        take: &Take<'_>,
        index: usize,
        log: &Log,
        taken: &mut Taken,
        timers: &mut Timers,
    ) -> bool {
        let queue = &mut self.queues[index];
        // An empty id equals an empty id and opens the queue to everybody; an absent one does not.
        let same = queue
            .batch
            .as_ref()
            .is_some_and(|b| b.attempt_id.is_some() && b.attempt_id.as_deref() == take.attempt_id);
        if !same && queue.batch.as_ref().is_some_and(|batch| batch.blocks(now)) {
            return false;
        }
        queue.committed = queue.committed.max(log.first());
        let room = take.batch - taken.delivered.len();
        let mut messages: Vec<&Arc<Stored>> = Vec::new();
        let mut offsets = Vec::new();
        let mut offset = queue.committed;
        while messages.len() < room {
            let Some(message) = log.at(offset) else { break };
            let mut wanted = take.filter.wants(message);
            if wanted && message.spent() >= take.max_attempts {
                wanted = false;
                if !queue.knows(offset) {
                    taken.exhausted.push(Arc::clone(message));
                }
            }
            if wanted {
                messages.push(message);
            }
            offsets.push((offset, wanted));
            offset += 1;
        }
        if messages.is_empty() {
            queue.committed = offset;
            return false;
        }
        let before = queue.batch.take();
        if let Some(batch) = &before {
            timers.remove(batch.timer);
        }
        let members = before.iter().flat_map(|batch| &batch.members);
        let seen: BTreeMap<u64, u32> = members
            .map(|m| (m.offset, m.delivered - u32::from(same && m.delivered > 0)))
            .collect();
        // The server counts by batch: only if all of it was seen before is it another attempt.
        let counts = offsets
            .iter()
            .map(|(offset, _)| seen.get(offset).copied().unwrap_or(0));
        let delivered = counts.min().unwrap_or(0);
        // At first, what a dead letter brings along shows.
        let attempt = |message: &Stored| match delivered {
            0 => message.spent() + 1,
            _ => delivered + 1,
        };
        if delivered >= take.max_attempts {
            taken.exhausted.extend(messages.into_iter().map(Arc::clone));
            queue.committed = offset;
            return true;
        }
        self.generation += 1;
        let visible_at = now.plus(take.invisible.first_step());
        let place = |offset| Place {
            queue: u32::try_from(index).unwrap_or(u32::MAX),
            offset,
        };
        let member = |(offset, wanted): (u64, bool)| Member {
            offset,
            acked: !wanted,
            visible_at,
            delivered: seen.get(&offset).copied().unwrap_or(0) + 1,
            attempt: log.at(offset).map_or(1, |message| attempt(message)),
        };
        let unblock = Event::Unblock(self.id, place(0).queue);
        queue.batch = Some(Batch {
            generation: self.generation,
            attempt_id: take.attempt_id.map(str::to_owned),
            client: Arc::clone(take.client),
            members: offsets.into_iter().map(member).collect(),
            renew_until: take.invisible.renew_until(now),
            timer: timers.add(visible_at, unblock),
        });
        let (cursor, generation) = (self.id, self.generation);
        let deadline = take.invisible.handle_deadline(now);
        taken.delivered.extend(messages.into_iter().map(|message| {
            let handle = Handle {
                cursor,
                place: place(message.offset),
                generation,
                deadline,
            };
            Delivered {
                attempt: attempt(message),
                message: Arc::clone(message),
                handle: handle.encode(),
            }
        }));
        false
    }

    /// Whether the handle's message is held under it.
    pub(crate) fn check(&self, now: Timestamp, handle: &Handle) -> Result<(), Refusal> {
        if handle.deadline <= now {
            return Err(Refusal::handle(
                "has lapsed: the message is delivered again",
            ));
        }
        let queue = self.queues.get(handle.place.queue as usize);
        let batch = queue.and_then(|queue| queue.batch.as_ref());
        let batch = batch.filter(|batch| batch.generation == handle.generation);
        let batch = batch.ok_or_else(|| {
            Refusal::handle("is out of date: the batch is settled or was delivered again")
        })?;
        let held = |m: &Member| m.offset == handle.place.offset && !m.acked;
        if !batch.members.iter().any(held) {
            return Err(Refusal::handle("is settled"));
        }
        Ok(())
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn queues(&self) -> u32 {
        u32::try_from(self.queues.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn ack(
        &mut self,
        now: Timestamp,
        handle: &Handle,
        timers: &mut Timers,
    ) -> Result<(), Refusal> {
        if self.is_settled(now, handle) {
            return Ok(());
        }
        self.check(now, handle)?;
        let Some(queue) = self.queues.get_mut(handle.place.queue as usize) else {
            return Ok(());
        };
        let Some(batch) = &mut queue.batch else {
            return Ok(());
        };
        if let Some(member) = batch.member(handle.place.offset) {
            member.acked = true;
        }
        let first_open = batch.members.iter().find(|member| !member.acked);
        if let Some(first_open) = first_open {
            queue.committed = queue.committed.max(first_open.offset);
            self.rearm(handle.place.queue, timers);
        } else {
            let end = batch.members.last().map_or(0, |member| member.offset + 1);
            queue.committed = queue.committed.max(end);
            timers.remove(batch.timer);
            queue.batch = None;
        }
        Ok(())
    }

    /// Whether the message was settled before and the handle has not lapsed since.
    fn is_settled(&self, now: Timestamp, handle: &Handle) -> bool {
        let Some(queue) = self.queues.get(handle.place.queue as usize) else {
            return false;
        };
        let batch = queue
            .batch
            .as_ref()
            .filter(|batch| batch.generation == handle.generation);
        let acked = |m: &Member| m.offset == handle.place.offset && m.acked;
        let settled = handle.place.offset < queue.committed
            || batch.is_some_and(|batch| batch.members.iter().any(acked));
        settled && handle.deadline > now && handle.generation > self.start
    }

    pub(crate) fn change_invisible(
        &mut self,
        now: Timestamp,
        handle: &Handle,
        invisible: Duration,
        timers: &mut Timers,
    ) -> Result<Handle, Refusal> {
        self.check(now, handle)?;
        let deadline = now.plus(invisible);
        if let Some(batch) = self.batch_mut(handle.place.queue)
            && let Some(member) = batch.member(handle.place.offset)
        {
            member.visible_at = deadline;
            batch.renew_until = None;
        }
        self.rearm(handle.place.queue, timers);
        Ok(Handle {
            deadline,
            ..*handle
        })
    }

    fn batch_mut(&mut self, queue: u32) -> Option<&mut Batch> {
        self.queues.get_mut(queue as usize)?.batch.as_mut()
    }

    /// Moves the timer of a queue's batch to where it is free.
    fn rearm(&mut self, queue: u32, timers: &mut Timers) {
        let event = Event::Unblock(self.id, queue);
        if let Some(batch) = self.batch_mut(queue) {
            timers.remove(batch.timer);
            batch.timer = timers.add(batch.free_at(), event);
        }
    }

    /// Acts on a queue that may be free: renews the batch, or says that it is.
    pub(crate) fn unblock(
        &mut self,
        now: Timestamp,
        queue: u32,
        connected: impl Fn(&str) -> bool,
        timers: &mut Timers,
    ) -> bool {
        let Some(batch) = self.batch_mut(queue) else {
            return true;
        };
        if batch.renew_until.is_some_and(|until| until > now) && connected(&batch.client) {
            for member in batch.members.iter_mut().filter(|member| !member.acked) {
                member.visible_at = now.plus(AUTO_RENEW_STEP);
            }
            self.rearm(queue, timers);
            return false;
        }
        !batch.blocks(now)
    }

    pub(crate) fn hand_back(&mut self, now: Timestamp, handles: &[Handle], timers: &mut Timers) {
        for handle in handles {
            let Some(batch) = self.batch_mut(handle.place.queue) else {
                continue;
            };
            if batch.generation != handle.generation {
                continue;
            }
            if let Some(member) = batch.member(handle.place.offset) {
                member.visible_at = now;
                member.delivered = member.delivered.saturating_sub(1);
            }
            self.rearm(handle.place.queue, timers);
        }
    }

    pub(crate) fn end_leases(
        &mut self,
        at: Timestamp,
        renewed_for: Option<&str>,
        timers: &mut Timers,
    ) {
        for index in 0..self.queues.len() {
            let queue = u32::try_from(index).unwrap_or(u32::MAX);
            let Some(batch) = self.batch_mut(queue) else {
                continue;
            };
            let renewed = batch.renew_until.is_some();
            if renewed_for.is_some_and(|client| !renewed || *batch.client != *client) {
                continue;
            }
            batch.renew_until = None;
            batch
                .members
                .iter_mut()
                .for_each(|member| member.visible_at = at);
            self.rearm(queue, timers);
        }
    }

    /// Leaves the facts that are new since the last call.
    pub(crate) fn journal(&mut self, journal: &mut Journal) {
        let id = self.id;
        for (index, queue) in (0..).zip(&mut self.queues) {
            let position = queue.position();
            if queue.told.as_ref() != Some(&position) {
                queue.told = Some(position.clone());
                journal.set(|| Key::Position(id, index), || Value::Position(position));
            }
        }
    }

    pub(crate) fn floor(&self, queue: u32) -> u64 {
        self.queues
            .get(queue as usize)
            .map_or(u64::MAX, |queue| queue.committed)
    }

    pub(crate) fn held(&self) -> Vec<Held> {
        let mut held = Vec::new();
        for (index, queue) in self.queues.iter().enumerate() {
            let Some(batch) = &queue.batch else { continue };
            let open = batch.members.iter().filter(|member| !member.acked);
            held.extend(open.map(|member| Held {
                place: Place {
                    queue: u32::try_from(index).unwrap_or(u32::MAX),
                    offset: member.offset,
                },
                attempt: member.attempt,
                deadline: member.visible_at,
                client: Arc::clone(&batch.client),
            }));
        }
        held
    }

    /// By queue.
    pub(crate) fn waiting(&self, now: Timestamp, topic: &Topic) -> Vec<u64> {
        let pairs = topic.queues.iter().zip(&self.queues);
        let count = |(log, queue): (&Log, &Queue)| {
            let batch = queue.batch.as_ref().filter(|batch| batch.blocks(now));
            let last = batch.and_then(|batch| batch.members.last());
            let from = last.map_or(queue.committed, |last| last.offset + 1);
            log.end() - from.max(log.first())
        };
        pairs.map(count).collect()
    }
}

#[cfg(feature = "persist")]
impl Ordered {
    /// Brings a queue back: nobody holds its batch, and no handle of it is current.
    pub(crate) fn restore_position(
        &mut self,
        index: u32,
        position: Position,
        timers: &mut Timers,
    ) -> Option<()> {
        let queue = self.queues.get_mut(index as usize)?;
        queue.committed = position.next;
        if !position.batch.is_empty() {
            let visible_at = Timestamp::default();
            let member = |taken: &facts::Taken| Member {
                offset: taken.offset,
                acked: taken.acked,
                visible_at,
                delivered: taken.delivered,
                attempt: taken.delivered,
            };
            queue.batch = Some(Batch {
                generation: self.generation,
                attempt_id: None,
                client: "".into(),
                members: position.batch.iter().map(member).collect(),
                renew_until: None,
                timer: timers.add(visible_at, Event::Unblock(self.id, index)),
            });
        }
        queue.told = Some(position);
        Some(())
    }
}
