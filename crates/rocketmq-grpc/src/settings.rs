//! What the server decides about a client.

use std::time::Duration;

use rocketmq_proto::v2 as pb;

use crate::{Endpoints, backoff::RetryDelays, convert};

/// The server's side of the settings, as of the last time it sent them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerSettings {
    /// Deliveries of a message before the server moves it to the dead-letter topic of the group.
    pub max_attempts: u32,
    /// Delays between those deliveries; for a producer, between attempts to send.
    pub retry_delays: RetryDelays,
    /// The group consumes in order.
    pub fifo: bool,
    /// Most messages that one receive brings.
    pub receive_batch_size: usize,
    /// Longest wait of a receive for the first message.
    pub long_polling_timeout: Duration,
    /// In bytes.
    pub max_body_size: usize,
    /// Whether the type of a message is checked against the topic's before it is sent.
    pub validate_message_type: bool,
    /// Where the server wants the metrics of clients to be sent, by OTLP. This crate sends none: the
    /// application has its own.
    pub metrics_endpoints: Option<Endpoints>,
}

impl Default for ServerSettings {
    /// The defaults of the Apache server.
    fn default() -> Self {
        Self {
            max_attempts: 17,
            retry_delays: RetryDelays::default(),
            fifo: false,
            receive_batch_size: 32,
            long_polling_timeout: Duration::from_secs(20),
            max_body_size: 4 << 20,
            validate_message_type: true,
            metrics_endpoints: None,
        }
    }
}

impl ServerSettings {
    /// Takes over what the server says and keeps what it does not mention.
    pub(crate) fn apply(&mut self, settings: &pb::Settings) {
        use pb::settings::PubSub;
        if let Some(policy) = &settings.backoff_policy {
            if let Ok(attempts) = u32::try_from(policy.max_attempts)
                && attempts > 0
            {
                self.max_attempts = attempts;
            }
            if let Some(delays) = RetryDelays::from_proto(policy) {
                self.retry_delays = delays;
            }
        }
        if let Some(metric) = &settings.metric {
            let endpoints = metric.endpoints.as_ref().filter(|_| metric.on);
            self.metrics_endpoints = endpoints.and_then(Endpoints::from_proto);
        }
        match &settings.pub_sub {
            Some(PubSub::Publishing(it)) => {
                if let Ok(bytes) = usize::try_from(it.max_body_size)
                    && bytes > 0
                {
                    self.max_body_size = bytes;
                }
                self.validate_message_type = it.validate_message_type;
            }
            Some(PubSub::Subscription(it)) => {
                self.fifo = it.fifo.unwrap_or(self.fifo);
                if let Some(size) = it.receive_batch_size.and_then(|n| usize::try_from(n).ok())
                    && size > 0
                {
                    self.receive_batch_size = size;
                }
                if let Some(timeout) = it.long_polling_timeout.as_ref().map(convert::duration)
                    && !timeout.is_zero()
                {
                    self.long_polling_timeout = timeout;
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_the_server_leaves_out_or_says_without_sense() {
        let mut settings = ServerSettings::default();
        settings.apply(&pb::Settings::default());
        settings.apply(&pb::Settings {
            backoff_policy: Some(pb::RetryPolicy {
                max_attempts: -1,
                strategy: None,
            }),
            pub_sub: Some(pb::settings::PubSub::Subscription(pb::Subscription {
                receive_batch_size: Some(0),
                ..Default::default()
            })),
            ..Default::default()
        });
        assert_eq!(settings, ServerSettings::default());
    }

    #[test]
    fn takes_over_what_the_server_says() {
        let mut settings = ServerSettings::default();
        settings.apply(&pb::Settings {
            backoff_policy: Some(pb::RetryPolicy {
                max_attempts: 3,
                strategy: None,
            }),
            pub_sub: Some(pb::settings::PubSub::Subscription(pb::Subscription {
                fifo: Some(true),
                receive_batch_size: Some(8),
                ..Default::default()
            })),
            ..Default::default()
        });
        assert_eq!(
            (
                settings.max_attempts,
                settings.fifo,
                settings.receive_batch_size
            ),
            (3, true, 8)
        );
    }
}
