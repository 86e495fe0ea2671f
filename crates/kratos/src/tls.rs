//! TLS for the HTTP and gRPC servers: the `http.tls` and `grpc.tls` sections.
//!
//! Certificate and key are PEM files. They are read again while the server runs, so a certificate
//! that was renewed is served without a restart; connections that are open keep theirs. Files that
//! somebody still writes, or that do not fit each other, are left for the next look. With
//! `client_ca`, clients show a certificate of their own, which handlers find as an
//! `Extension<ClientCertificates>`.
//!
//! TLS 1.2 and 1.3, by rustls. A client that speaks plain HTTP to the port is told so.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use crate::config::duration;

/// Where a server finds its certificate, and whether clients need one.
///
/// ```toml
/// [http.tls]
/// cert = "/etc/tls/tls.crt"      # the chain, the server's own first
/// key = "/etc/tls/tls.key"
/// client_ca = "/etc/tls/ca.crt"  # optional: who may call
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PEM file of the server's certificate and those that vouch for it, its own first.
    pub cert: PathBuf,

    /// PEM file of the certificate's private key: PKCS#8, PKCS#1 or SEC1, without a password.
    pub key: PathBuf,

    /// PEM file of the authorities whose certificates clients show; none by default, and clients
    /// are not asked.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,

    /// Whether a client may come without a certificate when `client_ca` is set; `required` by
    /// default. One that no authority vouches for is refused in either case.
    #[serde(default)]
    pub client_auth: ClientAuth,

    /// How long a client may take to agree on keys, 10 s by default.
    #[serde(default = "handshake_timeout", with = "duration")]
    pub handshake_timeout: Duration,

    /// How often the files are looked at, 30 s by default. New ones that do not work are reported
    /// in the log, and the old ones stay in use. Whether a certificate has expired is not looked
    /// at: clients do.
    #[serde(default = "reload_interval", with = "duration")]
    pub reload_interval: Duration,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// A handshake without one fails.
    #[default]
    Required,
    /// Handlers see whether there was one.
    Optional,
}

/// The certificates that a client showed and an authority vouched for: an axum `Extension`, and one
/// of a tonic request. It is absent when there were none.
///
/// ```
/// use axum::Extension;
/// use kratos::tls::ClientCertificates;
///
/// async fn whoami(client: Option<Extension<ClientCertificates>>) -> String {
///     match client {
///         Some(Extension(shown)) => format!("{} bytes of DER", shown.own().len()),
///         None => "nobody we know".to_owned(),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct ClientCertificates(Arc<[CertificateDer<'static>]>);

// === impl Config ===

impl Config {
    /// Certificate and key, no client certificates.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            cert: cert.into(),
            key: key.into(),
            client_ca: None,
            client_auth: ClientAuth::default(),
            handshake_timeout: handshake_timeout(),
            reload_interval: reload_interval(),
        }
    }
}

fn handshake_timeout() -> Duration {
    Duration::from_secs(10)
}

fn reload_interval() -> Duration {
    Duration::from_secs(30)
}

// === impl ClientCertificates ===

impl ClientCertificates {
    pub(crate) fn new(shown: &[CertificateDer<'static>]) -> Option<Self> {
        (!shown.is_empty()).then(|| Self(shown.into()))
    }

    /// The client's own certificate, in DER.
    #[must_use]
    pub fn own(&self) -> &[u8] {
        self.0.first().map_or(&[], AsRef::as_ref)
    }

    /// The client's own certificate and those that it sent to vouch for it, in DER.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificates({})", self.0.len())
    }
}
