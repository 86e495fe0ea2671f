//! What a service says about its cluster.

use std::{fmt, time::Duration};

use kratos_broker::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::{broadcast::Site, error::neutral, tls::Tls};

/// The `rocketmq` section of a service's configuration.
///
/// ```toml
/// [rocketmq]
/// endpoints = "proxy.example:8081"
///
/// [rocketmq.tls]                     # there: connections are secured
/// ca = "/etc/rocketmq/ca.pem"        # left out: the authorities that this system trusts
///
/// [rocketmq.credentials]
/// access_key = "billing"             # the secret as KRATOS_ROCKETMQ__CREDENTIALS__SECRET_KEY
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the proxy listens for gRPC: `host:port`, several separated by `;`.
    pub endpoints: Option<String>,
    /// Namespace of all topics and groups; empty for none. The Apache server takes no notice of it.
    pub namespace: String,
    /// How long one request to the broker may take: `3s`.
    #[serde(with = "kratos::config::duration")]
    pub request_timeout: Duration,
    /// Secures the connections; plaintext without it.
    pub tls: Option<Tls>,
    /// Signs the requests; unsigned without it.
    pub credentials: Option<Credentials>,
    /// Where the name servers listen, `host:port`, several separated by `;` (feature `admin`): for
    /// broadcasts, whose groups are made and removed there, for readers of dead letters, and for the
    /// lag of subscriptions.
    pub admin: Option<String>,
    /// How often they are asked for the lag, if `admin` names them; 1 s at least, never with `0s`.
    #[serde(with = "kratos::config::duration")]
    pub lag_interval: Duration,
}

/// The `rocketmq.credentials` section: a user of the server's ACL. Debug does not show the secrets.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// The access key: the user's name.
    pub access_key: String,
    /// Its secret: the user's password.
    pub secret_key: String,
    /// A token of a security service, that goes with temporary keys.
    pub session_token: Option<String>,
}

/// How the cluster is reached; checked as far as that takes no I/O.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoints: String,
    config: Config,
    #[cfg(feature = "admin")]
    admin: Option<rocketmq_admin::Admin>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: None,
            namespace: String::new(),
            request_timeout: Duration::from_secs(3),
            tls: None,
            credentials: None,
            admin: None,
            lag_interval: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(config: Config) -> kratos::Result<Self> {
        let endpoints = config.endpoints.clone().ok_or_else(|| {
            kratos::Error::msg(
                "rocketmq.endpoints is missing: set it, or KRATOS_ROCKETMQ__ENDPOINTS, to the \
                 host:port of the RocketMQ proxy",
            )
        })?;
        if let Some(credentials) = &config.credentials {
            credentials.check()?;
        }
        if let Some(tls) = &config.tls {
            tls.check()?;
        }
        let connection = Self {
            #[cfg(feature = "admin")]
            admin: admin(&config)?,
            endpoints,
            config,
        };
        // Finds what is wrong with the rest; no certificate is read for that.
        let plain = rocketmq_grpc::Client::new(connection.plain());
        plain.map_err(|error| {
            let endpoints = &connection.endpoints;
            kratos::Error::msg(format!("rocketmq.endpoints is {endpoints:?}"))
                .with_source(neutral(error))
        })?;
        Ok(connection)
    }

    /// Of a client that is there already.
    pub(crate) fn named(endpoints: &str) -> Self {
        Self {
            endpoints: endpoints.to_owned(),
            config: Config::default(),
            #[cfg(feature = "admin")]
            admin: None,
        }
    }

    pub(crate) fn endpoints(&self) -> &str {
        &self.endpoints
    }

    #[cfg(feature = "asyncapi")]
    pub(crate) fn namespace(&self) -> &str {
        &self.config.namespace
    }

    #[cfg(any(feature = "admin", feature = "embedded"))]
    pub(crate) fn lag_interval(&self) -> Duration {
        self.config.lag_interval
    }

    /// Makes the client; reads the certificates.
    pub(crate) fn client(&self) -> Result<rocketmq_grpc::Client> {
        let config = match &self.config.tls {
            Some(tls) => match tls.read()? {
                Some(tls) => self.plain().tls(tls),
                None => self.plain(),
            },
            None => self.plain(),
        };
        rocketmq_grpc::Client::new(config).map_err(neutral)
    }

    /// Where the groups of broadcasts are made.
    pub(crate) fn site(&self) -> Result<Site> {
        #[cfg(feature = "admin")]
        if let Some(admin) = &self.admin {
            return Ok(Site::Cluster(admin.clone()));
        }
        if self.config.admin.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "rocketmq.admin is set, but kratos-rocketmq was built without the feature admin",
            ));
        }
        Ok(Site::Nowhere)
    }

    fn plain(&self) -> rocketmq_grpc::Config {
        let config = rocketmq_grpc::Config::new(self.endpoints.as_str())
            .namespace(&self.config.namespace)
            .request_timeout(self.config.request_timeout);
        match &self.config.credentials {
            Some(credentials) => config.credentials(credentials.wire()),
            None => config,
        }
    }
}

#[cfg(feature = "admin")]
fn admin(config: &Config) -> kratos::Result<Option<rocketmq_admin::Admin>> {
    let Some(admin) = &config.admin else {
        return Ok(None);
    };
    let made = rocketmq_admin::Admin::new(admin.as_str());
    made.map(Some).map_err(|error| {
        kratos::Error::msg(format!("rocketmq.admin is {admin:?}")).with_source(error)
    })
}

// === impl Credentials ===

impl Credentials {
    fn check(&self) -> kratos::Result<()> {
        for (key, value) in [
            ("access_key", &self.access_key),
            ("secret_key", &self.secret_key),
        ] {
            if value.is_empty() {
                let env = key.to_uppercase();
                return Err(kratos::Error::msg(format!(
                    "rocketmq.credentials.{key} is missing: set it, or \
                     KRATOS_ROCKETMQ__CREDENTIALS__{env}, or leave rocketmq.credentials out"
                )));
            }
        }
        Ok(())
    }

    fn wire(&self) -> rocketmq_grpc::Credentials {
        let credentials = rocketmq_grpc::Credentials::new(&self.access_key, &self.secret_key);
        match &self.session_token {
            Some(token) => credentials.session_token(token),
            None => credentials,
        }
    }
}
