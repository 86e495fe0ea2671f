//! TLS on the port of plaintext, as on the real server: the first byte of a connection tells.

mod prefixed;

use std::{borrow::Cow, fmt, io, sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::prefixed::Prefixed;
use crate::{Error, error::Source, serving::Io};

/// How long a connection may take to say what it is and to agree on keys.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of every TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Certificates and key, as the user gave them.
#[derive(Clone, Default)]
pub(crate) struct Pem {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
    /// Who signs the certificates that clients must show.
    pub(crate) client_ca: Option<Vec<u8>>,
}

/// Tells TLS from plaintext, and speaks it.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// Plaintext is refused: it shows no certificate.
    only: bool,
}

impl Tls {
    pub(crate) fn new(pem: &Pem) -> Result<Self, Error> {
        if pem.cert.is_empty() {
            let reason = "client certificates need TLS: give the server's certificate and key, too";
            return Err(failed(reason, None));
        }
        let chain = certificates(&pem.cert, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|e| failed("the private key is no PEM of a key", Some(Box::new(e))))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| failed("no version of TLS", Some(Box::new(e))))?;
        let builder = match &pem.client_ca {
            Some(roots) => builder.with_client_cert_verifier(verifier(roots)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| {
            let reason = "the certificate and the private key do not go together";
            failed(reason, Some(Box::new(e)))
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            only: pem.client_ca.is_some(),
        })
    }

    /// Looks at a new connection and, if it is TLS, does the handshake.
    pub(crate) async fn accept<I>(&self, io: I) -> io::Result<Box<dyn Io>>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let opened = timeout(HANDSHAKE_TIMEOUT, self.open(io)).await;
        opened.unwrap_or_else(|_| {
            let message = format!("no TLS handshake within {HANDSHAKE_TIMEOUT:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }

    async fn open<I>(&self, mut io: I) -> io::Result<Box<dyn Io>>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let first = io.read_u8().await?;
        let io = Prefixed::new(first, io);
        if first == HANDSHAKE_RECORD {
            return Ok(Box::new(self.acceptor.accept(io).await?));
        }
        if self.only {
            let message = "plaintext: this broker asks for client certificates";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Box::new(io))
    }
}

fn verifier(roots: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut store = RootCertStore::empty();
    for root in certificates(roots, "the authority of client certificates")? {
        let wrong = |e| failed("the authority of client certificates", Some(Box::new(e)));
        store.add(root).map_err(wrong)?;
    }
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|e| failed("the authority of client certificates", Some(Box::new(e))))
}

fn failed(reason: impl Into<Cow<'static, str>>, source: Option<Source>) -> Error {
    Error::setup("cannot speak TLS", reason, source)
}

fn certificates(text: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|e| failed(format!("{what} is no PEM"), Some(Box::new(e))))?;
    if found.is_empty() {
        let reason = format!("{what} holds no PEM section CERTIFICATE");
        return Err(failed(reason, None));
    }
    Ok(found)
}

/// Keys are not printed.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
