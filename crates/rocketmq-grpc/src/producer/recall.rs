//! Taking delayed messages back.

use rocketmq_proto::v2 as pb;

use super::Producer;
use crate::{Error, message::validate_name, rpc::Subject};

impl Producer {
    /// Takes back a delayed message before it is delivered, by the handle from its
    /// [`SendReceipt`](crate::SendReceipt::recall_handle); returns its id.
    ///
    /// `Ok` means that the server took the request in time. It deletes the message on its way to
    /// the consumers, so close to its time the message may still get through.
    ///
    /// # Errors
    ///
    /// If the time of delivery is over, the handle is none of this topic's, or the server does not
    /// know recalls (before 5.3.2, or turned off). Apache's answers all of these with
    /// INTERNAL_SERVER_ERROR, although no repetition helps; so nothing is tried again here.
    ///
    /// # Examples
    ///
    /// ```
    /// # use rocketmq_grpc::{Client, Config, Connector, Message, ProducerConfig};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> rocketmq_grpc::Result<()> {
    /// # let broker = rocketmq_devbroker::DevBroker::start().await;
    /// # let link = broker.connector();
    /// # let connector = Connector::new(tower::service_fn(move |_| std::future::ready(link.connect())));
    /// # let client = Client::with_connector(Config::new("dev:8081"), connector)?;
    /// # let producer = client.producer(ProducerConfig::new().topic("reminders")).await?;
    /// let reminder = Message::new("reminders", "pay!").delay(Duration::from_secs(3600));
    /// let receipt = producer.send(reminder).await?;
    ///
    /// if let Some(handle) = receipt.recall_handle {
    ///     let id = producer.recall("reminders", &handle).await?;
    ///     assert_eq!(id, receipt.message_id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recall(&self, topic: &str, handle: &str) -> Result<String, Error> {
        let instance = &self.inner.instance;
        instance.check_open()?;
        validate_name("topic", topic)?;
        if handle.is_empty() {
            return Err(Error::invalid(format!(
                "a recall for {topic} has no handle: only delayed messages have one"
            )));
        }
        // Any proxy finds the broker in the handle.
        let rpc = instance.rpc(&instance.shared.access_point)?;
        let request = pb::RecallMessageRequest {
            topic: Some(instance.resource(topic)),
            recall_handle: handle.to_owned(),
        };
        let subject = Subject {
            topic: Some(topic),
            group: None,
        };
        let call = rpc.call(
            "recall",
            subject,
            request,
            instance.request_timeout(),
            |mut stub, rq| async move { stub.recall_message(rq).await },
        );
        let answer = instance.stop.run_until_cancelled(call).await;
        Ok(answer.ok_or_else(|| Error::closed("producer"))??.message_id)
    }
}
