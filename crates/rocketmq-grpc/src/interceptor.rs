//! Code of yours around sends, receives and settlements: traces, metrics, bodies that are encrypted.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tracing::warn;

use crate::{BoxError, Error, Message, MessageView, Result, SendReceipt, Settled};

/// Sees every message of a client's producers and consumers; installed by
/// [`Config::interceptor`](crate::Config::interceptor).
///
/// Several are like layers: what the first one has done to a message before it is sent is what the
/// second one gets, and after that the second one is asked first. All methods have a default that
/// does nothing. They are called on the way of each message, so they must not block. A panic in one
/// counts as its error, or is logged where there is none to return.
///
/// ```
/// # use std::time::Duration;
/// # use rocketmq_grpc::{Client, Connector, ConsumerConfig, Filter, ProducerConfig};
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use rocketmq_grpc::{
///     BoxError, Config, Interceptor, Message, MessageView, Result, SendReceipt, Settled,
/// };
///
/// /// Turns bodies around; yours would encrypt them.
/// struct Reversed;
///
/// impl Interceptor for Reversed {
///     fn before_send(&self, message: Message) -> Result<Message, BoxError> {
///         let body: Vec<u8> = message.body().iter().rev().copied().collect();
///         Ok(message.with_body(body).property("reversed", "yes"))
///     }
///
///     fn after_receive(&self, message: &mut MessageView) -> Result<(), BoxError> {
///         if message.properties.contains_key("reversed") {
///             message.body = message.body.iter().rev().copied().collect();
///         }
///         Ok(())
///     }
/// }
///
/// /// Counts what is confirmed.
/// #[derive(Default)]
/// struct Counts {
///     sent: AtomicU64,
///     settled: AtomicU64,
/// }
///
/// impl Interceptor for &'static Counts {
///     fn after_send(&self, _: &Message, result: &Result<SendReceipt>) {
///         self.sent.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
///     }
///
///     fn after_settle(&self, settled: &Settled) {
///         self.settled.fetch_add(u64::from(settled.result.is_ok()), Ordering::Relaxed);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let broker = rocketmq_devbroker::DevBroker::start().await;
/// # let link = broker.connector();
/// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
/// let counts: &'static Counts = Box::leak(Box::default());
/// let config = Config::new("dev:8081").interceptor(counts).interceptor(Reversed);
/// # let client = Client::with_connector(config, connector)?;
/// # let subscription = ConsumerConfig::new("billing").subscribe("orders", Filter::all());
/// # let consumer = client.consumer(subscription).await?;
/// # let producer = client.producer(ProducerConfig::new()).await?;
///
/// producer.send(Message::new("orders", "a body")).await?;
/// for lease in consumer.receive("orders", 1).await? {
///     assert_eq!(lease.message().body, "a body");
///     consumer.ack(lease).await?;
/// }
/// assert_eq!(counts.sent.load(Ordering::Relaxed), 1);
/// assert_eq!(counts.settled.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// Before a message is looked at and sent, once however often it is tried.
    ///
    /// # Errors
    ///
    /// The message is not sent: the call fails with an error that
    /// [`is_invalid`](Error::is_invalid) and has this one as its source.
    fn before_send(&self, message: Message) -> Result<Message, BoxError> {
        Ok(message)
    }

    /// When the outcome of a send is known, after all tries. For a message in a transaction that is
    /// when the server has stored it; for a batch, once for each message. A call that is dropped has
    /// no outcome.
    fn after_send(&self, message: &Message, result: &Result<SendReceipt>) {
        let _ = (message, result);
    }

    /// When a message has come, decompressed and its digest checked, before anybody sees it; and
    /// before a transaction checker sees one. A delivery whose answer was lost may be seen again.
    ///
    /// # Errors
    ///
    /// The message counts as damaged ([`ConsumerStats::corrupted`](crate::ConsumerStats)): it goes
    /// back to the server, and nobody sees it here.
    fn after_receive(&self, message: &mut MessageView) -> Result<(), BoxError> {
        let _ = message;
        Ok(())
    }

    /// When the outcome of a settlement is known that the user of a consumer asked for.
    fn after_settle(&self, settled: &Settled) {
        let _ = settled;
    }
}

/// Those of a client, in the order of their installation.
#[derive(Clone, Default)]
pub(crate) struct Interceptors(Vec<Arc<dyn Interceptor>>);

impl Interceptors {
    pub(crate) fn push(&mut self, interceptor: impl Interceptor) {
        self.0.push(Arc::new(interceptor));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn before_send(&self, mut message: Message) -> Result<Message, Error> {
        for it in &self.0 {
            message = guarded(|| it.before_send(message)).map_err(Error::intercepted)?;
        }
        Ok(message)
    }

    pub(crate) fn after_send(&self, message: &Message, result: &Result<SendReceipt>) {
        self.tell(|it| it.after_send(message, result));
    }

    pub(crate) fn after_receive(&self, message: &mut MessageView) -> Result<(), Error> {
        for it in self.0.iter().rev() {
            guarded(|| it.after_receive(message)).map_err(Error::intercepted)?;
        }
        Ok(())
    }

    pub(crate) fn after_settle(&self, settled: &Settled) {
        self.tell(|it| it.after_settle(settled));
    }

    fn tell(&self, what: impl Fn(&dyn Interceptor)) {
        for it in self.0.iter().rev() {
            let told = guarded(|| {
                what(&**it);
                Ok(())
            });
            if let Err(error) = told {
                warn!(error = %error, "an interceptor failed");
            }
        }
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.0.len())
    }
}

/// The loops that receive and settle outlive a panic in code that is not theirs.
fn guarded<T>(call: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("the interceptor panicked".into()))
}
