//! TLS by rustls, around whatever a [`Connector`] brings.

mod fault;
mod verify;

use std::{fmt, io, sync::Arc};

use http::Uri;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use self::verify::AcceptAny;
use crate::{
    Connector, Error,
    connect::{BoxError, Fault, Security},
};

/// What is negotiated: gRPC needs HTTP/2.
const ALPN: &[u8] = b"h2";

/// How connections are secured; given to [`Config::tls`](crate::Config::tls).
///
/// The certificate of the server is verified: against the roots that this system trusts, or against
/// a CA of your own.
///
/// ```
/// use rocketmq_grpc::{Client, Config, Tls};
///
/// let client = Client::new(Config::new("rocketmq.example:8081").tls(Tls::new()))?;
///
/// let refused = Tls::new().ca_pem("not a certificate");
/// assert!(Client::new(Config::new("rocketmq.example:8081").tls(refused)).is_err());
/// # Ok::<(), rocketmq_grpc::Error>(())
/// ```
///
/// The Apache proxy makes a certificate of its own for tests, which nobody can verify; production
/// sets `tlsCertPath` and `tlsKeyPath` in `rmq-proxy.json`.
#[derive(Clone)]
#[must_use]
pub struct Tls {
    trust: Trust,
    identity: Option<Identity>,
    server_name: Option<String>,
}

#[derive(Clone)]
enum Trust {
    System,
    Pem(Vec<u8>),
    Anyone,
}

#[derive(Clone)]
struct Identity {
    chain: Vec<u8>,
    key: Vec<u8>,
}

/// Shared by all connections of a client.
struct Handshake {
    tls: Tls,
    server_name: Option<ServerName<'static>>,
    /// Made by the first connection: the system's roots are files.
    config: OnceCell<Arc<ClientConfig>>,
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

impl Tls {
    /// Verifies the server by the roots that this system trusts (on Linux the files of OpenSSL,
    /// which `SSL_CERT_FILE` and `SSL_CERT_DIR` can replace).
    pub fn new() -> Self {
        Self {
            trust: Trust::System,
            identity: None,
            server_name: None,
        }
    }

    /// Verifies the server by these certificates instead of the system's: a CA, several of them, or
    /// the self-signed certificate of the server itself.
    pub fn ca_pem(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.trust = Trust::Pem(certificates.into());
        self
    }

    /// Shows the server a certificate: its chain, leaf first, and its private key, both PEM.
    pub fn client_identity_pem(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some(Identity {
            chain: chain.into(),
            key: key.into(),
        });
        self
    }

    /// The name that the certificate of the server must be for, if it is not the host that is
    /// connected to: one name for all brokers of the routes.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Accepts whatever certificate the server shows. Whoever sits between client and server can
    /// then read and change everything, credentials included: for tests on one machine.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.trust = Trust::Anyone;
        self
    }

    /// Secures the streams of a connector; says what is wrong with the configuration.
    pub(crate) fn secure(&self, plain: Connector) -> Result<Connector, Error> {
        let server_name = match &self.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|e| {
                Error::config_because(format!("TLS: {name:?} is no name of a server"), e)
            })?),
        };
        let config = match &self.trust {
            // Now is the time to check the rest.
            Trust::System => {
                self.config(RootCertStore::empty())?;
                OnceCell::new()
            }
            Trust::Pem(pem) => OnceCell::new_with(Some(Arc::new(self.config(roots(pem)?)?))),
            Trust::Anyone => {
                OnceCell::new_with(Some(Arc::new(self.config(RootCertStore::empty())?)))
            }
        };
        let handshake = Arc::new(Handshake {
            tls: self.clone(),
            server_name,
            config,
        });
        let service = tower::service_fn(move |uri: Uri| {
            let (handshake, plain) = (handshake.clone(), plain.clone());
            async move { handshake.connect(plain, uri).await }
        });
        let security = Security {
            scheme: "https",
            fault: fault::of,
        };
        Ok(Connector::new(service).with_security(security))
    }

    fn config(&self, roots: RootCertStore) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::config_because("TLS cannot be set up", e))?;
        let builder = match self.trust {
            Trust::System | Trust::Pem(_) => builder.with_root_certificates(roots),
            Trust::Anyone => accept_any(builder, &provider),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let chain = certificates("the client certificate", chain)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| {
                    Error::config_because(
                        "TLS: the client key is no PEM private key (-----BEGIN PRIVATE KEY-----)",
                        e,
                    )
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|e| {
                    Error::config_because(
                        "TLS: the client certificate and its key do not go together",
                        e,
                    )
                })?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trust = match self.trust {
            Trust::System => "the system's roots",
            Trust::Pem(_) => "a CA of its own",
            Trust::Anyone => "ANYONE",
        };
        f.debug_struct("Tls")
            .field("trusts", &trust)
            .field("client_certificate", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl Handshake {
    async fn connect(
        &self,
        plain: Connector,
        uri: Uri,
    ) -> Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + use<>, BoxError>
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => {
                let host = uri.host().unwrap_or_default();
                let host = host.trim_start_matches('[').trim_end_matches(']');
                ServerName::try_from(host.to_owned())?
            }
        };
        let config = self
            .config
            .get_or_try_init(|| self.with_system_roots())
            .await?
            .clone();
        let stream = plain.into_service().oneshot(uri).await?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(stream),
            Err(error) => Err(match fault::of(&error) {
                Some(fault) => Box::new(fault),
                None if error.kind() == io::ErrorKind::UnexpectedEof => {
                    "the server closed the connection during the TLS handshake: does it speak TLS \
                     at this port"
                        .into()
                }
                None => Box::new(error) as BoxError,
            }),
        }
    }

    async fn with_system_roots(&self) -> Result<Arc<ClientConfig>, BoxError> {
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
        let mut roots = RootCertStore::empty();
        let (known, _) = roots.add_parsable_certificates(found.certs);
        if known == 0 {
            let why = found.errors.first().map(|it| format!(" ({it})"));
            return Err(Box::new(Fault::lasting(format!(
                "this system has no root certificates{}: install them (ca-certificates), or give \
                 the server's CA with Tls::ca_pem",
                why.unwrap_or_default()
            ))));
        }
        Ok(Arc::new(self.tls.config(roots)?))
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;
type Verified = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn accept_any(builder: Builder, provider: &Arc<CryptoProvider>) -> Verified {
    let verifier = AcceptAny(provider.clone());
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the CA", pem)? {
        roots.add(certificate).map_err(|e| {
            Error::config_because("TLS: a certificate of the CA cannot be used as a root", e)
        })?;
    }
    Ok(roots)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found
        .map_err(|e| Error::config_because(format!("TLS: {what} is no well-formed PEM"), e))?;
    if found.is_empty() {
        return Err(Error::config(format!(
            "TLS: {what} has no certificate in it: PEM is expected, -----BEGIN CERTIFICATE-----"
        )));
    }
    Ok(found)
}
