//! What the App asks of a client.

use kratos::{Description, Resource, StartContext};
use kratos_broker::Error;
use tokio::time::Instant;

use super::Client;
use crate::{check, error::neutral};

impl Resource for Client {
    fn name(&self) -> &str {
        "rocketmq"
    }

    fn describe(&self) -> Description {
        let described = Description::new("broker").check(check::reachable(self));
        #[cfg(feature = "cli")]
        let described = described.command(crate::cli::command(self));
        let topics = self.shared.lock().sends_to();
        let described = topics
            .into_iter()
            .fold(described, |all, topic| all.check(check::topic(self, topic)));
        #[cfg(feature = "asyncapi")]
        let described = described.document(kratos::Document::new(
            "asyncapi",
            kratos_broker::asyncapi::document(self, <Self as kratos_broker::Driver>::SYSTEM, []),
        ));
        described
    }

    async fn open(&mut self, _cx: StartContext) -> kratos::Result<()> {
        let opened = async {
            self.client()?.ping().await.map_err(neutral)?;
            self.producer().await.map(drop)
        };
        opened.await.map_err(|error: Error| {
            let error = self.at_start(error);
            let transient = error.is_transient();
            let at = format!(
                "cannot use RocketMQ at {}",
                self.shared.connection.endpoints()
            );
            let error = kratos::Error::msg(at).with_source(error);
            if transient { error.transient() } else { error }
        })
    }

    async fn close(self, by: Instant) -> kratos::Result<()> {
        if let Some(producer) = self.shared.producer.get() {
            producer.close(by).await;
        }
        if let Some(client) = self.shared.client.get() {
            client.close(by).await;
        }
        Ok(())
    }
}
