//! The `admin` section.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::Deserialize;

use crate::config::duration;

/// Where the admin server listens, and what it allows: the `admin` section of a service's
/// configuration.
///
/// ```
/// let config = kratos::admin::Config::default();
/// assert!(config.addr.ip().is_loopback() && !config.actions);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address; 127.0.0.1:9600 by default. Port 0 takes a free one. Nobody is asked for a
    /// password: open it to others only where a network keeps strangers away.
    #[serde(deserialize_with = "crate::net::addr")]
    pub addr: SocketAddr,

    /// Whether subscriptions may be paused, resumed and resized, dead letters read and replayed, and
    /// the log's level changed; not by default.
    pub actions: bool,

    /// For how long a dispatcher may not run before `/livez` says so; 10 s by default, at least 2 s.
    #[serde(with = "duration")]
    pub stuck_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: (Ipv4Addr::LOCALHOST, 9600).into(),
            actions: false,
            stuck_after: Duration::from_secs(10),
        }
    }
}
