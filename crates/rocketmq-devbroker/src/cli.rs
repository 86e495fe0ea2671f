//! The command line.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use clap::Parser;
use rocketmq_devbroker::{Builder, DevBroker, GroupConfig, TopicType};

/// A broker that speaks the RocketMQ 5 gRPC protocol, for development and tests.
///
/// Topics and groups are created as they are used, unless --strict. Nothing is kept after the end,
/// unless --data.
#[derive(Debug, Parser)]
#[command(name = "rocketmq-devbroker", version)]
pub(crate) struct Cli {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081", value_parser = address)]
    listen: SocketAddr,

    /// Address that clients are told to connect to, if it is not the one listened on
    #[arg(long, value_name = "HOST:PORT", value_parser = advertised)]
    advertise: Option<(String, u16)>,

    /// Topic to create; TYPE is NORMAL (default), FIFO, DELAY, TRANSACTION, PRIORITY, LITE or
    /// MIXED; repeatable
    #[arg(long = "topic", value_name = "NAME[:TYPE]", value_parser = topic)]
    topics: Vec<(String, TopicType)>,

    /// Consumer group to create; `fifo` makes it ordered, `retry` is the number of retries before
    /// a message becomes a dead letter (default 16); repeatable
    #[arg(long = "group", value_name = "NAME[:fifo][:retry=N]", value_parser = group)]
    groups: Vec<(String, GroupConfig)>,

    /// Refuse unknown topics and groups, as a real server does
    #[arg(long)]
    strict: bool,

    /// User that may call: from the first one on every call must be signed; repeatable
    #[arg(long = "user", value_name = "ACCESS_KEY:SECRET_KEY", value_parser = user)]
    users: Vec<(String, String)>,

    /// Folder that keeps everything for the next start, made if need be
    #[cfg(feature = "persist")]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    #[cfg(feature = "tls")]
    #[command(flatten)]
    tls: Tls,
}

#[cfg(feature = "tls")]
#[derive(Debug, clap::Args)]
struct Tls {
    /// PEM file of the certificate for TLS; plaintext is understood, too
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// PEM file of the authority whose certificates clients must show; ends plaintext
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
}

#[cfg(feature = "tls")]
impl Tls {
    fn add_to(self, mut builder: Builder) -> Result<Builder, Unreadable> {
        if let (Some(cert), Some(key)) = (self.tls_cert, self.tls_key) {
            builder = builder.tls(read(cert)?, read(key)?);
        }
        if let Some(ca) = self.client_ca {
            builder = builder.client_ca(read(ca)?);
        }
        Ok(builder)
    }
}

#[cfg(feature = "tls")]
fn read(path: PathBuf) -> Result<Vec<u8>, Unreadable> {
    std::fs::read(&path).map_err(|source| Unreadable { path, source })
}

/// A file that cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}", self.path.display())
    }
}

impl std::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Cli {
    pub(crate) fn broker(self) -> Result<Builder, Unreadable> {
        let mut builder = DevBroker::builder().strict(self.strict).listen(self.listen);
        if let Some((host, port)) = self.advertise {
            builder = builder.advertise(host, port);
        }
        for (name, kind) in self.topics {
            builder = builder.topic(name, kind);
        }
        for (name, config) in self.groups {
            builder = builder.group(name, config);
        }
        for (access_key, secret_key) in self.users {
            builder = builder.user(access_key, secret_key);
        }
        #[cfg(feature = "persist")]
        if let Some(folder) = self.data {
            builder = builder.data_dir(folder);
        }
        #[cfg(feature = "tls")]
        let builder = self.tls.add_to(builder)?;
        Ok(builder)
    }
}

fn user(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once(':');
    let pair =
        pair.filter(|(access_key, secret_key)| !access_key.is_empty() && !secret_key.is_empty());
    let (access_key, secret_key) = pair.ok_or("expected ACCESS_KEY:SECRET_KEY")?;
    Ok((access_key.to_owned(), secret_key.to_owned()))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected IP:PORT, for example 127.0.0.1:8081".to_owned())
}

fn advertised(text: &str) -> Result<(String, u16), String> {
    let wrong = || "expected HOST:PORT, for example broker.local:8081".to_owned();
    let (host, port) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .ok_or_else(wrong)?;
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

fn topic(text: &str) -> Result<(String, TopicType), String> {
    let (name, kind) = text.split_once(':').unwrap_or((text, "NORMAL"));
    let kind: TopicType = kind.parse().map_err(|e| format!("{e}"))?;
    Ok((name.to_owned(), kind))
}

fn group(text: &str) -> Result<(String, GroupConfig), String> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let mut config = GroupConfig::new();
    for part in parts {
        config = match part.split_once('=') {
            None if part.eq_ignore_ascii_case("fifo") => config.fifo(true),
            Some(("retry", times)) => {
                let times = times.parse();
                config.retry_max_times(times.map_err(|_| format!("not a number: {part:?}"))?)
            }
            _ => {
                return Err(format!(
                    "unknown setting {part:?}: expected `fifo` or `retry=N`"
                ));
            }
        };
    }
    Ok((name.to_owned(), config))
}
