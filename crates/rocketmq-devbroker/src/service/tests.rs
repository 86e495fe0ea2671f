//! Random and mutated calls: no panic, no hang, and nothing of whoever went away stays.

mod call;
mod connection;
mod dice;
mod request;
mod wire;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tokio::{
    runtime::Runtime,
    task::{JoinHandle, yield_now},
    time::{sleep, timeout},
};

use self::{
    connection::Wires,
    dice::{CLIENTS, Dice, GROUPS, TOPICS},
    wire::{Seen, run},
};
use crate::{
    core::{Census, Core, lock},
    serving::Access,
    state::{Ask, GroupConfig, Limits, Role, State, TopicType},
};

const CASES: u32 = 15_000;
/// Each with up to three calls; what they say once they are taken apart is tried above.
const CONNECTIONS: u32 = 3_000;
const MAX_STORED_BYTES: usize = 1 << 20;
/// Of the longest poll, and what else a call may take; the clock is paused.
const BOUND: Duration = Duration::from_secs(30);
/// Calls that wait, or whose callers went silent, at a time.
const MAX_OPEN: usize = 24;
/// So often everybody goes away.
const CASES_BETWEEN_ENDS: u32 = 500;
/// Longer than any lease, delay, and row of checks.
const EVERYTHING_LAPSES: Duration = Duration::from_secs(25 * 3600);

struct World {
    core: Arc<Core>,
    seen: Arc<Mutex<Seen>>,
    open: VecDeque<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            max_stored_bytes: MAX_STORED_BYTES,
            ..Limits::default()
        };
        let mut state = State::new(false, limits);
        let kinds = [
            ("t", TopicType::Mixed),
            ("fifo", TopicType::Fifo),
            ("delay", TopicType::Delay),
            ("half", TopicType::Transaction),
            ("first", TopicType::Priority),
            ("lite", TopicType::Lite),
        ];
        for (name, kind) in kinds {
            state.create_topic(name, kind, 2).unwrap();
        }
        let group = GroupConfig::new().retry_max_times(2);
        state.create_group("g", group.clone()).unwrap();
        state.create_group("ordered", group.fifo(true)).unwrap();
        let endpoints = rocketmq_proto::v2::Endpoints::default();
        let core = Arc::new(Core::new(state, endpoints, Access::default(), None));
        Self {
            core,
            seen: Arc::default(),
            open: VecDeque::new(),
        }
    }

    /// Seconds since the epoch.
    fn now(&self) -> i64 {
        let now = self.core.with(|_, now| now.as_millis() / 1000);
        i64::try_from(now).unwrap()
    }

    async fn suffer(&mut self, bytes: &[u8]) {
        let now = self.now();
        let call = Dice::new(bytes, &lock(&self.seen), now).call();
        let (method, stays) = (call.method, call.stays);
        let task = tokio::spawn(run(Arc::clone(&self.core), call, Arc::clone(&self.seen)));
        if stays {
            self.open.push_back(task);
            for _ in 0..8 {
                yield_now().await;
            }
        } else {
            let ended = timeout(BOUND, task).await;
            ended.unwrap_or_else(|_| panic!("{method} hangs")).unwrap();
        }
        while self.open.len() > MAX_OPEN {
            self.abandon().await;
        }
        let census = self.core.census();
        assert!(census.stored_bytes <= MAX_STORED_BYTES, "{census:?}");
        assert_eq!(census.stored_bytes, census.counted_bytes);
        assert!(census.streams + census.receives <= MAX_OPEN, "{census:?}");
        assert!(
            census.clients <= CLIENTS.len() + dice::TEXTS.len(),
            "{census:?}"
        );
    }

    /// The oldest of the open calls is cut off.
    async fn abandon(&mut self) {
        let Some(task) = self.open.pop_front() else {
            return;
        };
        task.abort();
        if let Err(error) = task.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    /// Everybody goes away; what is left is what was sent and not consumed.
    async fn end(&mut self) {
        while !self.open.is_empty() {
            self.abandon().await;
        }
        let census = self.core.census();
        assert_eq!((census.streams, census.receives), (0, 0), "{census:?}");
        sleep(EVERYTHING_LAPSES).await;
        self.consume();
        let left = self.core.census();
        let nothing = Census {
            stored_bytes: left.stored_bytes,
            counted_bytes: left.counted_bytes,
            // The one that has consumed the rest.
            clients: 1,
            ..Census::default()
        };
        assert_eq!(left, nothing);
        self.core.with(|state, _| state.lose_messages());
        assert_eq!(self.core.census().counted_bytes, 0);
        assert_eq!(self.core.census().stored_bytes, 0);
    }

    /// Consumes all that there is, as a consumer would that comes next.
    fn consume(&self) {
        self.core.with(|state, now| {
            for group in GROUPS {
                let role = Role::Consumer {
                    kind: rocketmq_proto::v2::ClientType::SimpleConsumer,
                    group: group.to_owned(),
                    subscriptions: Vec::new(),
                };
                state.register(now, "last", role, true).unwrap();
                // Dead letters of the first are messages of the last.
                for topic in TOPICS.into_iter().chain(["%DLQ%g"]) {
                    let ask = Ask {
                        client: "last".to_owned(),
                        group: group.to_owned(),
                        topic: topic.to_owned(),
                        batch: 32,
                        invisible: Some(BOUND),
                        remaining: Some(BOUND),
                        ..Ask::default()
                    };
                    let poll = state.open_poll(ask).unwrap();
                    loop {
                        let delivered = state.receive(now, &poll);
                        for one in &delivered {
                            state.ack(now, topic, group, &one.handle).unwrap();
                        }
                        if delivered.is_empty() {
                            break;
                        }
                    }
                    assert_eq!(state.lag(now, topic, group), 0, "{topic} of {group}");
                }
            }
            state.stream_ended(now, "last");
        });
    }
}

/// One broker lives through all cases, each a row of bytes that calls are made of.
fn run_cases(cases: u32, case: impl Fn(&[u8])) {
    let config = Config {
        cases,
        failure_persistence: None,
        // A smaller case alone shows nothing.
        max_shrink_iters: 0,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let bytes = proptest::collection::vec(any::<u8>(), 0..120);
    let run = TestRunner::new_with_rng(config, rng).run(&bytes, |bytes| {
        case(&bytes);
        Ok(())
    });
    run.unwrap();
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn no_call_makes_the_service_panic_or_hang_and_nothing_of_it_stays() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let world = RefCell::new(World::new());
    let core = Arc::clone(&world.borrow().core);
    runtime.spawn(async move { core.drive().await });
    let cases = Cell::new(0_u32);
    run_cases(CASES, |bytes| {
        let mut world = world.borrow_mut();
        runtime.block_on(world.suffer(bytes));
        cases.set(cases.get() + 1);
        if cases.get().is_multiple_of(CASES_BETWEEN_ENDS) {
            runtime.block_on(world.end());
        }
    });
    let world = world.borrow();
    let seen = lock(&world.seen);
    let done = [
        seen.sent,
        seen.received,
        seen.acked,
        seen.registered,
        seen.changed,
        seen.ended,
        seen.recalled,
        seen.buried,
    ];
    let least = done.into_iter().min();
    assert!(least > Some(20), "nearly everything was refused: {done:?}");
}

#[test]
fn no_bytes_on_a_connection_make_it_panic_or_hang_and_nothing_of_them_stays() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let wires = RefCell::new(Wires::new());
    let cases = Cell::new(0_u32);
    run_cases(CONNECTIONS, |bytes| {
        let mut wires = wires.borrow_mut();
        runtime.block_on(wires.suffer(bytes));
        cases.set(cases.get() + 1);
        if cases.get().is_multiple_of(CASES_BETWEEN_ENDS) {
            runtime.block_on(wires.end());
        }
    });
}
