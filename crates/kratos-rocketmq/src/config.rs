//! What a service says about its cluster.

use std::time::Duration;

use serde::Deserialize;

/// The `rocketmq` section of a service's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the proxy listens for gRPC: `host:port`, several separated by `;`.
    pub endpoints: Option<String>,
    /// Namespace of all topics and groups; empty for none.
    pub namespace: String,
    /// How long one request to the broker may take: `3s`.
    #[serde(with = "kratos::config::duration")]
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: None,
            namespace: String::new(),
            request_timeout: Duration::from_secs(3),
        }
    }
}
