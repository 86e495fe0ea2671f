//! Sends and receives go on while the server restarts, and while their connection is dead without
//! anybody being told: every send is confirmed or reported, every confirmed message is consumed.
//!
//! The restart is of the server that all tests share, so these run alone: see `.ci/e2e`.

use std::{
    collections::HashSet,
    env,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rocketmq_grpc::{
    Client, Config, Consumer, ConsumerConfig, Filter, Message, Producer, ProducerConfig,
};
use tokio::{
    net::TcpStream,
    process::Command,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::site::{Kind, Site};
use e2e::relay::Relay;

/// At least: there are more where the outage is long, so that some are left when it is over.
const MESSAGES: usize = 10_000;
/// Sends at once.
const SENDERS: usize = 32;
/// Sent before the outage begins.
const BEFORE: usize = MESSAGES / 3;
/// How long the rest may take once all is sent; the leases are shorter.
const CONSUMED_WITHIN: Duration = Duration::from_secs(120);
/// Two heartbeats of 10 s without an answer, and their timeouts.
const NOTICED_WITHIN: Duration = Duration::from_secs(40);

/// What became of each message, by its number.
#[derive(Default)]
struct Ledger {
    confirmed: Mutex<HashSet<usize>>,
    /// Reported as failed: certainly not stored.
    refused: Mutex<HashSet<usize>>,
    /// Reported as failed, and may be stored.
    unsure: Mutex<HashSet<usize>>,
    consumed: Mutex<HashSet<usize>>,
    deliveries: AtomicUsize,
    sent: AtomicUsize,
    recovered: AtomicBool,
    confirmed_at: Mutex<Option<Instant>>,
    consumed_at: Mutex<Option<Instant>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_proxy_loses_no_confirmed_message() {
    let site = Site::real().await;
    let endpoints = site.endpoints();
    let client = site.client();
    let run = Run::start(&site, &client).await;
    run.reaches(BEFORE).await;

    server("down.sh").await;
    // The script goes on for a while after the proxy's return: it creates topics, waits for routes.
    let returned = async {
        while TcpStream::connect(&endpoints).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        let back = Instant::now();
        run.recovers(back, Duration::from_secs(60)).await
    };
    let ((), recovered) = tokio::join!(server("up.sh"), returned);
    run.ends(&format!(
        "restart: recovered {recovered} after the proxy's return"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_dead_without_a_word_loses_no_confirmed_message() {
    let site = Site::real().await;
    let relay = Arc::new(Relay::to(site.endpoints()).await.unwrap());
    let (host, port) = (relay.addr().ip().to_string(), relay.addr().port());
    let config =
        Config::new(relay.addr().to_string()).rewrite_addresses(move |_, _| (host.clone(), port));
    let client = Client::new(config).unwrap();
    let run = Run::start(&site, &client).await;
    run.reaches(BEFORE).await;

    relay.freeze();
    let frozen = Instant::now();
    // What was on its way when the connection froze.
    sleep(Duration::from_secs(1)).await;
    let recovered = run
        .recovers(frozen + Duration::from_secs(1), NOTICED_WITHIN)
        .await;
    run.ends(&format!(
        "frozen connection: recovered {recovered} after 1 s of silence"
    ))
    .await;
}

/// A producer and a consumer at work.
struct Run {
    ledger: Arc<Ledger>,
    senders: JoinSet<()>,
    consumer: tokio::task::JoinHandle<()>,
}

impl Run {
    async fn start(site: &Site, client: &Client) -> Self {
        let (topic, group) = (site.topic(Kind::Normal).await, site.group(false).await);
        let config = ConsumerConfig::new(&group)
            .subscribe(&topic, Filter::all())
            .invisible_duration(Duration::from_secs(15));
        let consumer = client.consumer(config).await.unwrap();
        let producer = client
            .producer(ProducerConfig::new().topic(&topic))
            .await
            .unwrap();

        let ledger = Arc::new(Ledger::default());
        let next = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            senders.spawn(send(
                producer.clone(),
                topic.clone(),
                next.clone(),
                ledger.clone(),
            ));
        }
        let consumer = tokio::spawn(consume(consumer, topic, ledger.clone()));
        Self {
            ledger,
            senders,
            consumer,
        }
    }

    async fn reaches(&self, sent: usize) {
        let by = Instant::now() + Duration::from_secs(120);
        while self.ledger.sent.load(Relaxed) < sent {
            assert!(
                Instant::now() < by,
                "{} sent",
                self.ledger.sent.load(Relaxed)
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a confirmation and a delivery after `since`; says when they came.
    async fn recovers(&self, since: Instant, within: Duration) -> String {
        let after = |at: &Mutex<Option<Instant>>| at.lock().unwrap().filter(|at| *at > since);
        let (mut sent, mut received) = (None, None);
        while sent.is_none() || received.is_none() {
            assert!(
                since.elapsed() < within,
                "not recovered {within:?} after the outage: sends {sent:?}, receives {received:?}; \
                 {} sends ended, {} confirmed, {} consumed",
                self.ledger.sent.load(Relaxed),
                self.ledger.confirmed.lock().unwrap().len(),
                self.ledger.consumed.lock().unwrap().len(),
            );
            // The first one counts, the ledger has the last.
            sent = sent.or_else(|| after(&self.ledger.confirmed_at));
            received = received.or_else(|| after(&self.ledger.consumed_at));
            sleep(Duration::from_millis(5)).await;
        }
        self.ledger.recovered.store(true, Relaxed);
        let took = |at: Option<Instant>| at.unwrap_or(since) - since;
        format!(
            "{:.1?} (sends), {:.1?} (receives)",
            took(sent),
            took(received)
        )
    }

    async fn ends(mut self, what: &str) {
        while let Some(sender) = self.senders.join_next().await {
            sender.unwrap();
        }
        let ledger = self.ledger.clone();
        let confirmed = ledger.confirmed.lock().unwrap().clone();
        let all_sent = Instant::now();
        let missing = || {
            let consumed = ledger.consumed.lock().unwrap();
            confirmed.difference(&consumed).count()
        };
        while missing() > 0 {
            assert!(
                all_sent.elapsed() < CONSUMED_WITHIN,
                "{} of {} confirmed messages were not consumed within {CONSUMED_WITHIN:?}",
                missing(),
                confirmed.len()
            );
            sleep(Duration::from_millis(20)).await;
        }
        self.consumer.abort();
        let refused = ledger.refused.lock().unwrap().clone();
        let unsure = ledger.unsure.lock().unwrap().clone();
        let consumed = ledger.consumed.lock().unwrap().clone();
        println!(
            "{what}; {} of {} confirmed, {} reported as not stored, {} as perhaps stored; \
             all confirmed consumed {:.1?} after the last send, {} deliveries twice",
            confirmed.len(),
            ledger.sent.load(Relaxed),
            refused.len(),
            unsure.len(),
            all_sent.elapsed(),
            ledger.deliveries.load(Relaxed) - consumed.len(),
        );
        let told = confirmed.len() + refused.len() + unsure.len();
        assert_eq!(told, ledger.sent.load(Relaxed));
        let lied: Vec<_> = refused.intersection(&consumed).collect();
        assert!(
            lied.is_empty(),
            "said not to be stored and consumed: {lied:?}"
        );
    }
}

async fn send(producer: Producer, topic: String, next: Arc<AtomicUsize>, ledger: Arc<Ledger>) {
    loop {
        if next.load(Relaxed) >= MESSAGES && ledger.recovered.load(Relaxed) {
            return;
        }
        let number = next.fetch_add(1, Relaxed);
        let outcome = producer
            .send(Message::new(&topic, number.to_string()))
            .await;
        let fate = match outcome {
            Ok(_) => {
                *ledger.confirmed_at.lock().unwrap() = Some(Instant::now());
                &ledger.confirmed
            }
            Err(error) if error.may_be_stored() => &ledger.unsure,
            Err(_) => &ledger.refused,
        };
        fate.lock().unwrap().insert(number);
        ledger.sent.fetch_add(1, Relaxed);
        // So that the outage comes in the middle, and its length does not decide how many fail.
        sleep(Duration::from_millis(20)).await;
    }
}

async fn consume(consumer: Consumer, topic: String, ledger: Arc<Ledger>) {
    loop {
        let Ok(leases) = consumer.receive(&topic, 64).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        for lease in leases {
            let body = std::str::from_utf8(&lease.message().body).unwrap();
            let number = body.parse().unwrap();
            ledger.consumed.lock().unwrap().insert(number);
            ledger.deliveries.fetch_add(1, Relaxed);
            *ledger.consumed_at.lock().unwrap() = Some(Instant::now());
            consumer.settle(lease, rocketmq_grpc::Settlement::Ack);
        }
    }
}

/// Stops broker and proxy as an operator would, or starts them with the same store.
async fn server(script: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    assert!(
        env::var("ROCKETMQ_DIR").is_ok(),
        "ROCKETMQ_DIR names no server: run `make e2e`"
    );
    let ended = Command::new("bash")
        .arg(format!("deploy/rocketmq/{script}"))
        .current_dir(&root)
        .env("ROCKETMQ_KEEP", "1")
        .stdout(Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(ended.success(), "{script}: {ended}");
}
