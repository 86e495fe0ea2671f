//! The `grpc` section.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

/// Where and how the gRPC server listens: the `grpc` section of a service's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address; 127.0.0.1:9000 by default. Port 0 takes a free one.
    #[serde(deserialize_with = "crate::net::addr")]
    pub addr: SocketAddr,

    /// Connections at once, 10,000 by default; more wait in the kernel's queue.
    pub connections_max: usize,

    /// Certificate and key; none by default, and the server speaks plain text.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: (Ipv4Addr::LOCALHOST, 9000).into(),
            connections_max: 10_000,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}
