//! When acknowledgements are sent, and how many together.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// From that many on, a request is sent without waiting for more.
const BATCH_MIN: usize = 32;
/// Most in one request.
const BATCH_MAX: usize = 128;
/// Requests under way at once.
const IN_FLIGHT_MAX: usize = 4;
/// How long an acknowledgement waits for others when no request is under way.
const LINGER: Duration = Duration::from_millis(2);
/// The same while one is: its answer is usually what ends the wait.
const LINGER_BUSY: Duration = Duration::from_millis(10);

/// Acknowledgements of one topic for one server, waiting to be sent.
#[derive(Debug)]
pub(super) struct AckQueue<T> {
    ready: VecDeque<T>,
    /// When the first of `ready` came.
    since: Option<Instant>,
    /// To be sent again, not before their time. Few: only what failed.
    later: Vec<(Instant, T)>,
}

impl<T> AckQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            since: None,
            later: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty()
    }

    pub(super) fn push(&mut self, item: T, now: Instant) {
        self.since.get_or_insert(now);
        self.ready.push_back(item);
    }

    pub(super) fn push_later(&mut self, item: T, not_before: Instant) {
        self.later.push((not_before, item));
    }

    /// The next request, if it is time for one. `hurry`: nothing more will come, do not wait.
    pub(super) fn next_batch(
        &mut self,
        now: Instant,
        in_flight: usize,
        hurry: bool,
    ) -> Option<Vec<T>> {
        for (_, item) in self
            .later
            .extract_if(.., |(not_before, _)| *not_before <= now)
        {
            self.since.get_or_insert(now);
            self.ready.push_back(item);
        }
        let since = self.since?;
        let due = hurry || self.ready.len() >= BATCH_MIN || now >= since + linger(in_flight);
        if !due || in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        let size = self.ready.len().min(BATCH_MAX);
        let batch = self.ready.drain(..size).collect();
        self.since = (!self.ready.is_empty()).then_some(now);
        Some(batch)
    }

    /// When to ask for the next batch, if nothing happens before.
    pub(super) fn wake_at(&self, in_flight: usize) -> Option<Instant> {
        let retry = self.later.iter().map(|(not_before, _)| *not_before).min();
        let linger = self
            .since
            .filter(|_| in_flight < IN_FLIGHT_MAX)
            .map(|it| it + linger(in_flight));
        match (retry, linger) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.since = None;
        self.ready
            .drain(..)
            .chain(self.later.drain(..).map(|(_, item)| item))
    }
}

fn linger(in_flight: usize) -> Duration {
    if in_flight == 0 { LINGER } else { LINGER_BUSY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: usize, now: Instant) -> AckQueue<usize> {
        let mut queue = AckQueue::new();
        for n in 0..count {
            queue.push(n, now);
        }
        queue
    }

    #[test]
    fn a_full_batch_goes_at_once_and_a_small_one_waits_a_moment() {
        let now = Instant::now();
        let mut queue = filled(BATCH_MIN, now);
        assert_eq!(queue.next_batch(now, 3, false).unwrap().len(), BATCH_MIN);
        assert_eq!(queue.wake_at(0), None);

        let mut queue = filled(3, now);
        assert!(queue.next_batch(now, 0, false).is_none());
        assert_eq!(queue.wake_at(0), Some(now + LINGER));
        assert!(
            queue.next_batch(now + LINGER, 1, false).is_none(),
            "another is under way"
        );
        assert_eq!(queue.next_batch(now + LINGER, 0, false).unwrap(), [0, 1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn requests_under_way_are_bounded_and_what_waits_for_them_is_sent_together() {
        let now = Instant::now();
        let mut queue = filled(1000, now);
        assert!(queue.next_batch(now, IN_FLIGHT_MAX, true).is_none());
        assert_eq!(
            queue.wake_at(IN_FLIGHT_MAX),
            None,
            "an answer is what wakes us"
        );
        assert_eq!(queue.next_batch(now, 3, false).unwrap().len(), BATCH_MAX);
    }

    #[test]
    fn a_hurry_does_not_wait_and_does_not_bring_retries_forward() {
        let now = Instant::now();
        let mut queue = filled(1, now);
        queue.push_later(9, now + Duration::from_secs(1));
        assert_eq!(queue.next_batch(now, 0, true).unwrap(), [0]);
        assert!(queue.next_batch(now, 0, true).is_none());
        assert_eq!(queue.wake_at(0), Some(now + Duration::from_secs(1)));
        assert_eq!(
            queue
                .next_batch(now + Duration::from_secs(1), 0, true)
                .unwrap(),
            [9]
        );
    }
}
