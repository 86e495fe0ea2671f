//! What is on call's only sight of a failure: its log line, with the causes.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use kratos::{Health, StartContext};
use kratos_broker::{
    Consumer, DeadLetter, Driver, Error, ErrorKind, Message, Policy, Receipt, Result, Router,
    Server, Settlement, Topic,
    driver::{Capabilities, GroupSpec, Leased, Room, Settled, Ticket},
    memory::{Broker, MemoryConsumer, MemoryLease},
    testing::Started,
};
use tokio::time::{Instant, sleep};
use tracing::{Dispatch, dispatcher::DefaultGuard, subscriber::NoSubscriber};

use crate::support::{failed, publish, secs, subscription, until};

/// What this thread logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

/// The memory broker over a connection that was reset: only messages come, and not at once.
#[derive(Clone)]
struct Reset(Broker);

struct ResetConsumer {
    inner: MemoryConsumer,
    received: Mutex<bool>,
}

// === impl Lines ===

impl Lines {
    fn of_thread() -> (Self, DefaultGuard) {
        // With one subscriber in the process, tracing asks only the thread that comes to a line
        // first whether it is wanted, for good: another test's would say no.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// The line that says this.
    fn that_says(&self, what: &str) -> String {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let line = text.lines().find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("no line says {what:?}:\n{text}"))
            .to_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Reset ===

fn reset(what: &str) -> Error {
    let cause = io::Error::from(io::ErrorKind::ConnectionReset);
    Error::new(ErrorKind::Transient, format!("{what} failed")).with_source(cause)
}

impl Driver for Reset {
    const SYSTEM: &'static str = "reset";

    type Consumer = ResetConsumer;

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn publish(&self, _: Message) -> Result<Receipt> {
        Err(reset("publish"))
    }

    async fn consumer(&self, group: GroupSpec, cx: StartContext) -> Result<ResetConsumer> {
        Ok(ResetConsumer {
            inner: self.0.consumer(group, cx).await?,
            received: Mutex::default(),
        })
    }
}

impl Consumer for ResetConsumer {
    type Lease = MemoryLease;

    async fn receive(&self, topic: &Topic, room: Room) -> Result<Vec<Leased<MemoryLease>>> {
        if !std::mem::replace(&mut *self.received.lock().unwrap(), true) {
            return Err(reset("receive"));
        }
        self.inner.receive(topic, room).await
    }

    fn settle(&self, ticket: Ticket, lease: MemoryLease, how: Settlement) {
        self.inner.settle(ticket, lease, how);
    }

    async fn settled(&self) -> Vec<Settled> {
        let answers = self.inner.settled().await.into_iter();
        let refuse = |answer: Settled| Settled {
            ticket: answer.ticket,
            result: Err(reset("ack")),
        };
        answers.map(refuse).collect()
    }

    async fn extend(&self, _: &mut MemoryLease, _: Duration) -> Result<Instant> {
        Err(reset("extension"))
    }

    async fn stop_receiving(&self) {
        self.inner.stop_receiving().await;
    }

    async fn close(self, by: Instant) -> Result<()> {
        self.inner.close(by).await?;
        Err(reset("good-bye"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_broker_is_told_with_its_causes() {
    let (lines, _guard) = Lines::of_thread();
    let broker = Broker::new();
    let router = Router::new().subscribe_with(subscription(), || sleep(secs(20)));
    let server = Server::new(Reset(broker.clone())).routes(router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("it is degraded", || started.health() != Health::Serving).await;
    let Health::Degraded(why) = started.health() else {
        panic!("{:?}", started.health())
    };
    let told = why.to_string();
    assert!(
        told.ends_with(": receive failed: connection reset"),
        "{told}"
    );
    publish(&broker, Message::new("t", "x")).await;
    until("its lease is not extended", || {
        counters.stats().refused == 1
    })
    .await;
    started.stop(secs(5)).await.unwrap();

    for (what, causes) in [
        ("cannot receive", "receive failed: connection reset"),
        (
            "could not extend a lease",
            "extension failed: connection reset",
        ),
        ("settlement given up", "ack failed: connection reset"),
        (
            "could not leave the group",
            "good-bye failed: connection reset",
        ),
    ] {
        let line = lines.that_says(what);
        assert!(line.contains(&format!("error={causes}")), "{line}");
        assert_eq!(line.matches("connection reset").count(), 1, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_not_published_is_told_with_its_causes() {
    let (lines, _guard) = Lines::of_thread();
    let broker = Broker::new();
    let given_up = subscription()
        .policy(Policy::new().max_attempts(1))
        .dead_letter(DeadLetter::topic("dead"));
    let router = Router::new().subscribe_with(given_up, || async { failed() });
    let started = Started::start(Server::new(Reset(broker.clone())).routes(router)).await;
    publish(&broker, Message::new("t", "x")).await;
    let unwell = |health: Health| match health {
        Health::Degraded(why) => why.contains("dead letters to topic dead: publish failed: conn"),
        _ => false,
    };
    until("it is degraded", || unwell(started.health())).await;
    let line = lines.that_says("dead letter not published");
    assert!(
        line.contains("error=publish failed: connection reset"),
        "{line}"
    );
    let _ = started.stop(secs(5)).await;
}
