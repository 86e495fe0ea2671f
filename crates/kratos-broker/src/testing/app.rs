//! A whole App in a test.

use std::time::{Duration, SystemTime};

use kratos::{App, Handle, Phase, SignalSender, Signals};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::Journal;
use crate::{Delivery, Driver, Message, MessageId, Publisher};

/// How long [`TestApp::settle`] waits, by the clock of the runtime: a paused one runs on by itself.
const SETTLE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long it waits by the clock on the wall.
const SETTLE_WALL_MAX: Duration = Duration::from_secs(120);

/// How often it looks at that clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A driver whose traffic a test can see.
pub trait Watched: Driver {
    /// What goes through this driver and its clones.
    fn journal(&self) -> Journal;

    /// How long after its start an App's groups begin to receive: what is published before may be
    /// older than the group. None, on a broker in this process.
    fn warm_up(&self) -> Duration {
        Duration::ZERO
    }
}

/// A whole App in a test, with everything that goes through its driver.
///
/// The App is the one that the service runs: its servers, its resources, its state; only the driver
/// is one that is [`Watched`]. On a paused clock (`#[tokio::test(start_paused = true)]`) hours of
/// back-off take milliseconds. That wants every wait in this one runtime: the memory driver, or a
/// broker over memory; requests to HTTP and gRPC by calling the router and the service (`oneshot`),
/// not through a socket; no database, no file. With those, leave the clock as it is.
///
/// ```
/// use kratos::App;
/// use kratos_broker::{AnyError, Attempt, Bytes, Message, Server, memory, testing::TestApp};
///
/// async fn bill(Attempt(attempt): Attempt, _: Bytes) -> Result<(), AnyError> {
///     if attempt < 16 { Err(AnyError::msg("the bank is closed")) } else { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let broker = memory::Broker::new().watched();
/// let app = App::new().server(Server::new(broker.clone()).subscribe("orders", "billing", bill));
/// let app = TestApp::start(&broker, app).await;
///
/// app.publish(Message::new("orders", "paid")).await;
/// app.settle().await; // three quarters of an hour of back-off, in milliseconds
///
/// assert_eq!(app.attempts("billing").len(), 16);
/// assert_eq!(app.consumed("billing")[0].body(), "paid");
/// assert!(app.dead_letters("billing").is_empty());
/// app.stop().await.unwrap();
/// # }
/// ```
///
/// # Panics
///
/// Its methods panic where a test has failed: the App does not start, ends by itself, or does not
/// settle.
#[derive(Debug)]
pub struct TestApp<D> {
    driver: D,
    journal: Journal,
    handle: Handle,
    signals: SignalSender,
    running: JoinHandle<kratos::Result<()>>,
}

impl<D: Watched> TestApp<D> {
    /// Runs `app`, which uses clones of `driver`, and waits until it is ready. Signals come from
    /// [`stop`](TestApp::stop) only.
    ///
    /// # Panics
    ///
    /// The App does not start.
    pub async fn start(driver: &D, app: App) -> Self {
        let (signals, source) = Signals::channel();
        let handle = app.handle();
        let running = tokio::spawn(app.signals(source).run());
        if handle.reached(Phase::Ready).await != Phase::Ready {
            let ended = running.await.expect("the App does not panic");
            match ended {
                Err(error) => panic!("the App does not start: {}", kratos::error_chain(&error)),
                Ok(()) => panic!("the App has ended before it was ready"),
            }
        }
        tokio::time::sleep(driver.warm_up()).await;
        Self {
            journal: driver.journal(),
            driver: driver.clone(),
            handle,
            signals,
            running,
        }
    }

    /// Publishes a message through the App's driver; answers its id.
    ///
    /// # Panics
    ///
    /// The broker does not take it.
    pub async fn publish(&self, message: Message) -> MessageId {
        let published = self.publisher().publish(message).await;
        published.expect("the message is published").id
    }

    /// Publishes through the App's driver.
    #[must_use]
    pub fn publisher(&self) -> Publisher<D> {
        Publisher::new(self.driver.clone())
    }

    /// Waits until everything is done: every message that was published through the driver or
    /// received by the App is acknowledged or a dead letter, in every group that subscribes to it;
    /// retries are waited for, and so is what handlers publish. Messages that their sender delayed
    /// count from their time on.
    ///
    /// Messages that only an SQL filter chooses count once they are received.
    ///
    /// # Panics
    ///
    /// The App ends, or is not done within a day on its clock or two minutes on the wall; what is
    /// missing is said.
    pub async fn settle(&self) {
        let (until, began) = (Instant::now() + SETTLE_MAX, SystemTime::now());
        loop {
            let changed = self.journal.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            assert!(
                self.handle.phase() != Phase::Stopped,
                "the App has ended by itself: {}",
                self.journal
            );
            if self.journal.is_settled() {
                return;
            }
            let wall = began.elapsed().unwrap_or_default();
            assert!(
                Instant::now() < until && wall < SETTLE_WALL_MAX,
                "the App does not settle: {}",
                self.journal
            );
            // Time passes too: what was delayed comes due.
            let _ = timeout(LOOK_EVERY, changed).await;
        }
    }

    /// The messages to a topic that the broker has confirmed, in that order.
    #[must_use]
    pub fn published(&self, topic: &str) -> Vec<Delivery> {
        self.journal.published(topic)
    }

    /// Every attempt of a group, in the order they were received.
    #[must_use]
    pub fn attempts(&self, group: &str) -> Vec<Delivery> {
        self.journal.attempts(group)
    }

    /// What a group has acknowledged, in the order it was confirmed: what its handlers have done, and
    /// with [`DeadLetter::topic`](crate::DeadLetter::topic) also what was given up, since the engine
    /// acknowledges it once it lies in that topic. There it is [published](TestApp::published), with
    /// the reason in its headers.
    #[must_use]
    pub fn consumed(&self, group: &str) -> Vec<Delivery> {
        self.journal.consumed(group)
    }

    /// The dead letters of a group, oldest first, as they were at their last attempt: those that the
    /// broker has moved ([`DeadLetter::Native`](crate::DeadLetter::Native)).
    #[must_use]
    pub fn dead_letters(&self, group: &str) -> Vec<Delivery> {
        self.journal.dead_letters(group)
    }

    /// The next `acks` acknowledgements are confirmed and forgotten: [`Journal::drop_acks`].
    pub fn drop_acks(&self, acks: usize) {
        self.journal.drop_acks(acks);
    }

    /// The next message that is acknowledged is delivered once more: [`Journal::duplicate`].
    pub fn duplicate(&self) {
        self.journal.duplicate();
    }

    /// What is held now is lost: [`Journal::expire_lease`].
    pub fn expire_lease(&self) {
        self.journal.expire_lease();
    }

    /// The App's handle: phase, health, readiness.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops the App as SIGTERM does; answers what its `run` did.
    ///
    /// # Errors
    ///
    /// Those of [`App::run`].
    ///
    /// # Panics
    ///
    /// The App panicked.
    pub async fn stop(self) -> kratos::Result<()> {
        self.signals.send();
        self.running.await.expect("the App does not panic")
    }
}
