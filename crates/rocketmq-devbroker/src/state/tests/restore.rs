//! A state that is made anew of its facts, again and again: nothing is lost, nothing settled comes
//! back, and no old handle settles a new delivery.

use std::collections::{BTreeMap, BTreeSet};

use rocketmq_proto::v2::ClientType;

use crate::state::{
    Delivered, Draft, FactKey, FactValue, GroupConfig, Limits, Role, State, TopicType,
    tests::bench::{Bench, LEASE, draft, ids, seconds},
};

const SEEDS: u64 = 60;
const STEPS: usize = 400;

/// What a disk holds that is never behind.
#[derive(Default)]
struct Disk {
    facts: BTreeMap<FactKey, FactValue>,
    starts: u32,
}

impl Disk {
    fn keep(&mut self, bench: &mut Bench) {
        for fact in bench.state.take_facts() {
            match fact.value {
                Some(value) => self.facts.insert(fact.key, value),
                None => self.facts.remove(&fact.key),
            };
        }
    }

    fn restart(&mut self, bench: &mut Bench, limits: &Limits) {
        self.keep(bench);
        self.starts += 1;
        bench.state = State::new(true, limits.clone());
        let facts = self.facts.clone();
        bench.state.restore(bench.now, self.starts, facts).unwrap();
    }
}

fn register(bench: &mut Bench) {
    for client in ["a", "b"] {
        let role = Role::Consumer {
            kind: ClientType::PushConsumer,
            group: "g".to_owned(),
            subscriptions: Vec::new(),
        };
        bench.state.register(bench.now, client, role, true).unwrap();
    }
}

fn dice(seed: &mut u64, sides: u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % sides
}

/// Returns what was acked, sent and given up.
fn play(
    config: GroupConfig,
    mut seed: u64,
) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
    let limits = Limits {
        retained_messages: 40,
        ..Limits::default()
    };
    let mut bench = Bench::with(config.clone(), TopicType::Fifo, limits.clone());
    let mut disk = Disk::default();
    disk.restart(&mut bench, &limits);
    bench.state.create_topic("t", TopicType::Fifo, 2).unwrap();
    bench.state.create_group("g", config).unwrap();
    register(&mut bench);
    let mut held: Vec<Delivered> = Vec::new();
    let (mut sent, mut acked) = (BTreeSet::new(), BTreeSet::new());
    let mut dead = BTreeSet::new();
    for step in 0..STEPS {
        match dice(&mut seed, 12) {
            0..=3 => {
                let id = format!("g{}-{step}", dice(&mut seed, 3));
                bench.put_ordered(&[&id]);
                sent.insert(id);
            }
            4..=6 => {
                let batch = i32::try_from(dice(&mut seed, 4)).unwrap() + 1;
                held.extend(bench.receive_ordered("a", &format!("{step}"), batch));
            }
            7 | 8 => {
                let index = usize::try_from(dice(&mut seed, held.len().max(1) as u64)).unwrap();
                if let Some(delivered) = held.get(index)
                    && bench.ack(&delivered.handle).is_ok()
                {
                    acked.insert(delivered.message.draft.id.clone());
                }
            }
            9 => {
                let delivered = bench.receive_ordered("b", &format!("{step}"), 2);
                bench.state.hand_back(bench.now, &delivered);
            }
            10 => bench.pass(seconds(dice(&mut seed, 6))),
            _ => {
                let before = bench.state.messages("t");
                disk.restart(&mut bench, &limits);
                assert_eq!(bench.state.messages("t"), before);
                assert_eq!(bench.in_flight(), 0);
                register(&mut bench);
            }
        }
        disk.keep(&mut bench);
        // Collected as they come: old ones are forgotten.
        dead.extend(bench.dead_letters());
    }
    disk.restart(&mut bench, &limits);
    register(&mut bench);
    let mut idle = 0;
    for round in 0.. {
        let got = bench.receive_ordered("a", &format!("drain-{round}"), 32);
        for delivered in &got {
            let id = &delivered.message.draft.id;
            bench.ack(&delivered.handle).unwrap();
            acked.insert(id.clone());
        }
        idle = if got.is_empty() { idle + 1 } else { 0 };
        if idle > 3 {
            break;
        }
        bench.pass(LEASE * 2);
    }
    disk.restart(&mut bench, &limits);
    assert_eq!(bench.state.lag(bench.now, "t", "g"), 0);
    dead.extend(bench.dead_letters());
    (acked, sent, dead)
}

#[test]
fn without_order_every_message_is_acked_or_dead_after_many_restarts() {
    for seed in 0..SEEDS {
        let retries = u32::try_from(seed % 4).unwrap();
        let (acked, sent, dead) = play(GroupConfig::new().retry_max_times(retries), seed);
        assert!(acked.is_disjoint(&dead), "seed {seed}");
        let settled: BTreeSet<String> = acked.union(&dead).cloned().collect();
        assert_eq!(settled, sent, "seed {seed}");
    }
}

#[test]
fn in_order_no_message_is_lost_after_many_restarts() {
    for seed in 0..SEEDS {
        let group = GroupConfig::new().fifo(true).retry_max_times(1000);
        let (acked, sent, dead) = play(group, seed);
        assert_eq!(dead, BTreeSet::new(), "seed {seed}");
        assert_eq!(acked, sent, "seed {seed}");
    }
}

#[test]
fn what_has_a_gap_is_no_state() {
    let mut bench = Bench::new();
    let mut disk = Disk::default();
    disk.restart(&mut bench, &Limits::default());
    let kind = TopicType::Normal;
    bench.state.create_topic("t", kind, 1).unwrap();
    bench.put_all(&["1", "2"]);
    disk.keep(&mut bench);
    let first = disk
        .facts
        .keys()
        .find(|key| matches!(key, FactKey::Message(..)));
    let first = first.unwrap().clone();
    disk.facts.remove(&first);
    let mut state = State::new(true, Limits::default());
    assert!(state.restore(bench.now, 1, disk.facts).is_err());
}

#[test]
fn what_was_lost_stays_lost() {
    let limits = Limits::default();
    let mut bench = Bench::with(GroupConfig::new(), TopicType::Mixed, limits.clone());
    let mut disk = Disk::default();
    disk.restart(&mut bench, &limits);
    bench.state.create_topic("t", TopicType::Mixed, 1).unwrap();
    bench.state.create_group("g", GroupConfig::new()).unwrap();
    register(&mut bench);
    bench.put_all(&["m1", "m2"]);
    let deliver_at = Some(bench.now.plus(seconds(60)));
    let later = Draft {
        deliver_at,
        ..draft("t", "m3")
    };
    bench.send(later).unwrap();
    assert_eq!(bench.receive("a").len(), 2);
    disk.keep(&mut bench);
    bench.state.lose_messages();
    disk.keep(&mut bench);
    let names = |key: &FactKey| {
        matches!(
            key,
            FactKey::Topic(_) | FactKey::Group(_) | FactKey::Log(..)
        )
    };
    assert!(disk.facts.keys().all(names), "{:?}", disk.facts.keys());
    disk.restart(&mut bench, &limits);
    register(&mut bench);
    bench.put("m4");
    assert_eq!(ids(&bench.receive("a")), ["m4"]);
    bench.pass(seconds(100));
    assert_eq!(bench.state.messages("t").len(), 1);
}
