//! The queue of one subscription: order per key, everything else to any free lane.

mod batch;
mod control;
mod ending;
mod gate;
mod job;
mod purge;
mod slots;

use std::{
    cmp::Reverse,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

pub(crate) use self::{
    control::Condition,
    ending::Drained,
    gate::Gate,
    job::{Arrived, Job},
};
use self::{
    gate::{Admits, Bucket},
    slots::{Mode, Ready, State},
};
use super::ticket::Ticket;
use crate::{Order, Subscription, delivery::Received, subscription::OrderBy};

/// With so many waiting here an open kill switch has enough to try: no more is received.
const PROBES: usize = 16;

/// A bounded queue: the engine receives only what there is room for.
#[derive(Debug)]
pub(crate) struct Queue {
    order: Order,
    order_by: Option<OrderBy>,
    /// What has no message group keeps the order of its partition.
    fifo: bool,
    hasher: RandomState,
    state: Mutex<State>,
    changed: Notify,
    /// Who waits for a change, or is about to look and then wait: with none there is nobody to
    /// tell.
    waiting: AtomicUsize,
    /// Lanes that are to end as soon as they are free.
    surplus: AtomicUsize,
    /// The topic's intake waits for a queue that has nothing ready.
    hungry: Arc<Notify>,
}

/// Somebody who waits for a change, until it is dropped. Made before the look at the queue whose
/// answer was to wait.
pub(super) struct Waiter<'a>(&'a AtomicUsize);

/// What a queue has for a lane.
///
/// With a tag of its own: one inside a message would have the message moved in pieces.
#[repr(usize)]
pub(crate) enum Pop {
    Job(Job),
    Wait(Option<Instant>),
    End,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn new(subscription: &Subscription, hungry: Arc<Notify>) -> Self {
        let state = State {
            rate: subscription.rate_limit.map(Bucket::new),
            ..State::default()
        };
        Self {
            order: subscription.order,
            order_by: subscription.order_by.clone(),
            fifo: subscription.fifo,
            hasher: RandomState::new(),
            state: Mutex::new(state),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
            hungry,
        }
    }

    /// Says what a message is kept in order by, before it is added: what tells may be the user's,
    /// and runs under no lock.
    #[inline]
    pub(crate) fn assign(&self, arrived: &mut Arrived) {
        if self.order != Order::Unordered || self.fifo || self.order_by.is_some() {
            arrived.key = self.key_of(&arrived.job.delivery);
        }
    }

    /// Takes the messages of its route; gives those back that the queue takes no longer.
    pub(crate) fn push(&self, arrived: &mut Vec<Arrived>, route: usize) -> Vec<Job> {
        let mut refused = Vec::new();
        let mut state = self.lock();
        let plain = |it: &Arrived| it.route == route && it.key.is_none() && !it.job.must_finish;
        if state.mode == Mode::Open && arrived.iter().all(plain) {
            // As a whole: each is moved once.
            let jobs = arrived.drain(..).map(|it| Ready::Free(it.job));
            state.ready.extend(jobs);
        }
        for Arrived { job, key, .. } in arrived.extract_if(.., |it| it.route == route) {
            match state.mode {
                Mode::Open => {}
                Mode::Paused | Mode::Draining if job.must_finish && !state.is_in_vain() => {}
                Mode::Paused | Mode::Draining | Mode::Finishing | Mode::Closed => {
                    refused.push(job);
                    continue;
                }
            }
            match key.map(|key| state.slot(key)) {
                // What the broker would not deliver again goes first.
                None if job.must_finish => state.ready.push_front(Ready::Free(job)),
                None => state.ready.push_back(Ready::Free(job)),
                Some(at) => {
                    let slot = &mut state.slots[at];
                    slot.jobs.push_back(Job {
                        ordered: true,
                        ..job.at(at)
                    });
                    if !std::mem::replace(&mut slot.busy, true) {
                        state.ready.push_back(Ready::Slot(at));
                    }
                }
            }
        }
        drop(state);
        // One lane is enough: it hands the baton on.
        self.tell_one();
        refused
    }

    /// A message that may run, if there is one now. `over`: the slot of a message that ran before,
    /// whose next one may run.
    #[inline(always)]
    pub(crate) fn try_next(&self, over: Option<usize>) -> Pop {
        self.pop(over)
    }

    /// Waits for a message that may run; `None` when there will be none for this lane.
    pub(crate) async fn next(&self) -> Option<Job> {
        loop {
            let _waiter = self.waiter();
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_surplus() {
                return None;
            }
            match self.pop(None) {
                Pop::Job(job) => return Some(job),
                Pop::End => return None,
                Pop::Wait(None) => changed.await,
                Pop::Wait(Some(until)) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
        }
    }

    /// A message that ran is over: the next of its slot may run.
    pub(crate) fn release(&self, slot: Option<usize>) {
        let Some(at) = slot else {
            return;
        };
        let mut state = self.lock();
        if state.let_go(at) {
            state.ready.push_back(Ready::Slot(at));
            drop(state);
            self.tell_one();
        }
    }

    /// A message that ran failed fatally and comes again: what waits behind it in its slot must
    /// not overtake it. It waits for the drain, or is given back to be handed back.
    pub(crate) fn hold(&self, slot: Option<usize>) -> Vec<Job> {
        let Some(at) = slot else {
            return Vec::new();
        };
        let mut state = self.lock();
        if matches!(state.mode, Mode::Open | Mode::Paused) {
            state.slots[at].held = true;
            return Vec::new();
        }
        let behind = if self.fifo {
            state.slots[at].jobs.drain(..).collect()
        } else {
            Vec::new()
        };
        drop(state);
        self.release(slot);
        behind
    }

    /// Puts a message back in front of its slot until a time; the slot waits with it. One that had
    /// no key gets a slot to itself. Gives the message back if the queue takes it no longer.
    pub(crate) fn park(&self, mut job: Job, until: Instant) -> Result<(), Job> {
        let mut state = self.lock();
        let refused = match state.mode {
            Mode::Open => false,
            Mode::Paused | Mode::Draining | Mode::Finishing => {
                !job.must_finish || state.is_late(until) || state.is_in_vain()
            }
            Mode::Closed => true,
        };
        if refused {
            return Err(job);
        }
        let alone = || self.hasher.hash_one(job.ticket);
        let at = job.slot().unwrap_or_else(|| state.slot(alone()));
        job = job.at(at);
        let slot = &mut state.slots[at];
        slot.jobs.push_front(job);
        (slot.busy, slot.parked) = (true, true);
        state.parked.push(Reverse((until, at)));
        drop(state);
        // An idle lane must learn of the new time.
        self.tell_one();
        Ok(())
    }

    /// Whether a free lane would find nothing to do.
    pub(crate) fn is_hungry(&self) -> bool {
        let state = self.lock();
        state.ready.is_empty() && state.wants_more()
    }

    /// Whether there is a use for more messages.
    pub(crate) fn wants_more(&self) -> bool {
        self.lock().wants_more()
    }

    #[inline(always)]
    fn pop(&self, over: Option<usize>) -> Pop {
        let mut state = self.lock();
        if let Some(at) = over
            && state.let_go(at)
        {
            state.ready.push_back(Ready::Slot(at));
        }
        let mut probe = false;
        if !state.is_plain() {
            match state.admits() {
                Admits::All => {}
                Admits::One => probe = true,
                Admits::None(until) => return Pop::Wait(until),
            }
            state.unpark();
            if let Some(until) = state.rate_wait() {
                return Pop::Wait(Some(until));
            }
        }
        while let Some(entry) = state.ready.front() {
            // What is first is looked at where it is, so that a message is moved as a whole.
            if let Ready::Slot(at) = *entry {
                state.ready.pop_front();
                match state.slots[at].jobs.pop_front() {
                    Some(job) => return self.deal(state, job, probe),
                    None => {
                        state.let_go(at);
                    }
                }
            } else if let Some(Ready::Free(job)) = state.ready.pop_front() {
                return self.deal(state, job, probe);
            }
        }
        if matches!(state.mode, Mode::Finishing | Mode::Closed) && state.is_empty() {
            drop(state);
            // The others may have waited for a message that this lane has just finished.
            self.changed.notify_waiters();
            return Pop::End;
        }
        if probe {
            // Nothing is here that could be tried.
            self.hungry.notify_waiters();
        }
        Pop::Wait(state.parked.peek().map(|Reverse((until, _))| *until))
    }

    /// A message starts.
    #[inline(always)]
    fn deal(&self, mut state: MutexGuard<'_, State>, mut job: Job, probe: bool) -> Pop {
        // Not written to without need: what was just written is waited for when it is copied.
        if job.probe != probe {
            job.probe = probe;
        }
        state.starts(probe);
        // Hand the baton on: another lane takes the next one, or watches the next time.
        let (hungry, baton) = (state.ready.is_empty(), !state.parked.is_empty());
        drop(state);
        if !hungry || baton {
            self.tell_one();
        }
        if hungry {
            self.hungry.notify_waiters();
        }
        Pop::Job(job)
    }

    pub(super) fn waiter(&self) -> Waiter<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiter(&self.waiting)
    }

    /// Wakes one of those who wait. Call it after the change, which is made under the lock: whoever
    /// looked before and waits was counted before that.
    #[inline]
    fn tell_one(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    #[inline]
    fn key_of(&self, received: &Received) -> Option<u64> {
        if received.group.is_none() && self.knows_groups_alone() {
            return None;
        }
        self.hash_of(received)
    }

    /// Whether what has no message group has no order.
    #[inline]
    fn knows_groups_alone(&self) -> bool {
        self.order == Order::ByGroup && !self.fifo && self.order_by.is_none()
    }

    fn hash_of(&self, received: &Received) -> Option<u64> {
        if let Some(order_by) = &self.order_by {
            let delivery = received.delivery();
            // Ours to survive: it runs where messages come in, and would come again.
            let called = catch_unwind(AssertUnwindSafe(|| order_by.key(&delivery)));
            return called.unwrap_or_else(|_| {
                let (topic, id) = (&received.topic, &received.id);
                tracing::error!(%topic, message.id = %id, "order_by panicked, no order is kept");
                None
            });
        }
        let group = received.group.as_deref();
        let key = match self.order {
            _ if self.fifo => {
                let partition = || received.partition.as_deref().unwrap_or_default();
                let key = group.map_or_else(|| (false, partition()), |group| (true, group));
                return Some(self.hasher.hash_one(key));
            }
            Order::Unordered => return None,
            Order::ByGroup => group?,
            Order::ByKey => group.or_else(|| received.keys.first().map(String::as_str))?,
        };
        Some(self.hasher.hash_one(key))
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiter ===

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::DeliveryParts;

    fn queue() -> Queue {
        Queue::new(&Subscription::new("t", "g"), Arc::default())
    }

    fn arrived(number: u64, parts: DeliveryParts) -> Arrived {
        Arrived::new(Job::new(Ticket::new(number), parts.into()), 0, false)
    }

    fn push(queue: &Queue, group: impl Into<String>) {
        let mut parts = DeliveryParts::new("id", "t", "");
        parts.group = Some(group.into());
        let mut job = arrived(0, parts);
        queue.assign(&mut job);
        let refused = queue.push(&mut vec![job], 0);
        assert!(refused.is_empty(), "the queue is open");
    }

    fn next(queue: &Queue) -> Option<Job> {
        queue.next().now_or_never().flatten()
    }

    #[test]
    fn a_stuck_group_delays_no_other() {
        let queue = queue();
        push(&queue, "stuck");
        let _stuck = next(&queue).expect("it runs");
        push(&queue, "stuck");
        for n in 0..5_000 {
            push(&queue, n.to_string());
        }
        for _ in 0..5_000 {
            let job = next(&queue).expect("another group");
            assert_ne!(job.delivery.group.as_deref(), Some("stuck"));
        }
        assert!(next(&queue).is_none(), "only the stuck one's is left");
    }

    #[test]
    fn what_is_parked_without_a_key_leaves_no_slot_behind() {
        let queue = queue();
        for n in 0..100 {
            let parts = DeliveryParts::new("id", "t", "");
            let refused = queue.push(&mut vec![arrived(n, parts)], 0);
            assert!(refused.is_empty(), "the queue is open");
            let job = next(&queue).expect("it runs");
            assert_eq!(job.slot(), None);
            queue.park(job, Instant::now()).expect("it is open");
            let job = next(&queue).expect("its time has come");
            assert!(job.slot().is_some() && !job.is_ordered());
            queue.release(job.slot());
        }
        let state = queue.lock();
        assert_eq!((state.slots.len(), state.index.len()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_keeps_what_is_overtaken_with_a_key_or_without() {
        let queue = queue();
        for n in 1..=3 {
            let parts = DeliveryParts::new("id", "t", "");
            queue.push(&mut vec![arrived(n, parts)], 0);
        }
        push(&queue, "key");
        let cut = crate::clock::from_now(std::time::Duration::from_secs(20));
        let drained = queue.drain(&[Ticket::new(2), Ticket::default()].into(), cut);
        let back: Vec<_> = drained.back.iter().map(|job| job.ticket.number()).collect();
        assert_eq!((back, drained.late.len()), (vec![1, 3], 0));
        let stays = next(&queue).expect("it must be finished");
        assert_eq!((stays.ticket.number(), stays.must_finish), (2, true));
        assert!(next(&queue).is_some_and(|job| job.is_ordered()));
        assert!(next(&queue).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_queue_tries_one_message_after_its_time() {
        let queue = queue();
        for _ in 0..3 {
            push(&queue, "one");
            push(&queue, "two");
        }
        queue.shut(crate::clock::from_now(std::time::Duration::from_secs(60)));
        assert!(next(&queue).is_none() && !queue.wants_more());
        queue.shut(Instant::now());
        let probe = next(&queue).expect("one is tried");
        assert!(probe.probe && next(&queue).is_none());
        queue.probe_again();
        let other = next(&queue).expect("another");
        assert!(other.probe && other.slot() != probe.slot());
        queue.reopen();
        queue.release(probe.slot());
        let job = next(&queue).expect("all go on");
        assert!(!job.probe && queue.wants_more());
        queue.hold_all(true);
        queue.release(other.slot());
        assert!(next(&queue).is_none() && !queue.wants_more());
        assert_eq!(queue.condition(), Condition::Held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_was_not_told_of_a_message_is_seen() {
        let queue = queue();
        let lane = queue.next();
        tokio::pin!(lane);
        assert!(futures_util::poll!(&mut lane).is_pending());
        assert!(!queue.is_idle_beside_work(), "there is no work");
        let job = Job::new(Ticket::default(), DeliveryParts::new("id", "t", "").into());
        // Not by `push`, which tells.
        queue.lock().ready.push_back(Ready::Free(job));
        assert!(queue.is_idle_beside_work());
        queue.hold_all(true);
        assert!(!queue.is_idle_beside_work(), "it may not start");
        queue.hold_all(false);
        assert!(lane.await.is_some() && !queue.is_idle_beside_work());
    }

    #[test]
    fn a_lane_that_ends_hands_on_what_it_was_woken_for() {
        let queue = queue();
        queue.end_lanes(3);
        assert_eq!(queue.keep_lanes(5), 3);
        assert!(!queue.is_surplus());
        queue.end_lanes(1);
        push(&queue, "one");
        assert!(next(&queue).is_none(), "it ends");
        assert!(next(&queue).is_some(), "this one does not");
    }

    #[test]
    fn the_memory_for_groups_is_that_of_messages_in_flight() {
        let queue = queue();
        for n in 0..5_000 {
            push(&queue, n.to_string());
            push(&queue, n.to_string());
            for _ in 0..2 {
                let job = next(&queue).expect("it runs");
                queue.release(job.slot());
            }
        }
        let state = queue.lock();
        assert_eq!((state.slots.len(), state.index.len()), (1, 0));
    }
}
