//! The client: which servers are asked for what.

mod groups;
mod offsets;
mod servers;
mod topics;

pub use self::offsets::Position;

use std::{fmt, sync::Arc};

use crate::{cluster::Broker, config::Config, error::Result, pool::Pool};

/// A client for what operators do; cheap to clone, all clones share their connections.
///
/// It asks the name servers which brokers there are, on every call, and then the masters among them.
/// Making it does no I/O. Connections are opened on use, inside a tokio runtime with I/O and time,
/// and are plaintext.
///
/// Every call may be dropped at any time and may be repeated. What changes something is done on all
/// master brokers; if one fails, the others are still tried, and the error names it and those that
/// did their part.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    name_servers: Vec<String>,
    pool: Pool,
}

impl Admin {
    /// # Errors
    ///
    /// An address is none: `is_invalid`.
    pub fn new(config: impl Into<Config>) -> Result<Self> {
        let config = config.into();
        Ok(Self {
            inner: Arc::new(Inner {
                name_servers: config.addresses()?,
                pool: Pool::new(config.connect_timeout, config.request_timeout),
                config,
            }),
        })
    }

    /// Every broker that the name servers know, of the chosen cluster if one was, by name.
    ///
    /// A master that does not answer is listed all the same, without its version.
    ///
    /// # Errors
    ///
    /// No name server answers, or it knows no broker.
    pub async fn cluster(&self) -> Result<Vec<Broker>> {
        let operation = "show the cluster";
        let mut brokers = self.brokers(operation).await?;
        let masters: Vec<_> = brokers.iter().filter_map(servers::master).collect();
        let answers = self.versions(operation, &masters).await;
        for (name, version) in answers {
            if let Some(broker) = brokers.iter_mut().find(|it| it.name == name) {
                broker.version = version;
            }
        }
        Ok(brokers)
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("name_servers", &self.inner.name_servers)
            .field("cluster", &self.inner.config.cluster)
            .finish_non_exhaustive()
    }
}
