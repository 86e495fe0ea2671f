//! A consumer for people without a framework: an async function per message.
//!
//! A small loop over [`Consumer`]: it keeps up to `concurrency` handlers running, extends the lease
//! of a message while its handler runs, acknowledges what succeeded and has the server deliver
//! again, after the delay of the group's policy, what failed.

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{Client, Consumer, ConsumerConfig, Error, Lease, MessageView};

/// After a receive that the server refused, beside the consumer's own growing delays.
const REFUSED_DELAY: Duration = Duration::from_millis(100);
/// Part of the time to stop that handlers leave to settlements and the good-bye.
const CLOSE_SHARE: u32 = 5;

/// Runs a handler for every message of a group until it is stopped.
///
/// ```
/// # use std::{convert::Infallible, time::Duration};
/// # use rocketmq_grpc::{Client, Config, Connector, ConsumerConfig, Filter, PushConsumer};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> rocketmq_grpc::Result<()> {
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
#[derive(Debug)]
pub struct PushConsumer {
    consumer: Arc<Consumer>,
    loops: TaskTracker,
    /// Ends the handlers that run past the deadline of the stop.
    abort: CancellationToken,
}

impl PushConsumer {
    /// Starts a consumer and up to `concurrency` handlers per topic.
    ///
    /// A handler that fails has its message delivered again. One that panics is a failure as well.
    /// A message whose lease is lost while it is handled is dropped with its handler, at the
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
        let (loops, abort) = (TaskTracker::new(), CancellationToken::new());
        for topic in topics {
            let one = Loop {
                consumer: consumer.clone(),
                topic,
                concurrency,
                extend_by,
                handler: handler.clone(),
                abort: abort.clone(),
            };
            loops.spawn(one.run());
        }
        loops.close();
        Ok(Self {
            consumer,
            loops,
            abort,
        })
    }

    /// The consumer underneath.
    #[must_use]
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Receives no more, waits for the handlers that run, hands back what was not started, settles,
    /// and says good-bye; all within `by`. Handlers that do not end in time are dropped at their
    /// next await, their messages come back when the leases run out.
    ///
    /// # Errors
    ///
    /// If settlements were not confirmed in time.
    pub async fn stop(self, by: Instant) -> Result<(), Error> {
        let left = by.saturating_duration_since(Instant::now());
        let handlers_by = by.checked_sub(left / CLOSE_SHARE).unwrap_or(by);
        let ended = async {
            self.consumer.stop_receiving().await;
            self.loops.wait().await;
        };
        if tokio::time::timeout_at(handlers_by, ended).await.is_err() {
            self.abort.cancel();
        }
        self.consumer.close(by).await
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

/// Of one topic.
struct Loop<H> {
    consumer: Arc<Consumer>,
    topic: String,
    concurrency: usize,
    extend_by: Duration,
    handler: H,
    abort: CancellationToken,
}

impl<H, F, E> Loop<H>
where
    H: Fn(MessageView) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    async fn run(self) {
        let mut running = JoinSet::new();
        loop {
            let room = self.concurrency - running.len();
            tokio::select! {
                biased;
                () = self.abort.cancelled() => return,
                Some(_) = running.join_next() => {}
                leases = self.consumer.receive(&self.topic, room.max(1)), if room > 0 => match leases {
                    Ok(leases) if leases.is_empty() => break,
                    Ok(leases) => for lease in leases {
                        running.spawn(handle(
                            self.consumer.clone(),
                            lease,
                            self.handler.clone(),
                            self.extend_by,
                        ));
                    },
                    Err(error) if error.is_closed() => break,
                    Err(error) => {
                        warn!(topic = self.topic, error = %error, "receive refused");
                        tokio::time::sleep(REFUSED_DELAY).await;
                    }
                },
            }
        }
        let rest = async { while running.join_next().await.is_some() {} };
        self.abort.run_until_cancelled(rest).await;
    }
}

async fn handle<H, F, E>(consumer: Arc<Consumer>, mut lease: Lease, handler: H, extend_by: Duration)
where
    H: Fn(MessageView) -> F,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let message = lease.take_message();
    let (id, attempt) = (message.id.clone(), message.attempt);
    // A task of its own, so that a panic ends the handler and not its message.
    let mut handler = AbortOnDrop(tokio::spawn(handler(message)));
    let result = loop {
        let now = Instant::now();
        let extend_at = lease.deadline().checked_sub(extend_by / 2).unwrap_or(now);
        tokio::select! {
            biased;
            result = &mut handler.0 => break result,
            () = tokio::time::sleep_until(extend_at) => {
                let extended = tokio::select! {
                    biased;
                    result = &mut handler.0 => break result,
                    extended = consumer.extend(&mut lease, extend_by) => extended,
                };
                if let Err(error) = extended {
                    warn!(message_id = id, error = %error, "the lease is lost, its handler is dropped");
                    return;
                }
            }
        }
    };
    let failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => Some(panic.to_string()),
    };
    // The place of the message is free when its settlement is answered: failing settlements slow
    // the intake down.
    let settled = if let Some(error) = failure {
        warn!(message_id = id, attempt, error, "handler failed");
        let delay = consumer.settings().retry_delays.after_attempt(attempt);
        consumer.retry_after(lease, delay).await
    } else {
        consumer.ack(lease).await
    };
    if let Err(error) = settled {
        warn!(message_id = id, error = %error, "not settled");
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
