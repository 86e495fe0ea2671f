//! The `http` section.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::Deserialize;

use crate::config::duration;

/// Where and how the HTTP server listens: the `http` section of a service's configuration.
///
/// ```
/// use kratos::http::Config;
///
/// let config = Config { addr: "0.0.0.0:80".parse()?, ..Config::default() };
/// # Ok::<_, std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address; 127.0.0.1:8000 by default. Port 0 takes a free one.
    #[serde(deserialize_with = "crate::net::addr")]
    pub addr: SocketAddr,

    /// Connections at once, 10,000 by default; more wait in the kernel's queue.
    pub connections_max: usize,

    /// How long the head of a request may take, 30 s by default.
    #[serde(with = "duration")]
    pub header_read_timeout: Duration,

    /// Certificate and key; none by default, and the server speaks plain text.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: (Ipv4Addr::LOCALHOST, 8000).into(),
            connections_max: 10_000,
            header_read_timeout: Duration::from_secs(30),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}
