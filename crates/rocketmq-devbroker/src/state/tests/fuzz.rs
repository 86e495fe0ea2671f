//! Random operations: nothing is lost, nothing is held twice, order is kept, nothing stays stuck.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rocketmq_proto::v2::{MessageType, TransactionResolution, TransactionSource};

use crate::state::{
    Delivered, Draft, End, GroupConfig, Limits, TopicType,
    tests::bench::{Bench, LEASE, draft, seconds},
};

/// Of each kind of group.
const CASES: u32 = 5_000;
const STEPS: usize = 24;

/// What to do next, and two numbers that say how.
type Step = (u8, u8, u8);

/// A run, and what is expected of it.
struct Play {
    bench: Bench,
    ordered: bool,
    held: Vec<Delivered>,
    /// Every message that a consumer must get, in the order of sending.
    owed: Vec<String>,
    halves: Vec<String>,
    acked: BTreeSet<String>,
    serial: usize,
    receives: usize,
}

impl Play {
    fn new(config: GroupConfig, ordered: bool) -> Self {
        let mut bench = Bench::with(config.fifo(ordered), TopicType::Mixed, Limits::default());
        // The group's position is set before the first message.
        bench.receive_ordered("a", "first", 1);
        Self {
            bench,
            ordered,
            held: Vec::new(),
            owed: Vec::new(),
            halves: Vec::new(),
            acked: BTreeSet::new(),
            serial: 0,
            receives: 0,
        }
    }

    fn step(&mut self, (what, how, more): Step) -> Result<(), TestCaseError> {
        let client = if more.is_multiple_of(2) { "a" } else { "b" };
        match what % 10 {
            0..=2 => self.send(how % 3, more),
            3 => self.receive(client, how, 0)?,
            4 => self.receive(client, how, usize::from(more % 4))?,
            5 => self.ack(usize::from(how)),
            6 => {
                if let Some(index) = self.pick(how)
                    && let Ok(handle) = self
                        .bench
                        .change(&self.held[index].handle.clone(), seconds(more.into()))
                {
                    self.held[index].handle = handle;
                }
            }
            7 => self.end(how),
            8 if more.is_multiple_of(8) => self.bench.state.expire_leases(self.bench.now, "g"),
            _ => self.bench.pass(seconds(u64::from(how % 12))),
        }
        let now = self.bench.now;
        let in_flight = self.bench.state.in_flight(now, "g");
        let ids: BTreeSet<_> = in_flight.iter().map(|held| &held.message_id).collect();
        prop_assert_eq!(ids.len(), in_flight.len(), "held twice");
        Ok(())
    }

    fn send(&mut self, kind: u8, more: u8) {
        self.serial += 1;
        let id = format!("g{}-{:04}", more % 3, self.serial);
        let plain = draft("t", &id);
        let message = match kind {
            0 => Draft {
                message_group: Some(format!("g{}", more % 3)),
                ..plain
            },
            1 => Draft {
                deliver_at: Some(self.bench.now.plus(seconds(u64::from(more % 20)))),
                ..plain
            },
            _ => Draft {
                declared: MessageType::Transaction,
                born_at: self.bench.now,
                ..plain
            },
        };
        self.bench.send(message).unwrap();
        if kind == 2 {
            self.halves.push(id);
        } else {
            self.owed.push(id);
        }
    }

    fn end(&mut self, how: u8) {
        let Some(id) = self.halves.pop() else { return };
        let commit = how.is_multiple_of(2);
        let end = End {
            topic: "t",
            transaction_id: &id,
            resolution: if commit {
                TransactionResolution::Commit
            } else {
                TransactionResolution::Rollback
            },
            source: TransactionSource::SourceClient,
        };
        let ended = self.bench.state.end_transaction(self.bench.now, &end);
        if ended.is_ok() && commit {
            self.owed.push(id);
        }
    }

    fn pick(&self, how: u8) -> Option<usize> {
        usize::from(how).checked_rem(self.held.len())
    }

    fn ack(&mut self, how: usize) {
        let Some(index) = how.checked_rem(self.held.len()) else {
            return;
        };
        let delivered = self.held.swap_remove(index);
        if self.bench.ack(&delivered.handle).is_ok() {
            self.acked.insert(delivered.message.draft.id.clone());
        }
    }

    /// Receives; the last `lost` messages are never written.
    fn receive(&mut self, client: &str, how: u8, lost: usize) -> Result<(), TestCaseError> {
        let held_before: BTreeSet<String> = self
            .bench
            .state
            .in_flight(self.bench.now, "g")
            .into_iter()
            .map(|held| held.message_id)
            .collect();
        self.receives += 1;
        let attempt = self.receives.to_string();
        let batch = i32::from(how % 5) + 1;
        let mut got = self.bench.receive_ordered(client, &attempt, batch);
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for delivered in &got {
            let message = &delivered.message;
            let id = &message.draft.id;
            prop_assert!(!held_before.contains(id), "{} is held by another", id);
            if self.ordered {
                let before = last.insert(message.queue, message.offset);
                prop_assert!(before < Some(message.offset), "{} comes out of order", id);
            } else {
                prop_assert!(!self.acked.contains(id), "{} comes after its ack", id);
            }
        }
        let written = got.len().saturating_sub(lost);
        self.bench.state.hand_back(self.bench.now, &got[written..]);
        got.truncate(written);
        self.held.extend(got);
        Ok(())
    }

    /// Ends everything and compares.
    fn drain(mut self) -> Result<(), TestCaseError> {
        self.bench.pass(seconds(300));
        let mut idle = 0;
        for round in 0..500 {
            let got = self
                .bench
                .receive_ordered("a", &format!("drain-{round}"), 32);
            for delivered in &got {
                self.bench.ack(&delivered.handle).unwrap();
                self.acked.insert(delivered.message.draft.id.clone());
            }
            idle = if got.is_empty() { idle + 1 } else { 0 };
            if idle > 2 {
                break;
            }
            self.bench.pass(LEASE * 2);
        }
        prop_assert!(idle > 2, "messages keep coming");
        let now = self.bench.now;
        prop_assert_eq!(self.bench.in_flight(), 0);
        prop_assert_eq!(self.bench.state.lag(now, "t", "g"), 0);
        let dead: BTreeSet<String> = self.bench.dead_letters().into_iter().collect();
        let done: BTreeSet<String> = self.acked.union(&dead).cloned().collect();
        let owed: BTreeSet<String> = self.owed.iter().cloned().collect();
        prop_assert_eq!(done, owed, "lost or made up");
        if !self.ordered {
            prop_assert!(self.acked.is_disjoint(&dead));
        }
        Ok(())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<Step>(), 1..STEPS)
}

fn play(play: Play, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut play = play;
    for step in steps {
        play.step(step)?;
    }
    play.drain()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn without_order_every_message_is_acked_or_dead_and_held_once(
        steps in steps(),
        retries in 0_u32..4,
    ) {
        play(Play::new(GroupConfig::new().retry_max_times(retries), false), steps)?;
    }

    #[test]
    fn in_order_no_message_is_lost_and_no_queue_stays_blocked(steps in steps()) {
        play(Play::new(GroupConfig::new().retry_max_times(1000), true), steps)?;
    }
}
