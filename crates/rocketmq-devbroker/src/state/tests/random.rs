//! Random operations, many times: nothing is lost, and nothing stays stuck.

use std::collections::BTreeSet;

use crate::state::{
    Delivered, GroupConfig, Limits, TopicType,
    tests::bench::{Bench, LEASE, seconds},
};

const SEEDS: u64 = 60;
const STEPS: usize = 400;

/// A small generator, so that a failure is repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, held: &'a mut [Delivered]) -> Option<&'a mut Delivered> {
        let index = usize::try_from(self.roll(held.len().max(1) as u64)).unwrap();
        held.get_mut(index)
    }
}

/// Plays for a while, then settles everything. Returns what was acked, sent and given up.
fn play(mut bench: Bench, seed: u64) -> (Vec<String>, BTreeSet<String>, Vec<String>) {
    let mut dice = Dice(seed);
    let mut held: Vec<Delivered> = Vec::new();
    let (mut sent, mut acked) = (BTreeSet::new(), Vec::new());
    for step in 0..STEPS {
        let client = if dice.roll(2) == 0 { "a" } else { "b" };
        match dice.roll(9) {
            0..=2 => {
                let id = format!("g{}-{step}", dice.roll(3));
                bench.put_ordered(&[&id]);
                sent.insert(id);
            }
            3 => {
                let batch = i32::try_from(dice.roll(5)).unwrap() + 1;
                held.extend(bench.receive_ordered(client, &format!("{step}"), batch));
            }
            4 => {
                let delivered = bench.receive_ordered(client, &format!("{step}"), 3);
                let written = usize::try_from(dice.roll(4)).unwrap().min(delivered.len());
                bench.state.hand_back(bench.now, &delivered[written..]);
                held.extend_from_slice(&delivered[..written]);
            }
            5 | 6 => {
                if let Some(delivered) = dice.pick(&mut held)
                    && bench.ack(&delivered.handle).is_ok()
                {
                    acked.push(delivered.message.draft.id.clone());
                }
            }
            7 => {
                let to = seconds(dice.roll(20));
                if let Some(delivered) = dice.pick(&mut held)
                    && let Ok(handle) = bench.change(&delivered.handle, to)
                {
                    delivered.handle = handle;
                }
            }
            _ => bench.pass(seconds(dice.roll(6))),
        }
    }
    drain(&mut bench, &mut acked);
    (acked, sent, bench.dead_letters())
}

/// Receives and acks in order until nothing is left.
fn drain(bench: &mut Bench, acked: &mut Vec<String>) {
    let mut idle = 0;
    for round in 0.. {
        let got = bench.receive_ordered("a", &format!("drain-{round}"), 32);
        for delivered in &got {
            bench.ack(&delivered.handle).unwrap();
            acked.push(delivered.message.draft.id.clone());
        }
        idle = if got.is_empty() { idle + 1 } else { 0 };
        if idle > 3 {
            break;
        }
        bench.pass(LEASE * 2);
    }
    assert_eq!(bench.in_flight(), 0);
    assert_eq!(bench.state.lag(bench.now, "t", "g"), 0);
    assert_eq!(bench.state.next_event(), None);
}

#[test]
fn without_order_every_message_is_acked_or_dead_and_none_comes_after_its_ack() {
    for seed in 0..SEEDS {
        let group = GroupConfig::new().retry_max_times(u32::try_from(seed % 4).unwrap());
        let bench = Bench::with(group, TopicType::Fifo, Limits::default());
        let (acked, sent, dead) = play(bench, seed);
        // An ack may be repeated while its handle is current, so ids are compared as sets.
        let acked: BTreeSet<String> = acked.into_iter().collect();
        let dead: BTreeSet<String> = dead.into_iter().collect();
        assert!(acked.is_disjoint(&dead), "seed {seed}");
        assert_eq!(
            acked.union(&dead).cloned().collect::<BTreeSet<_>>(),
            sent,
            "seed {seed}"
        );
    }
}

#[test]
fn in_order_no_message_is_lost_and_no_queue_stays_blocked() {
    for seed in 0..SEEDS {
        let group = GroupConfig::new().fifo(true).retry_max_times(1000);
        let bench = Bench::with(group, TopicType::Fifo, Limits::default());
        let (acked, sent, dead) = play(bench, seed);
        assert_eq!(dead, [""; 0], "seed {seed}");
        let distinct: BTreeSet<String> = acked.iter().cloned().collect();
        assert_eq!(distinct, sent, "seed {seed}");
    }
}
