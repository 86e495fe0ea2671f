//! Values made of random bytes: mostly right, so that they reach what is behind the checks.

use std::{
    collections::{HashMap, VecDeque},
    slice::Iter,
};

use rocketmq_proto::v2;

use crate::service::tests::wire::{Receipt, Seen};

pub(super) const TOPICS: [&str; 8] = ["t", "fifo", "delay", "half", "first", "lite", "%DLQ%g", "u"];
pub(super) const GROUPS: [&str; 3] = ["g", "ordered", "v"];
pub(super) const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];
pub(super) const TEXTS: [&str; 12] = [
    "",
    " ",
    "k",
    "\u{0}\n",
    "ä\u{202e}",
    "%DLQ%",
    "TAGS",
    "0-0-0-1-ffffffffff",
    "ffffffff-ffffffff-ffffffffffffffff-ffffffffffffffff-ffffffffffffffff",
    "delay-ffffffffffffffff",
    "a-name-of-more-than-a-hundred-and-twenty-seven-bytes-that-no-topic-and-no-group-may-have-\
     whatever-it-is-made-of-because-it-is-so-long",
    "rmq_sys_x",
];
const FILTERS: [&str; 8] = [
    "*",
    "a || b",
    "k = 'v'",
    "((((((k IS NOT NULL",
    "NOT NOT k BETWEEN 1 AND 99999999999999999999",
    "",
    "TAGS IN ('a', 'b') OR k > -0.5",
    "||",
];

/// Chooses by bytes; when they are used up, the first of everything, which is right.
pub(super) struct Dice<'a> {
    bytes: Iter<'a, u8>,
    pub(super) seen: &'a Seen,
    /// Seconds since the epoch.
    now: i64,
    /// The group of a receive.
    pub(super) asked: Option<v2::Resource>,
}

impl<'a> Dice<'a> {
    pub(super) fn new(bytes: &'a [u8], seen: &'a Seen, now: i64) -> Self {
        let bytes = bytes.iter();
        Self {
            bytes,
            seen,
            now,
            asked: None,
        }
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// True once in `n` times.
    pub(super) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub(super) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.once_in(20)).then(|| make(self))
    }

    /// What is seldom there.
    pub(super) fn rarely<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.once_in(4).then(|| make(self))
    }

    pub(super) fn some<T>(&mut self, max: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| make(self)).collect()
    }

    /// One of these, or a text that is none of them.
    pub(super) fn name(&mut self, right: &[&str]) -> String {
        let all = if self.once_in(20) { &TEXTS } else { right };
        self.of(all).to_owned()
    }

    pub(super) fn resource(&mut self, right: &[&str]) -> Option<v2::Resource> {
        self.maybe(|it| v2::Resource {
            resource_namespace: it.rarely(|it| it.name(&["", "ns"])).unwrap_or_default(),
            name: it.name(right),
        })
    }

    pub(super) fn topic(&mut self) -> Option<v2::Resource> {
        self.resource(&TOPICS)
    }

    pub(super) fn group(&mut self) -> Option<v2::Resource> {
        self.resource(&GROUPS)
    }

    pub(super) fn known(&mut self, names: &VecDeque<String>) -> String {
        let at = self.below(names.len().max(1));
        let mut name = names.iter().rev().nth(at).cloned().unwrap_or_default();
        if self.once_in(20) {
            name = self.of(&TEXTS).to_owned();
        } else if self.once_in(20) {
            let digit = char::from(b'0' + self.byte() % 10);
            name.insert(self.below(name.len().max(1)), digit);
        }
        name
    }

    /// What was handed out, with its topic and group most of the time.
    pub(super) fn receipt(&mut self) -> Receipt {
        let at = self.below(self.seen.receipts.len().max(1));
        let seen = self.seen.receipts.iter().rev().nth(at).cloned();
        let mut receipt = seen.unwrap_or_default();
        if self.once_in(10) {
            receipt.topic = self.topic();
        }
        if self.once_in(10) {
            receipt.group = self.group();
        }
        receipt.handle = self.known(&[receipt.handle].into());
        receipt
    }

    /// A number that may be anything.
    pub(super) fn int(&mut self) -> i64 {
        match self.below(8) {
            0..3 => i64::from(self.byte()),
            3 => -1,
            4 => i64::MAX,
            5 => i64::MIN,
            6 => i64::from(i32::MAX) + 1,
            _ => 0,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    pub(super) fn small(&mut self) -> i32 {
        self.int() as i32
    }

    /// A number of an enum, which may be none of its.
    pub(super) fn kind(&mut self, end: usize) -> i32 {
        if self.once_in(20) {
            return self.small();
        }
        i32::try_from(self.below(end)).unwrap_or_default()
    }

    pub(super) fn duration(&mut self) -> prost_types::Duration {
        let odd = self.once_in(10);
        prost_types::Duration {
            seconds: if odd {
                self.int()
            } else {
                self.of(&[60, 15, 10, 30, 3600, 3600])
            },
            nanos: if odd { self.small() } else { 0 },
        }
    }

    pub(super) fn time(&mut self) -> prost_types::Timestamp {
        let odd = self.once_in(10);
        let from_now = self.of(&[1, 10, 60, 3600, 86_000, 0, -60]);
        prost_types::Timestamp {
            seconds: if odd { self.int() } else { self.now + from_now },
            nanos: if odd { self.small() } else { 0 },
        }
    }

    pub(super) fn endpoints(&mut self) -> Option<v2::Endpoints> {
        self.rarely(|it| v2::Endpoints {
            scheme: it.kind(4),
            addresses: it.some(2, |it| v2::Address {
                host: it.name(&["127.0.0.1", "::1"]),
                port: it.small(),
            }),
        })
    }

    pub(super) fn queue(&mut self) -> Option<v2::MessageQueue> {
        self.maybe(|it| v2::MessageQueue {
            topic: it.topic(),
            id: it.small(),
            permission: it.kind(4),
            broker: None,
            accept_message_types: it.some(2, |it| it.kind(8)),
        })
    }

    pub(super) fn filter(&mut self) -> Option<v2::FilterExpression> {
        self.maybe(|it| v2::FilterExpression {
            r#type: it.of(&[1, 1, 1, 2, 0, -1]),
            expression: if it.once_in(3) {
                it.of(&FILTERS).into()
            } else {
                "*".into()
            },
        })
    }

    pub(super) fn properties(&mut self) -> HashMap<String, String> {
        let pair = |it: &mut Self| (it.name(&["k", "n"]), it.name(&["v", "1", "-1e9"]));
        self.some(3, pair).into_iter().collect()
    }
}
