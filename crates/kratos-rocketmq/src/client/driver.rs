//! What the engine asks of a client.

use std::time::Duration;

use kratos::{StartContext, trace::Attributes};
use kratos_broker::{
    Driver, Error, ErrorKind, Group, Message, RecallHandle, Receipt, Replay, Resolution, Result,
    Topic, Transacted,
    driver::{Capabilities, GroupSpec},
};
use rocketmq_grpc::Producer;

use super::{Client, passing};
#[cfg(feature = "asyncapi")]
use crate::document;
use crate::{
    Consumer, attributes, broadcast::OwnGroup, dead_letters::replay_from, error::neutral, publish,
};

/// How long nothing may come from an embedded broker before dead letters count as read.
const EMBEDDED_IDLE: Duration = Duration::from_secs(2);

impl Driver for Client {
    const SYSTEM: &'static str = "rocketmq";

    type Consumer = Consumer;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
            .ordering(true)
            .delay(true)
            .recall(true)
            .priority(true)
            .dead_letter(true)
            .tag_filter(true)
            .sql_filter(true)
            .transactions(true)
            .broadcast(true)
            .hand_back_spends_attempt(true)
    }

    #[cfg(feature = "asyncapi")]
    fn host(&self) -> String {
        self.shared.connection.endpoints().to_owned()
    }

    #[cfg(feature = "asyncapi")]
    fn extension(&self, part: kratos_broker::asyncapi::Part<'_>) -> Option<serde_json::Value> {
        let settings = self.shared.lock();
        let transactional = |topic: &str| settings.checkers.has(topic);
        document::extension(self.shared.connection.namespace(), transactional, part)
    }

    #[cfg(feature = "asyncapi")]
    fn outlets(&self) -> Option<&kratos_broker::asyncapi::Outlets> {
        Some(&self.shared.outlets)
    }

    fn server(&self) -> Option<(&str, u16)> {
        if self.shared.is_embedded() {
            return None;
        }
        Some(self.shared.client.get()?.access_point().first())
    }

    fn describe_send(&self, message: &Message, in_transaction: bool, to: &mut Attributes) {
        let client = self.shared.client.get();
        let namespace = client.map_or("", rocketmq_grpc::Client::namespace);
        let id = self.shared.producer.get().map(Producer::client_id);
        attributes::client(namespace, id, to);
        attributes::sent(message, in_transaction, to);
    }

    async fn publish(&self, message: Message) -> Result<Receipt> {
        let topic = message.topic().clone();
        let sending = self.shared.tap.sending(&message);
        let message = publish::wire(message)?;
        let producer = self.producer().await?;
        let receipt = producer.send(message).await.map_err(neutral)?;
        let receipt = publish::receipt(&topic, receipt);
        sending.sent(&receipt);
        Ok(receipt)
    }

    async fn recall(&self, handle: &RecallHandle) -> Result<()> {
        let producer = self.producer().await?;
        let recalled = producer.recall(handle.topic(), handle.token()).await;
        recalled.map(drop).map_err(neutral)?;
        self.shared.tap.recalled(handle);
        Ok(())
    }

    async fn transaction<L, F>(&self, message: Message, local: L) -> Result<Transacted>
    where
        L: FnOnce(Receipt) -> F + Send,
        F: Future<Output = Resolution> + Send,
    {
        let topic = message.topic().clone();
        if !self.shared.lock().checkers.has(&topic) {
            let what = format!(
                "nobody answers for the transactions of topic {topic}: name a checker with \
                 Client::transaction_checker before the client is used"
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let sending = self.shared.tap.sending(&message);
        let message = publish::wire(message)?;
        let producer = self.producer().await?;
        let transaction = producer.begin(message).await.map_err(neutral)?;
        let receipt = publish::receipt(&topic, transaction.receipt().clone());
        let resolution = local(receipt.clone()).await;
        let told = match resolution {
            Resolution::Commit => transaction.commit().await.map(drop),
            Resolution::Rollback => transaction.rollback().await,
            // The broker asks.
            Resolution::Unknown => Ok(()),
        };
        if resolution == Resolution::Commit {
            sending.sent(&receipt);
        }
        let done = Transacted::new(receipt, resolution);
        Ok(match told {
            Ok(()) => done,
            Err(error) => done.unconfirmed(neutral(error)),
        })
    }

    fn replay(&self, group: &Group, topic: Option<&Topic>) -> Option<Replay> {
        let replay = replay_from(group, topic.map(Topic::as_str));
        Some(match self.shared.is_embedded() {
            // Nothing that was handed back comes late.
            true => replay.idle(EMBEDDED_IDLE),
            false => replay,
        })
    }

    /// Where the client knows how to; elsewhere a person has made it.
    async fn prepare_reader(&self, replay: &Replay) -> Result<()> {
        #[cfg(any(feature = "admin", feature = "embedded"))]
        match self.prepare_replay(replay).await {
            Err(error) if error.is_unsupported() => {}
            prepared => return prepared,
        }
        // A consumer would wait for a topic that is not there, in case it was just made. What else
        // is wrong, it finds.
        match self.client()?.topic_types(replay.from_topic()).await {
            Err(error) if error.is_unknown_topic() => Err(neutral(error)),
            _ => Ok(()),
        }
    }

    async fn consumer(&self, group: GroupSpec, cx: StartContext) -> Result<Consumer> {
        let client = self.client()?;
        if !group.broadcast {
            let joined = Consumer::join(client, &group, None, &self.shared.tap).await;
            let joined = joined.map_err(|error| self.at_start(error))?;
            return Ok(self.shared.watched(joined, &group));
        }
        let own = OwnGroup::create(self.shared.site()?, cx.info().id(), &group).await?;
        let joined = Consumer::join(client, &group, Some(own), &self.shared.tap).await;
        let joined = joined.map(|joined| self.shared.watched(joined, &group));
        joined.map_err(|error| match error.kind() {
            // It was just made: a proxy may not have heard of it yet.
            ErrorKind::UnknownGroup => passing(&error),
            _ => self.at_start(error),
        })
    }
}
