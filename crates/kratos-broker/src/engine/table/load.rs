//! What a topic has in flight, and how much more it may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::driver::Room;

/// How many messages, and bytes of bodies, of one topic may be in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Waiting and running, however slow the handlers are.
    pub(crate) messages: usize,
    /// The same while handlers keep up.
    pub(crate) messages_max: usize,
    pub(crate) bytes: usize,
    pub(crate) max_hold: Duration,
}

/// What is received ahead is what is handled in this time: so soon does the queue drain, and so
/// long do messages wait here that another member could have had.
const AHEAD: Duration = Duration::from_millis(50);

/// How long the pace is measured before it counts.
const PACE: Duration = Duration::from_millis(10);

/// What is settled and not confirmed takes no place, up to this many messages.
const SETTLING_MAX: usize = 4_096;

/// The account of one topic.
#[derive(Debug)]
pub(super) struct Load {
    limit: Limit,
    /// Messages that wait, run, or are being settled.
    all: usize,
    /// Messages whose settlement is under way.
    settling: usize,
    bytes: usize,
    /// Between the two limits of messages.
    places: usize,
    /// What `places` is on its way to.
    wanted: usize,
    /// Messages that were over since `places` was looked at.
    retired: usize,
    pace: Pace,
    /// The intake waits for room for so many.
    awaited: Option<usize>,
}

/// How fast messages are done.
#[derive(Debug)]
struct Pace {
    since: Instant,
    done: usize,
}

// === impl Load ===

impl Load {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            all: 0,
            settling: 0,
            bytes: 0,
            places: limit.messages,
            wanted: limit.messages,
            retired: 0,
            pace: Pace {
                since: Instant::now(),
                done: 0,
            },
            awaited: None,
        }
    }

    pub(super) fn max_hold(&self) -> Duration {
        self.limit.max_hold
    }

    /// One of its subscriptions needs, and may use, more places than before, or fewer.
    pub(super) fn resize(&mut self, before: (usize, usize), now: (usize, usize)) {
        let Limit {
            messages,
            messages_max,
            ..
        } = &mut self.limit;
        *messages = (*messages + now.0).saturating_sub(before.0);
        *messages_max = (*messages_max + now.1).saturating_sub(before.1);
        self.wanted = self.wanted.clamp(*messages, *messages_max);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.all
    }

    #[inline]
    pub(super) fn enter(&mut self, bytes: usize) {
        self.all += 1;
        self.bytes += bytes;
    }

    /// A message is over, for the engine. Answers whether the intake has the room that it waits for.
    #[must_use]
    #[inline]
    pub(super) fn settle(&mut self) -> bool {
        self.settling += 1;
        self.retired += 1;
        self.pace.done += 1;
        let there_is = self.awaited.is_some_and(|room| self.free() >= room);
        if there_is {
            self.awaited = None;
        }
        there_is
    }

    /// A message is over for the broker too, or was lost before.
    #[inline]
    pub(super) fn leave(&mut self, bytes: usize, settling: bool) {
        self.bytes -= bytes;
        self.all -= 1;
        if settling {
            self.settling -= 1;
        } else {
            self.retired += 1;
        }
    }

    /// How much more may come; no messages if nothing. If it is less than `portion`, the caller
    /// waits for that.
    pub(super) fn room(&mut self, portion: usize, now: Instant) -> Room {
        self.adapt(now);
        let bytes = self.limit.bytes.saturating_sub(self.bytes);
        let messages = if bytes == 0 { 0 } else { self.free() };
        self.awaited = (messages < portion).then_some(portion);
        Room::new(messages, bytes)
    }

    fn free(&self) -> usize {
        let most = self.places + SETTLING_MAX;
        let all = most.saturating_sub(self.in_flight());
        self.places.saturating_sub(self.open()).min(all)
    }

    /// Messages that wait or run.
    fn open(&self) -> usize {
        self.all - self.settling
    }

    /// Sets the number of places anew: as many as messages are done in the time that may be
    /// received ahead.
    ///
    /// A driver relies on it that room shrinks by nothing but what it returned: places go only as
    /// messages do. (Not so with `SETTLING_MAX` settlements under way: a driver may then have asked
    /// for up to `places` too many, once.)
    fn adapt(&mut self, now: Instant) {
        let took = now.saturating_duration_since(self.pace.since);
        if took >= PACE {
            let done = std::mem::take(&mut self.pace.done) as f64;
            let ahead = done * AHEAD.as_secs_f64() / took.as_secs_f64();
            self.pace.since = now;
            self.wanted = (ahead as usize).clamp(self.limit.messages, self.limit.messages_max);
        }
        let retired = std::mem::take(&mut self.retired);
        self.places = self.wanted.max(self.places.saturating_sub(retired));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        messages: 48,
        messages_max: 528,
        bytes: 1 << 20,
        max_hold: Duration::from_secs(3600),
    };

    /// Receives all there is room for, and settles so many.
    fn turn(load: &mut Load, settled: usize, now: Instant) -> usize {
        let room = load.room(0, now).messages;
        (0..room).for_each(|_| load.enter(1));
        for _ in 0..settled {
            let _ = load.settle();
            load.leave(1, true);
        }
        room
    }

    #[test]
    fn what_is_settled_takes_no_room() {
        let (mut load, now) = (Load::new(LIMIT), Instant::now());
        assert_eq!(turn(&mut load, 0, now), 48);
        assert_eq!(load.room(1, now).messages, 0);
        assert!(load.settle(), "the intake has the room that it waits for");
        assert!(!load.settle(), "it is told once");
        assert_eq!((load.room(0, now).messages, load.in_flight()), (2, 48));
    }

    #[test]
    fn room_grows_with_the_pace_of_the_handlers_up_to_its_limit() {
        let (mut load, mut now) = (Load::new(LIMIT), Instant::now());
        for _ in 0..50 {
            turn(&mut load, 48, now);
            now += PACE;
        }
        // 48 in 10 ms are 240 in 50 ms.
        assert_eq!(load.places, 240);
        for _ in 0..50 {
            turn(&mut load, 240, now);
            now += PACE;
        }
        assert_eq!(load.places, LIMIT.messages_max);
    }

    #[test]
    fn room_shrinks_only_as_messages_go() {
        let (mut load, mut now) = (Load::new(LIMIT), Instant::now());
        for settled in [48, 48, 48] {
            turn(&mut load, settled, now);
            now += PACE;
        }
        let mut told = load.room(0, now).messages;
        while load.places > LIMIT.messages {
            // A slow handler: one message at a time.
            now += PACE;
            if load.open() == 0 {
                load.enter(1);
                told -= 1;
            }
            let _ = load.settle();
            load.leave(1, true);
            let room = load.room(0, now).messages;
            assert!(room >= told, "{room} of {told} promised");
            told = room;
        }
    }

    #[test]
    fn slow_handlers_get_no_more_than_the_least() {
        let (mut load, mut now) = (Load::new(LIMIT), Instant::now());
        for _ in 0..50 {
            turn(&mut load, 3, now);
            now += PACE;
        }
        assert_eq!(load.places, LIMIT.messages);
    }
}
