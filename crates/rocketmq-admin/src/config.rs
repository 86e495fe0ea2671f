//! How to reach a cluster.

use std::time::Duration;

use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Name servers and timeouts.
///
/// ```
/// use std::time::Duration;
///
/// use rocketmq_admin::{Admin, Config};
///
/// let config = Config::new("10.0.0.1:9876;10.0.0.2:9876")
///     .cluster("DefaultCluster")
///     .request_timeout(Duration::from_secs(10));
/// let admin = Admin::new(config)?;
/// # Ok::<(), rocketmq_admin::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    name_servers: String,
    pub(crate) cluster: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

impl Config {
    /// Addresses of name servers, `HOST:PORT`, several with semicolons or commas between.
    #[must_use]
    pub fn new(name_servers: impl Into<String>) -> Self {
        Self {
            name_servers: name_servers.into(),
            cluster: None,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
        }
    }

    /// Works on the brokers of this cluster only; on those of every cluster otherwise.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// How long a connection may take to open: 3 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one request may take, with the opening of its connection: 5 s.
    ///
    /// A call makes one request or a few; brokers are asked at the same time.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    pub(crate) fn addresses(&self) -> Result<Vec<String>> {
        let addresses: Vec<_> = self
            .name_servers
            .split([';', ','])
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect();
        if addresses.is_empty() {
            return Err(Error::invalid(
                "no name server: give one, such as 127.0.0.1:9876",
            ));
        }
        match addresses.iter().find(|it| !is_address(it)) {
            Some(it) => Err(Error::invalid(format!(
                "not an address of a name server: {it:?} (HOST:PORT, several with semicolons between)"
            ))),
            None => Ok(addresses),
        }
    }
}

impl<T: Into<String>> From<T> for Config {
    fn from(name_servers: T) -> Self {
        Self::new(name_servers)
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', ' '])
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_and_checked() {
        let addresses = |it: &str| Config::new(it).addresses();
        assert_eq!(
            addresses("a:9876; [::1]:1,c:65535;").unwrap(),
            ["a:9876", "[::1]:1", "c:65535"]
        );
        for bad in [
            "",
            ";",
            "a",
            ":9876",
            "a:",
            "a:0",
            "a:65536",
            "http://a:80",
            "a:1;b",
        ] {
            let error = addresses(bad).unwrap_err();
            assert!(error.is_invalid(), "{bad}: {error}");
        }
    }
}
