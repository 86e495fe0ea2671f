//! A stop under load takes as long as the handlers that run, and neither loses nor repeats anything.
//! The law S13 does it fifty times.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use kratos::App;
use kratos_broker::{MessageId, State, Subscription};
use kratos_rocketmq::Server;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::site::{GROUP, Running, Site, TOPIC, eventually};

/// How long a handler works.
const WORK: Duration = Duration::from_millis(50);

/// How long a stop may go on after its handlers. It takes some 50 ms on a machine that does nothing
/// else; a client that works off what it has received takes 8 s.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// What is lost on the wire comes again while the test waits.
const SHORT_LEASE: Duration = Duration::from_secs(10);

/// Longer than a machine that is busy takes to receive a thousand messages, unoptimised.
const LONG_LEASE: Duration = Duration::from_secs(300);

/// Handlers that work once the gate is open, and note what they did.
#[derive(Clone)]
struct Work {
    gate: Arc<Semaphore>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    started: BTreeMap<MessageId, usize>,
    done: usize,
    last: Option<Instant>,
}

impl Work {
    fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            log: Arc::default(),
        }
    }

    fn open(&self) {
        self.gate.close();
    }

    fn started(&self) -> usize {
        self.log.lock().unwrap().started.len()
    }

    fn done(&self) -> usize {
        self.log.lock().unwrap().done
    }

    /// When the last handler was done.
    fn last(&self) -> Instant {
        self.log.lock().unwrap().last.expect("a handler was done")
    }

    fn assert_once_each(&self, count: usize) {
        let log = self.log.lock().unwrap();
        let twice: Vec<_> = log
            .started
            .iter()
            .filter(|(_, times)| **times > 1)
            .collect();
        assert!(twice.is_empty(), "started again: {twice:?}");
        assert_eq!((log.started.len(), log.done), (count, count));
    }
}

async fn work(State(work): State<Work>, id: MessageId) {
    *work.log.lock().unwrap().started.entry(id).or_default() += 1;
    // An error: it is open for ever.
    let _open = work.gate.acquire().await;
    sleep(WORK).await;
    let mut log = work.log.lock().unwrap();
    log.done += 1;
    log.last = Some(Instant::now());
}

async fn start(site: &Site, work_on: &Work, concurrency: usize, lease: Duration) -> Running {
    let subscription = Subscription::new(TOPIC, GROUP)
        .concurrency(concurrency)
        .invisible_duration(lease);
    let server = Server::new(site.client.clone())
        .subscribe_with(subscription, work)
        .with_state(work_on.clone());
    let app = App::new().resource(site.client.clone()).server(server);
    let running = Running::start(app);
    running.ready().await;
    running
}

async fn publish(site: &Site, count: usize) {
    join_all((0..20).map(|_| site.publish(count / 20))).await;
}

#[tokio::test]
async fn a_stop_with_a_thousand_handlers_ends_soon_after_the_last_of_them() {
    const HANDLERS: usize = 1_000;
    let (site, work) = (Site::new(), Work::new());
    let running = start(&site, &work, HANDLERS, LONG_LEASE).await;
    publish(&site, HANDLERS).await;
    eventually("all run", || work.started() == HANDLERS).await;

    running.signals.send();
    work.open();
    running.ended().await.0.unwrap();
    let afterwards = work.last().elapsed();
    assert!(afterwards <= AFTERWARDS, "{afterwards:?} after the last");
    work.assert_once_each(HANDLERS);
    let held = site.broker.in_flight(GROUP);
    assert!(site.is_settled(), "a second consumer would see {held:?}");
}

#[tokio::test]
async fn a_stop_before_a_backlog_takes_as_long_as_the_handlers_that_run() {
    const MESSAGES: usize = 2_000;
    let (site, work) = (Site::new(), Work::new());
    let running = start(&site, &work, 8, SHORT_LEASE).await;
    publish(&site, MESSAGES).await;
    work.open();
    eventually("it gets on", || work.done() >= 40).await;

    running.signals.send();
    let (result, took) = running.ended().await;
    result.unwrap();
    assert!(took <= WORK + AFTERWARDS, "{took:?}");
    assert_eq!(work.started(), work.done(), "what has started is done");
    assert!(work.done() < MESSAGES, "the rest waits at the broker");

    let client = kratos_rocketmq::Client::of(site.broker.clone());
    let site = Site { client, ..site };
    let second = start(&site, &work, 200, SHORT_LEASE).await;
    eventually("the rest is done", || {
        work.done() >= MESSAGES && site.is_settled()
    })
    .await;
    second.signals.send();
    second.ended().await.0.unwrap();
    work.assert_once_each(MESSAGES);
}
