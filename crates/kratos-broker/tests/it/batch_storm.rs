//! Batches under everything at once, by chance: failures, panics, hangs, lost leases, refused
//! settlements, stops in the middle. Each seed is another run; a failure names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos_broker::{
    AnyError, Backoff, Batch, BatchOutcome, BatchSettings, Delivery, Message, Policy, Router,
    State, Subscription, memory::Broker, testing::Started,
};
use tokio::time::sleep;

use crate::support::{millis, publish, secs, server, text, until};

const SEEDS: u64 = 30;
const KEYS: u64 = 4;
const EACH: u64 = 15;

#[derive(Clone)]
struct Storm {
    state: Arc<Mutex<Weather>>,
    broker: Broker,
}

struct Weather {
    /// The state of a xorshift generator.
    chance: u64,
    calm: bool,
    fifo: bool,
    /// What counts, of each key, in the order in which it counted.
    settled: BTreeMap<String, Vec<u64>>,
    ids: Vec<String>,
}

/// What a handler does.
enum Mood {
    Judge,
    Refuse,
    Panic,
    Hang,
}

impl Storm {
    fn new(seed: u64, fifo: bool, broker: Broker) -> Self {
        let weather = Weather {
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            calm: false,
            fifo,
            settled: BTreeMap::new(),
            ids: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(weather)),
            broker,
        }
    }

    fn roll(&self, sides: u64) -> u64 {
        self.state.lock().unwrap().roll(sides)
    }

    /// Loses a lease, or refuses a settlement, now and then.
    fn strike(&self) {
        let (what, id) = {
            let mut state = self.state.lock().unwrap();
            let what = if state.calm { 9 } else { state.roll(6) };
            let at = state.roll(KEYS * EACH) as usize;
            (what, state.ids[at].clone())
        };
        match what {
            0 => drop(self.broker.lose_lease("g", &id)),
            1 => self.broker.refuse_settlements(1),
            _ => {}
        }
    }
}

impl Weather {
    fn roll(&mut self, sides: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) % sides
    }

    fn mood(&mut self) -> (Mood, Duration) {
        let time = millis(self.roll(400));
        let mood = match self.roll(12) {
            _ if self.calm => Mood::Judge,
            0 => Mood::Refuse,
            1 => Mood::Panic,
            2 => Mood::Hang,
            _ => Mood::Judge,
        };
        (mood, time)
    }

    /// Outcomes by chance. Where order is kept, what is behind a failure of its key does not count,
    /// whatever is said.
    fn judge(&mut self, batch: &Batch<Delivery>) -> BatchOutcome {
        let mut failed = BTreeSet::new();
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            let body = text(&item.body);
            let (key, number) = body.split_once(' ').unwrap();
            if !self.calm && self.roll(8) == 0 {
                failed.insert(key.to_owned());
                outcome.fail(index, AnyError::msg("by chance"));
            } else if !(self.fifo && failed.contains(key)) {
                let settled = self.settled.entry(key.to_owned()).or_default();
                settled.push(number.parse().unwrap());
            }
        }
        outcome.rest_ok()
    }
}

async fn handle(
    State(storm): State<Storm>,
    batch: Batch<Delivery>,
) -> Result<BatchOutcome, AnyError> {
    storm.strike();
    let (mood, time) = storm.state.lock().unwrap().mood();
    sleep(time).await;
    match mood {
        Mood::Judge => Ok(storm.state.lock().unwrap().judge(&batch)),
        Mood::Refuse => Err(AnyError::msg("by chance")),
        Mood::Panic => panic!("by chance"),
        Mood::Hang => std::future::pending().await,
    }
}

fn subscription(storm: &Storm, fifo: bool) -> (Subscription, BatchSettings) {
    let backoff = Backoff::fixed(millis(50 + storm.roll(300)));
    let subscription = Subscription::new("t", "g")
        .concurrency(1 + storm.roll(3) as usize)
        .prefetch(storm.roll(20) as usize)
        .invisible_duration(secs(10))
        .handler_timeout(secs(2))
        .policy(Policy::new().max_attempts(1_000).backoff(backoff.clone()))
        .ordered_policy(Policy::ordered().max_attempts(30).backoff(backoff));
    let settings = BatchSettings::new(1 + storm.roll(12) as usize).linger(millis(storm.roll(200)));
    match fifo {
        true => (subscription.fifo(), settings),
        false => (subscription, settings),
    }
}

async fn run(seed: u64, fifo: bool) {
    let broker = match fifo {
        true => Broker::new().batches_are_units(2),
        false => Broker::new(),
    };
    // Hangs, lost leases and stops spend attempts that nobody is to blame for.
    let broker = broker.max_attempts(1_000);
    let storm = Storm::new(seed, fifo, broker.clone());
    for number in 0..EACH {
        for key in 0..KEYS {
            let message = Message::new("t", format!("{key} {number}"));
            let message = if fifo {
                message.group(key.to_string())
            } else {
                message
            };
            let id = publish(&broker, message).await;
            storm.state.lock().unwrap().ids.push(id);
        }
    }
    for last in [false, false, true] {
        let (subscription, settings) = subscription(&storm, fifo);
        let router = Router::new()
            .subscribe_batch(subscription, settings, handle)
            .with_state(storm.clone());
        let started = Started::start(server(&broker, router)).await;
        if last {
            storm.state.lock().unwrap().calm = true;
            until("all are settled", || broker.backlog("t", "g") == 0).await;
        } else {
            sleep(millis(storm.roll(4_000))).await;
        }
        // What hangs is cut off at the deadline, and reported.
        let _reported = started.stop(secs(1 + storm.roll(5))).await;
    }
    assert_eq!(broker.held("t", "g"), 0, "seed {seed}: a lease has leaked");
    let dead: BTreeSet<String> = broker.dead_letters("g").iter().map(text).collect();
    let settled = &storm.state.lock().unwrap().settled;
    for key in 0..KEYS {
        let key = key.to_string();
        let mut seen = BTreeSet::new();
        let mut first = settled.get(&key).cloned().unwrap_or_default();
        first.retain(|number| seen.insert(*number));
        if fifo {
            assert!(
                first.is_sorted(),
                "seed {seed}, key {key}: {:?}",
                settled[&key]
            );
        }
        for number in 0..EACH {
            let is_dead = dead.contains(&format!("{key} {number}"));
            assert!(
                seen.contains(&number) || is_dead,
                "seed {seed}: message {key} {number} is lost"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_whatever_happens_to_batches() {
    for seed in 1..=SEEDS {
        run(seed, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn message_groups_keep_their_order_whatever_happens_to_batches() {
    for seed in 1..=SEEDS {
        run(seed, true).await;
    }
}
