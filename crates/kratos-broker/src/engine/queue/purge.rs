//! Messages that are somebody else's by now: they leave nothing behind.

use std::collections::HashSet;

use super::{
    Queue, Ticket,
    slots::{Ready, State},
};

impl Queue {
    /// Takes messages out that the table has no more: they would take room, and their keys would
    /// wait for their next attempts.
    pub(crate) fn purge(&self, gone: &HashSet<Ticket>) {
        self.lock().purge(gone);
        // Keys that go on; and lanes that end when nothing waits.
        self.changed.notify_waiters();
        self.hungry.notify_waiters();
    }

    /// A message that was taken out does not start: it counts for no rate limit.
    pub(crate) fn not_started(&self) {
        if let Some(rate) = &mut self.lock().rate {
            rate.give_back();
        }
    }
}

impl State {
    fn purge(&mut self, gone: &HashSet<Ticket>) {
        self.ready.retain(|entry| match entry {
            Ready::Free(job) => !gone.contains(&job.ticket),
            Ready::Slot(_) => true,
        });
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let first = slot.jobs.front().map(|job| job.ticket);
            slot.jobs.retain(|job| !gone.contains(&job.ticket));
            // What it was parked for is the message in front.
            let goes_on = slot.parked && first.is_some_and(|first| gone.contains(&first));
            if goes_on && !slot.jobs.is_empty() {
                slot.parked = false;
                self.ready.push_back(Ready::Slot(at));
            }
        }
        self.forget_empty_slots();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        DeliveryParts, Subscription,
        clock::from_now,
        engine::queue::{Arrived, Job},
    };

    fn next(queue: &Queue) -> Option<Job> {
        queue.next().now_or_never().flatten()
    }

    fn push(queue: &Queue, number: u64, group: Option<&str>) {
        let mut parts = DeliveryParts::new("id", "t", "");
        parts.group = group.map(str::to_owned);
        let job = Job::new(Ticket::new(number), parts.into());
        let mut job = Arrived::new(job, 0, false);
        queue.assign(&mut job);
        assert!(
            queue.push(&mut vec![job], 0).is_empty(),
            "the queue is open"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_leaves_nothing_behind_and_holds_nobody_up() {
        let queue = Queue::new(&Subscription::new("t", "g"), Arc::default());
        push(&queue, 1, Some("parked"));
        let first = next(&queue).expect("it runs");
        queue
            .park(first, from_now(Duration::from_secs(3600)))
            .expect("it is open");
        push(&queue, 2, Some("parked"));
        push(&queue, 3, None);
        push(&queue, 4, Some("running"));
        push(&queue, 5, Some("running"));
        push(&queue, 6, Some("listed"));
        let free = next(&queue).expect("it has no key");
        let running = next(&queue).expect("the first of its key");
        let running_is = (free.ticket.number(), running.ticket.number());
        assert_eq!(running_is, (3, 4));
        queue.purge(&[1, 5, 6].map(Ticket::new).into());
        let second = next(&queue).expect("it waits for no other any more");
        assert_eq!(second.ticket.number(), 2);
        assert!(next(&queue).is_none());
        for job in [free, running, second] {
            queue.release(job.slot());
        }
        let state = queue.lock();
        assert!(state.is_empty() && state.index.is_empty() && state.parked.is_empty());
    }
}
