//! Handlers of several messages at once, in a whole App: on a topic that keeps order, drained,
//! dropped, started again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos::App;
use kratos_broker::{
    AnyError, Backoff, Batch, BatchOutcome, BatchSettings, Message, Policy, State,
};
use kratos_rocketmq::{Client, Server, Subscription};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use tokio::time::sleep;

use crate::site::{GROUP, Gate, Running, Site, TOPIC, eventually};

const GROUPS: usize = 4;
const EACH: usize = 24;

/// The last number of each message group that counts, and all batches.
#[derive(Clone, Default)]
struct Ledger {
    state: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    next: BTreeMap<String, usize>,
    out_of_order: Vec<String>,
    largest: usize,
}

impl Ledger {
    fn done(&self) -> usize {
        self.state.lock().unwrap().next.values().sum()
    }
}

/// Books what is next in its account; what was booked before comes again now and then. Fails some
/// at first, and books nothing behind them.
async fn book(State(ledger): State<Ledger>, batch: Batch<kratos_broker::Bytes>) -> BatchOutcome {
    sleep(Duration::from_millis(10)).await;
    let mut state = ledger.state.lock().unwrap();
    state.largest = state.largest.max(batch.len());
    let mut stopped = Vec::new();
    let mut outcome = BatchOutcome::new();
    for (index, item) in batch.iter().enumerate() {
        let number: usize = std::str::from_utf8(&item.body).unwrap().parse().unwrap();
        let group = item.delivery.message_group().unwrap().to_owned();
        if stopped.contains(&group) {
            // Said to be fine all the same: the engine knows better.
            outcome.ok(index);
            continue;
        }
        if number % 7 == 5 && item.delivery.attempt() == 1 {
            outcome.fail(index, AnyError::msg("fails at first"));
            stopped.push(group);
            continue;
        }
        outcome.ok(index);
        let next = state.next.entry(group.clone()).or_default();
        let expected = *next;
        if number == expected {
            *next += 1;
        } else if number > expected {
            state
                .out_of_order
                .push(format!("{group}: {number} before {expected}"));
        }
    }
    outcome
}

fn app(broker: &DevBroker, ledger: &Ledger) -> App {
    let client = Client::of(broker.clone());
    let policy = Policy::ordered().backoff(Backoff::fixed(Duration::from_millis(50)));
    let subscription = Subscription::new("accounts", "ledger")
        .fifo()
        .concurrency(3)
        .invisible_duration(Duration::from_secs(1))
        .ordered_policy(policy);
    let server = Server::new(client.clone())
        .subscribe_batch(subscription, BatchSettings::new(8), book)
        .with_state(ledger.clone());
    App::new().resource(client).server(server)
}

#[tokio::test]
async fn batches_keep_the_order_over_failures_drains_and_a_crash() {
    let broker = DevBroker::builder()
        .strict(true)
        .min_invisible(Duration::from_secs(1))
        .topic_with_queues("accounts", TopicType::Fifo, 2)
        .group("ledger", GroupConfig::new().fifo(true))
        .in_memory()
        .unwrap();
    let ledger = Ledger::default();
    // The group counts from its first receive on.
    let running = Running::start(app(&broker, &ledger));
    running.ready().await;
    sleep(Duration::from_millis(300)).await;
    running.signals.send();
    running.ended().await.0.unwrap();
    let publisher = Client::of(broker.clone()).publisher();
    for number in 0..EACH {
        for group in 0..GROUPS {
            let message = Message::new("accounts", number.to_string()).group(format!("g{group}"));
            publisher.publish(message).await.unwrap();
        }
    }
    for round in 1..=4 {
        let goal = (ledger.done() + 16).min(GROUPS * EACH);
        let goal = if round == 4 { GROUPS * EACH } else { goal };
        let running = Running::start(app(&broker, &ledger));
        running.ready().await;
        eventually("it gets on", || ledger.done() >= goal).await;
        if round == 2 {
            running.kill();
        } else {
            running.signals.send();
            running.ended().await.0.unwrap();
        }
    }
    eventually("all is settled", || broker.lag("accounts", "ledger") == 0).await;
    let state = ledger.state.lock().unwrap();
    assert!(state.out_of_order.is_empty(), "{:?}", state.out_of_order);
    assert!(state.largest > 1, "several messages at once");
    assert!(broker.dead_letters("ledger").is_empty());
}

/// S1 with batches.
#[tokio::test]
async fn s1_batches_in_flight_are_acknowledged_at_the_stop() {
    async fn wait(State(gate): State<Gate>, batch: Batch<kratos_broker::Delivery>) {
        gate.entered.add_permits(batch.len());
        gate.open.acquire().await.unwrap().forget();
    }
    let (site, gate) = (Site::new(), Gate::new());
    let settings = BatchSettings::new(10).linger(Duration::from_secs(5));
    let server = Server::new(site.client.clone())
        .subscribe_batch(Subscription::new(TOPIC, GROUP), settings, wait)
        .with_state(gate.clone());
    let app = App::new().resource(site.client.clone()).server(server);
    let running = Running::start(app);
    running.ready().await;
    sleep(Duration::from_millis(300)).await;
    site.publish(30).await;
    gate.entered(30).await;
    running.signals.send();
    gate.open.add_permits(3);
    running.ended().await.0.unwrap();
    assert!(site.is_settled(), "three full batches, all acknowledged");
}
