//! TLS to the cluster: the `rocketmq.tls` section.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kratos_broker::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::error::neutral;

/// Larger files are no certificates: one is a few KB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How connections to the cluster are secured. The server's certificate is verified.
///
/// Files are PEM; they are read once, when the client is opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// `false` switches the section off.
    pub enabled: bool,
    /// File of the authorities, or of the server's own certificate, that are trusted; those that
    /// this system trusts if it is left out.
    pub ca: Option<PathBuf>,
    /// File of the certificate that is shown to the server, and those that vouch for it, its own
    /// first.
    pub cert: Option<PathBuf>,
    /// File of the private key of `cert`, without a password.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate is for, where it is not the host that is connected
    /// to: one name for all brokers.
    pub server_name: Option<String>,
    /// Takes whatever certificate the server shows: whoever sits in between can read and change
    /// everything. For tests on one machine.
    pub dangerously_accept_any_certificate: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            enabled: true,
            ca: None,
            cert: None,
            key: None,
            server_name: None,
            dangerously_accept_any_certificate: false,
        }
    }
}

impl Tls {
    /// What is wrong without a look into files.
    pub(crate) fn check(&self) -> kratos::Result<()> {
        let wrong = |what| Err(kratos::Error::msg(format!("rocketmq.tls: {what}")));
        match (&self.cert, &self.key) {
            (Some(_), None) => return wrong("cert is set, and key is not: give both"),
            (None, Some(_)) => return wrong("key is set, and cert is not: give both"),
            _ => {}
        }
        if self.ca.is_some() && self.dangerously_accept_any_certificate {
            return wrong("with dangerously_accept_any_certificate the ca is not looked at");
        }
        Ok(())
    }

    /// Reads the files; `None` if the section is switched off.
    pub(crate) fn read(&self) -> Result<Option<rocketmq_grpc::Tls>> {
        if !self.enabled {
            return Ok(None);
        }
        let mut tls = rocketmq_grpc::Tls::new();
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name);
            usable(&tls, || format!("rocketmq.tls.server_name is {name:?}"))?;
        }
        if let Some(path) = &self.ca {
            tls = tls.ca_pem(read("ca", path)?);
            usable(&tls, || format!("rocketmq.tls.ca is {}", path.display()))?;
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.client_identity_pem(read("cert", cert)?, read("key", key)?);
            usable(&tls, || {
                let (cert, key) = (cert.display(), key.display());
                format!("rocketmq.tls.cert is {cert}, rocketmq.tls.key is {key}")
            })?;
        }
        if self.dangerously_accept_any_certificate {
            tracing::warn!("rocketmq.tls: the server's certificate is not verified");
            tls = tls.dangerously_accept_any_certificate();
        }
        Ok(Some(tls))
    }
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>> {
    let at = || format!("cannot read {}, `rocketmq.tls.{setting}`", path.display());
    let failed = |error| Error::new(ErrorKind::Invalid, at()).with_source(error);
    let size = fs::metadata(path).map_err(&failed)?.len();
    if size > FILE_BYTES_MAX {
        let what = format!("{}: {size} bytes are no certificate", at());
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    fs::read(path).map_err(failed)
}

/// Whether the client takes it: the last thing that was set is the culprit.
fn usable(tls: &rocketmq_grpc::Tls, what: impl Fn() -> String) -> Result<()> {
    let config = rocketmq_grpc::Config::new("127.0.0.1:1").tls(tls.clone());
    match rocketmq_grpc::Client::new(config) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::Invalid, what()).with_source(neutral(error))),
    }
}
