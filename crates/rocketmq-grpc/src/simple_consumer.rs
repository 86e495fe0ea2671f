//! A consumer that is asked: messages of all topics and brokers at once, a lease per call.

use std::{sync::Arc, time::Duration};

use rocketmq_proto::v2::ClientType;
use tokio::time::Instant;

use crate::{
    Consumer, ConsumerConfig, Error, Filter, Lease, ServerSettings,
    client::Shared,
    consumer::LONG_POLL_MIN,
    message::{INVISIBLE_MAX, validate_name},
};

/// A group, its topics, and how long a receive waits.
///
/// ```
/// use std::time::Duration;
/// use rocketmq_grpc::{Filter, SimpleConsumerConfig};
///
/// let config = SimpleConsumerConfig::new("billing")
///     .subscribe("orders", Filter::tags("created || paid"))
///     .await_duration(Duration::from_secs(10));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SimpleConsumerConfig {
    consumer: ConsumerConfig,
    await_duration: Duration,
}

/// Hands out messages when it is asked for some.
///
/// Where a [`Consumer`] is made for a loop that always has room, this one is for callers who want
/// some messages now and then, of whatever topic, and decide with every call how long they need for
/// them. It waits for all brokers of all topics at the same time.
///
/// ```
/// # use std::time::Duration;
/// # use rocketmq_grpc::{Client, Config, Connector, Filter, Message, SimpleConsumerConfig};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> rocketmq_grpc::Result<()> {
/// # let broker = rocketmq_devbroker::DevBroker::start().await;
/// # let link = broker.connector();
/// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
/// # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
/// let config = SimpleConsumerConfig::new("billing").subscribe("orders", Filter::all());
/// let consumer = client.simple_consumer(config).await?;
/// # client.producer(Default::default()).await?.send(Message::new("orders", "x")).await?;
/// for mut lease in consumer.receive(16, Duration::from_secs(30)).await? {
///     println!("{:?}", lease.message().body);
///     // It takes longer than expected:
///     consumer.change_invisible_duration(&mut lease, Duration::from_secs(60)).await?;
///     consumer.ack(lease).await?;
/// }
/// consumer.close(tokio::time::Instant::now() + Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SimpleConsumer {
    consumer: Consumer,
    await_duration: Duration,
    invisible_min: Duration,
}

// === impl SimpleConsumerConfig ===

impl SimpleConsumerConfig {
    /// A group without topics yet.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            // One receive per broker and topic, so that no more is asked for than the caller wants.
            consumer: ConsumerConfig::new(group).receives_max(1),
            await_duration: Duration::from_secs(20),
        }
    }

    /// Adds a topic.
    pub fn subscribe(mut self, topic: impl Into<String>, filter: Filter) -> Self {
        self.consumer = self.consumer.subscribe(topic, filter);
        self
    }

    /// How long a receive waits for the first message, 20 s by default; with zero it takes what
    /// earlier calls have brought, and asks for more.
    pub fn await_duration(mut self, duration: Duration) -> Self {
        self.await_duration = duration;
        // The server refuses shorter ones; the request goes on for the next call.
        let polled = duration.max(LONG_POLL_MIN);
        self.consumer = self.consumer.long_polling_timeout(polled);
        self
    }
}

// === impl SimpleConsumer ===

impl SimpleConsumer {
    pub(crate) async fn start(
        shared: &Arc<Shared>,
        traced: bool,
        config: SimpleConsumerConfig,
    ) -> Result<Self, Error> {
        let kind = ClientType::SimpleConsumer;
        let consumer = Consumer::start_as(shared, traced, config.consumer, kind);
        Ok(Self {
            consumer: consumer.await?,
            await_duration: config.await_duration,
            invisible_min: shared.config.invisible_min,
        })
    }

    /// Waits for messages, of any topic: at most `max`, hidden from other members of the group for
    /// `invisible_duration`. Returns as soon as the first are there, and none when there were none
    /// for the [`await_duration`](SimpleConsumerConfig::await_duration).
    ///
    /// While nobody waits nothing is asked for, but a request that is under way goes on: what it
    /// brings is returned by the next call, with the lease that it was asked with (see
    /// [`Lease::deadline`]), or comes back to the group when that is over.
    ///
    /// # Errors
    ///
    /// If `max` is 0 or the duration not from 10 s to 12 h, or if the server refuses in a way that
    /// does not pass by itself. What may pass is tried again inside.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing: what arrives is kept for the next one.
    pub async fn receive(
        &self,
        max: usize,
        invisible_duration: Duration,
    ) -> Result<Vec<Lease>, Error> {
        if max == 0 {
            return Err(Error::config("a receive must have room for 1 message"));
        }
        if !(self.invisible_min..=INVISIBLE_MAX).contains(&invisible_duration) {
            return Err(Error::config(format!(
                "an invisible duration of {invisible_duration:?}: the server takes {:?} to 12 h",
                self.invisible_min
            )));
        }
        let received = self.consumer.receive_any(max, invisible_duration);
        tokio::time::timeout(self.await_duration, received)
            .await
            .unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Acknowledges a message and waits for the confirmation. Acknowledgements that are made at the
    /// same time are sent together.
    ///
    /// In an orderly group it is confirmed when those before it in its [batch](crate::BatchPlace)
    /// are: acknowledge in order, or several at a time.
    ///
    /// # Errors
    ///
    /// If the server refused, or did not confirm while the lease lasted: the message will be
    /// delivered again.
    ///
    /// # Cancel safety
    ///
    /// The acknowledgement goes on; only its outcome is lost.
    pub async fn ack(&self, lease: Lease) -> Result<(), Error> {
        self.consumer.ack(lease).await
    }

    /// Hides a message for `duration` from now on, longer or shorter than before; returns when that
    /// ends. With a duration of zero it is delivered again at once, which spends an attempt.
    ///
    /// # Errors
    ///
    /// As for [`Consumer::extend`]: the lease keeps its old handle and its old deadline.
    ///
    /// # Cancel safety
    ///
    /// The change goes on, and the next call with this lease waits for its outcome.
    pub async fn change_invisible_duration(
        &self,
        lease: &mut Lease,
        duration: Duration,
    ) -> Result<Instant, Error> {
        self.consumer.extend(lease, duration).await
    }

    /// Moves a message to the dead-letter topic `%DLQ%<group>`, and waits for the confirmation.
    ///
    /// # Errors
    ///
    /// As for [`ack`](SimpleConsumer::ack).
    ///
    /// # Cancel safety
    ///
    /// The settlement goes on; only its outcome is lost.
    pub async fn dead_letter(&self, lease: Lease) -> Result<(), Error> {
        self.consumer.dead_letter(lease).await
    }

    /// Adds a topic, or changes the filter of one; the servers are told before this returns. All
    /// members of a group must subscribe alike.
    ///
    /// # Errors
    ///
    /// If the filter cannot work or the topic does not exist. The subscription is as it was, then.
    pub async fn subscribe(&self, topic: &str, filter: Filter) -> Result<(), Error> {
        validate_name("topic", topic)?;
        filter.validate(topic)?;
        self.consumer.subscribe(topic, filter).await
    }

    /// Leaves a topic; the servers are told at once. What had arrived is still returned.
    pub fn unsubscribe(&self, topic: &str) {
        self.consumer.unsubscribe(topic);
    }

    /// What the server decided about the group.
    #[must_use]
    pub fn settings(&self) -> ServerSettings {
        self.consumer.settings()
    }

    /// True while the session with every broker is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.consumer.is_connected()
    }

    /// Id under which the server's tools show this consumer.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.consumer.client_id()
    }

    /// Receives no more, hands back what nobody took, waits for acknowledgements under way, and
    /// says good-bye; all within `by`. A receive that waits returns at once.
    ///
    /// # Errors
    ///
    /// If settlements were not confirmed in time.
    pub async fn close(&self, by: Instant) -> Result<(), Error> {
        self.consumer.close(by).await
    }
}
