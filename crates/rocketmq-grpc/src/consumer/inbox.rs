//! The account of what a topic's receives may bring and have brought.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::Error;

/// How long a failure waits for a caller: one that lasts is repeated more often than that.
const FAILURE_TTL: Duration = Duration::from_secs(60);

/// Credits of one topic.
///
/// The caller grants room by waiting for messages; a receive takes credit out of it before it asks
/// the server. At any time `asked + arrived` is at most the room of the newest call, whatever the
/// number of brokers and receives.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    /// Of the call that waits; 0 while none does.
    room: usize,
    /// Messages that receives under way may still bring.
    asked: usize,
    arrived: VecDeque<T>,
    failed: Option<(Error, Instant)>,
    stopped: bool,
    /// Every broker may be asked for one message, however small the room.
    one_each: bool,
}

/// Credit of one receive.
#[derive(Debug)]
#[must_use]
pub(super) struct Credit {
    pub(super) size: usize,
    left: usize,
    /// There is not enough room for all brokers: others wait until this receive is over.
    pub(super) scarce: bool,
}

/// What there is for a caller.
#[derive(Debug)]
pub(super) enum Taken<T> {
    Some(Vec<T>),
    Failed(Error),
    Stopped,
    Nothing,
}

impl Credit {
    /// Messages that may still come.
    pub(super) fn left(&self) -> usize {
        self.left
    }
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        Self {
            room: 0,
            asked: 0,
            arrived: VecDeque::new(),
            failed: None,
            stopped: false,
            one_each: false,
        }
    }

    /// For callers whose small room must not make them wait for a broker without messages while
    /// another has some. What they do not take waits for the next call.
    pub(super) fn with_one_each() -> Self {
        Self {
            one_each: true,
            ..Self::new()
        }
    }

    pub(super) fn grant(&mut self, room: usize) {
        self.room = room;
    }

    /// Credit for at most `most` messages; the room is shared among `sources` brokers, so that one
    /// without messages does not keep the others waiting.
    pub(super) fn ask(&mut self, most: usize, sources: usize) -> Option<Credit> {
        if self.stopped || self.room == 0 {
            return None;
        }
        let taken = self.asked + self.arrived.len();
        let share = self.room.div_ceil(sources.max(1));
        let mut size = self.room.saturating_sub(taken).min(most).min(share);
        if self.one_each && self.arrived.is_empty() {
            size = size.max(1);
        }
        if size == 0 {
            return None;
        }
        self.asked += size;
        Some(Credit {
            size,
            left: size,
            scarce: !self.one_each && self.room < sources,
        })
    }

    /// A message arrived.
    pub(super) fn put(&mut self, credit: &mut Credit, item: T) {
        self.spend(credit);
        self.arrived.push_back(item);
    }

    /// A message arrived that nobody shall see.
    pub(super) fn spend(&mut self, credit: &mut Credit) {
        // A server that sends more than it was asked for spends nothing.
        if credit.left > 0 {
            credit.left -= 1;
            self.asked -= 1;
        }
    }

    /// The receive is over.
    #[expect(clippy::needless_pass_by_value, reason = "a credit is closed once")]
    pub(super) fn close(&mut self, credit: Credit) {
        self.asked -= credit.left;
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.failed = Some((error, Instant::now()));
    }

    /// From now on callers get what is left.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn take(&mut self, max: usize, mut keep: impl FnMut(&T) -> bool) -> Taken<T> {
        let mut items = Vec::with_capacity(self.arrived.len().min(max));
        while items.len() < max
            && let Some(item) = self.arrived.pop_front()
        {
            if keep(&item) {
                items.push(item);
            }
        }
        if !items.is_empty() {
            return Taken::Some(items);
        }
        if let Some((error, at)) = self.failed.take()
            && at.elapsed() < FAILURE_TTL
        {
            return Taken::Failed(error);
        }
        if self.stopped && self.asked == 0 {
            Taken::Stopped
        } else {
            Taken::Nothing
        }
    }

    pub(super) fn drain(&mut self) -> Vec<T> {
        self.arrived.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(taken: Taken<u32>) -> Vec<u32> {
        match taken {
            Taken::Some(items) => items,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn asked_and_arrived_never_exceed_the_room() {
        let mut inbox = Inbox::new();
        assert!(inbox.ask(32, 1).is_none(), "nobody waits");
        inbox.grant(40);
        let mut first = inbox.ask(32, 1).unwrap();
        let second = inbox.ask(32, 1).unwrap();
        assert_eq!((first.size, second.size), (32, 8));
        assert!(inbox.ask(32, 1).is_none());

        inbox.put(&mut first, 1);
        assert!(
            inbox.ask(32, 1).is_none(),
            "what arrived still takes its place"
        );
        assert_eq!(numbers(inbox.take(40, |_| true)), [1]);
        inbox.grant(39);
        assert!(
            inbox.ask(32, 1).is_none(),
            "38 are asked for, and the caller has 39 places"
        );
        inbox.close(second);
        assert_eq!(inbox.ask(32, 1).unwrap().size, 8);
    }

    #[test]
    fn room_that_shrinks_below_what_is_asked_gives_no_credit() {
        let mut inbox = Inbox::<u32>::new();
        inbox.grant(32);
        let credit = inbox.ask(32, 1).unwrap();
        inbox.grant(4);
        assert!(inbox.ask(32, 1).is_none());
        inbox.close(credit);
        assert_eq!(inbox.ask(32, 1).unwrap().size, 4);
    }

    #[test]
    fn brokers_share_the_room() {
        let mut inbox = Inbox::<u32>::new();
        inbox.grant(8);
        let sizes: Vec<_> = (0..3)
            .filter_map(|_| inbox.ask(32, 3))
            .map(|it| it.size)
            .collect();
        assert_eq!(sizes, [3, 3, 2]);
    }

    #[test]
    fn with_one_each_a_small_room_asks_every_broker() {
        let mut inbox = Inbox::with_one_each();
        assert!(inbox.ask(32, 3).is_none(), "nobody waits");
        inbox.grant(1);
        let mut credits: Vec<_> = (0..3).filter_map(|_| inbox.ask(32, 3)).collect();
        assert!(credits.iter().all(|it| it.size == 1) && credits.len() == 3);
        for (n, credit) in (0..).zip(&mut credits) {
            inbox.put(credit, n);
        }
        assert_eq!(numbers(inbox.take(1, |_| true)), [0]);
        assert!(inbox.ask(32, 3).is_none(), "others wait for the next call");
    }

    #[test]
    fn a_server_that_sends_too_much_does_not_break_the_account() {
        let mut inbox = Inbox::new();
        inbox.grant(1);
        let mut credit = inbox.ask(32, 1).unwrap();
        for n in 0..3 {
            inbox.put(&mut credit, n);
        }
        inbox.close(credit);
        assert_eq!(numbers(inbox.take(1, |_| true)), [0]);
        inbox.grant(2);
        assert!(inbox.ask(32, 1).is_none());
        assert_eq!(numbers(inbox.take(9, |_| true)), [1, 2]);
        assert_eq!(inbox.ask(32, 1).unwrap().size, 2);
    }

    #[test]
    fn after_the_stop_callers_get_what_is_left_and_then_the_end() {
        let mut inbox = Inbox::new();
        inbox.grant(4);
        let mut credit = inbox.ask(4, 1).unwrap();
        inbox.stop();
        assert!(
            matches!(inbox.take(4, |_| true), Taken::Nothing),
            "a receive is being read"
        );
        inbox.put(&mut credit, 1);
        inbox.close(credit);
        assert_eq!(numbers(inbox.take(4, |_| true)), [1]);
        assert!(matches!(inbox.take(4, |_| true), Taken::Stopped));
        assert!(inbox.ask(1, 1).is_none());
    }

    #[test]
    fn an_error_is_told_once_and_after_the_messages() {
        let mut inbox = Inbox::new();
        inbox.grant(2);
        let mut credit = inbox.ask(2, 1).unwrap();
        inbox.put(&mut credit, 7);
        inbox.fail(Error::closed("test"));
        assert_eq!(numbers(inbox.take(2, |_| true)), [7]);
        assert!(matches!(inbox.take(2, |_| true), Taken::Failed(_)));
        assert!(matches!(inbox.take(2, |_| true), Taken::Nothing));
        inbox.close(credit);
    }
}
