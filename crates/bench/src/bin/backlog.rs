//! What a backlog costs in memory: resident, at most, of an engine that works off 1,000 messages of
//! 1 KB, and then 1,000,000. The broker is none: messages are made when they are received, as those
//! of a real one come from outside of the process.
//!
//!     cargo run --release -p bench --bin backlog [MESSAGES]

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use kratos::{Server as _, Shutdown, StartContext};
use kratos_broker::{
    Bytes, Delivery, DeliveryParts, Driver, Error, ErrorKind, Message, Receipt, Result, Server,
    Settlement, Subscription, Topic,
    driver::{self, Capabilities, GroupSpec, Leased, Room, Settled, Ticket},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// Messages of one receive: what RocketMQ gives out at once.
const BATCH: usize = 32;

/// Bytes of a body.
const BODY: usize = 1_024;

/// For how long leases last: longer than a run.
const LEASE: Duration = Duration::from_secs(3_600);

/// A broker with so many messages.
#[derive(Clone, Debug)]
struct Backlog {
    left: Arc<AtomicU64>,
    /// How many were given out and not settled, at most.
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    now: AtomicU64,
    most: AtomicU64,
}

#[derive(Debug)]
struct Consumer {
    backlog: Backlog,
    settled: Mutex<Vec<Settled>>,
    some: Notify,
    stopped: Notify,
}

fn main() -> io::Result<()> {
    let many = std::env::args().nth(1).and_then(|text| text.parse().ok());
    for messages in [1_000, many.unwrap_or(1_000_000)] {
        let backlog = Backlog {
            left: Arc::new(AtomicU64::new(messages)),
            held: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let started = Instant::now();
        runtime
            .block_on(work_off(backlog.clone(), messages))
            .map_err(io::Error::other)?;
        report(messages, &backlog, started.elapsed())?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn report(messages: u64, backlog: &Backlog, took: Duration) -> io::Result<()> {
    let most = backlog.held.most.load(Relaxed);
    let resident = resident_most()?;
    println!("{messages:>9} messages of 1 KB: {resident}, at most {most} held, in {took:.1?}");
    Ok(())
}

/// The most that was ever resident, as the system says it.
fn resident_most() -> io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}

async fn work_off(backlog: Backlog, messages: u64) -> kratos::Result<()> {
    // The faster the handlers, the more is received ahead.
    let work = |_: Bytes| tokio::task::yield_now();
    let subscription = Subscription::new("orders", "billing");
    let server = Server::<_, ()>::new(backlog).subscribe_with(subscription, work);
    let counters = server.counters();
    let info = kratos::AppInfo::new("backlog", "0");
    let by = Instant::now() + Duration::from_secs(10);
    let bound = server.bind(StartContext::detached(info, by)).await?;
    let (trigger, shutdown) = Shutdown::channel();
    let served = tokio::spawn(kratos::BoundServer::serve(bound, shutdown));
    while counters.stats().confirmed < messages {
        sleep(Duration::from_millis(10)).await;
    }
    trigger.request(Instant::now() + Duration::from_secs(10));
    let ended = served.await;
    ended.map_err(|error| kratos::Error::msg("the server ends").with_source(error))?
}

// === impl Backlog ===

impl Driver for Backlog {
    const SYSTEM: &'static str = "backlog";

    type Consumer = Consumer;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none().dead_letter(true)
    }

    async fn publish(&self, _: Message) -> Result<Receipt> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "the backlog is there already",
        ))
    }

    async fn consumer(&self, _: GroupSpec, _: StartContext) -> Result<Consumer> {
        Ok(Consumer {
            backlog: self.clone(),
            settled: Mutex::default(),
            some: Notify::new(),
            stopped: Notify::new(),
        })
    }
}

// === impl Consumer ===

impl driver::Consumer for Consumer {
    type Lease = ();

    async fn receive(&self, topic: &Topic, room: Room) -> Result<Vec<Leased<()>>> {
        let Backlog { left, held } = &self.backlog;
        let most = room.messages.min(room.bytes.div_ceil(BODY)).min(BATCH) as u64;
        let before = left.load(Relaxed);
        let count = most.min(before);
        if count == 0 {
            self.stopped.notified().await;
            self.stopped.notify_one();
            return Ok(Vec::new());
        }
        // There is one topic, and one task that receives it.
        left.fetch_sub(count, Relaxed);
        let now = held.now.fetch_add(count, Relaxed) + count;
        held.most.fetch_max(now, Relaxed);
        let leased = |number: u64| {
            let body = vec![b'x'; BODY];
            let id = format!("{:032}", before - number);
            Leased {
                delivery: Delivery::from(DeliveryParts::new(id, topic, body)),
                lease: (),
                expires_at: Instant::now() + LEASE,
                place: None,
            }
        };
        Ok((0..count).map(leased).collect())
    }

    fn settle(&self, ticket: Ticket, (): (), _: Settlement) {
        self.backlog.held.now.fetch_sub(1, Relaxed);
        let result = Ok(());
        lock(&self.settled).push(Settled { ticket, result });
        self.some.notify_one();
    }

    async fn settled(&self) -> Vec<Settled> {
        loop {
            let settled = std::mem::take(&mut *lock(&self.settled));
            if !settled.is_empty() {
                return settled;
            }
            self.some.notified().await;
        }
    }

    async fn extend(&self, (): &mut (), by: Duration) -> Result<Instant> {
        Ok(Instant::now() + by)
    }

    async fn stop_receiving(&self) {
        self.stopped.notify_one();
    }

    async fn close(self, _: Instant) -> Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
