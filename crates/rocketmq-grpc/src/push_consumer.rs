//! A consumer for people without a framework: an async function per message.
//!
//! A small loop over [`Consumer`]: it keeps up to `concurrency` handlers running, extends the leases
//! of messages while they are handled, acknowledges what succeeded and tries again what failed: in a
//! group without order by the server, after the delay of the group's policy; in an orderly group in
//! this process, because there the server would deliver everything behind it again, too.

mod each;
mod intake;
mod orderly;

use std::{
    collections::HashSet,
    error::Error as StdError,
    fmt::{self, Display},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::intake::Loop;
use crate::{Client, Consumer, ConsumerConfig, Error, MessageView};

/// What is left to hand back messages whose handlers did not end in time.
const HAND_BACK_MAX: Duration = Duration::from_millis(200);
/// Part of the time to stop that handlers leave to settlements and the good-bye.
const CLOSE_SHARE: u32 = 5;

/// Runs a handler for every message of a group until it is stopped.
///
/// ```
/// # use std::{convert::Infallible, time::Duration};
/// # use rocketmq_grpc::{Client, Config, Connector, ConsumerConfig, Filter, PushConsumer};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = rocketmq_devbroker::DevBroker::start().await;
/// # let link = broker.connector();
/// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
/// # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
/// let config = ConsumerConfig::new("billing").subscribe("orders", Filter::all());
/// let consumer = PushConsumer::start(&client, config, 8, async |message| {
///     println!("{}: {:?}", message.id, message.body);
///     Ok::<_, Infallible>(())
/// })
/// .await?;
/// // ... until the process is told to end:
/// consumer.stop(tokio::time::Instant::now() + Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// If the group is orderly (a flag of the group on the server), the messages of a message group are
/// handled one after the other, those of different message groups at the same time. A message that
/// fails is tried 3 times, within 10 s, before it is moved to the dead-letter topic of the group; its
/// message group waits for it.
#[derive(Debug)]
pub struct PushConsumer {
    consumer: Arc<Consumer>,
    loops: TaskTracker,
    shared: Arc<Shared>,
}

/// Messages that a stopped [`PushConsumer`] could not finish: they will be delivered again.
#[derive(Debug)]
pub struct Abandoned {
    message_ids: Vec<String>,
    source: Option<Error>,
}

/// What the loops of a push consumer have in common.
#[derive(Debug)]
struct Shared {
    /// Messages that were handed over and are not settled.
    open: Mutex<HashSet<String>>,
    /// What fails to be settled from now on is told by the stop.
    stopping: CancellationToken,
    /// Nothing is tried again. Only when nothing is received any more: what an orderly group hands
    /// back would come again at once, to this consumer.
    ending: CancellationToken,
    /// Ends the handlers that run past the deadline of the stop.
    abort: CancellationToken,
}

impl PushConsumer {
    /// Starts a consumer and up to `concurrency` handlers per topic.
    ///
    /// A handler that fails has its message tried again. One that panics is a failure as well. A
    /// message whose lease is lost while it is handled is dropped with its handler, at the
    /// handler's next await: somebody else has it by then.
    ///
    /// # Errors
    ///
    /// As for [`Client::consumer`].
    pub async fn start<H, F, E>(
        client: &Client,
        config: ConsumerConfig,
        concurrency: usize,
        handler: H,
    ) -> Result<Self, Error>
    where
        H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        if concurrency == 0 {
            return Err(Error::config(
                "a push consumer needs a concurrency of at least 1",
            ));
        }
        let topics = config.topics();
        let extend_by = config.lease_duration();
        let consumer = Arc::new(client.consumer(config).await?);
        let shared = Arc::new(Shared {
            open: Mutex::default(),
            stopping: CancellationToken::new(),
            ending: CancellationToken::new(),
            abort: CancellationToken::new(),
        });
        let loops = TaskTracker::new();
        for topic in topics {
            let one = Loop {
                consumer: consumer.clone(),
                topic,
                concurrency,
                slots: Arc::new(Semaphore::new(concurrency)),
                extend_by,
                handler: handler.clone(),
                shared: shared.clone(),
            };
            loops.spawn(one.run());
        }
        loops.close();
        Ok(Self {
            consumer,
            loops,
            shared,
        })
    }

    /// The consumer underneath.
    #[must_use]
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Receives no more, waits for the handlers that run, hands back what was not started, settles,
    /// and says good-bye; all within `by`. Handlers that do not end in time are dropped at their
    /// next await.
    ///
    /// An orderly group works on what it has received as long as there is time, but tries nothing
    /// again that fails: what it hands back comes again with everything behind it.
    ///
    /// # Errors
    ///
    /// If handlers did not end or settlements were not confirmed in time, with the ids of the
    /// messages.
    pub async fn stop(self, by: Instant) -> Result<(), Abandoned> {
        let left = by.saturating_duration_since(Instant::now());
        let handlers_by = by.checked_sub(left / CLOSE_SHARE).unwrap_or(by);
        self.shared.stopping.cancel();
        let ended = async {
            self.consumer.stop_receiving().await;
            self.shared.ending.cancel();
            self.loops.wait().await;
        };
        if tokio::time::timeout_at(handlers_by, ended).await.is_err() {
            self.shared.abort.cancel();
            // They hand back what they hold.
            let _ = tokio::time::timeout(HAND_BACK_MAX, self.loops.wait()).await;
        }
        let closed = self.consumer.close(by).await;
        let message_ids: Vec<_> = self.shared.open().drain().collect();
        match closed {
            Ok(()) if message_ids.is_empty() => Ok(()),
            closed => Err(Abandoned {
                message_ids,
                source: closed.err(),
            }),
        }
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        self.shared.abort.cancel();
    }
}

// === impl Abandoned ===

impl Abandoned {
    /// Ids of the messages, in no order.
    #[must_use]
    pub fn message_ids(&self) -> &[String] {
        &self.message_ids
    }
}

impl Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.message_ids.len();
        write!(
            f,
            "stopped with {count} messages unfinished, they will be delivered again"
        )
    }
}

impl StdError for Abandoned {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|it| it as _)
    }
}

// === impl Shared ===

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashSet<String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
