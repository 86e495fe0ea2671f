//! Certificates for tests, in files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kratos::tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Vouches for certificates.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM.
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

/// A folder with the files of a server.
pub(super) struct Files {
    folder: TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(super) fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// One whose time is over.
    pub(super) fn issue_expired(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// What a client trusts that knows this authority, with a certificate of its own or without.
    pub(super) fn client(&self, own: Option<&Pair>, alpn: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

pub(super) async fn secured(
    connector: &TlsConnector,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await
}

impl Files {
    pub(super) fn new(pair: &Pair) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self { folder };
        files.write(pair);
        files
    }

    pub(super) fn write(&self, pair: &Pair) {
        std::fs::write(self.cert(), &pair.cert).unwrap();
        std::fs::write(self.key(), &pair.key).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn cert(&self) -> PathBuf {
        self.path("tls.crt")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.path("tls.key")
    }

    pub(super) fn with_ca(&self, authority: &Authority) -> tls::Config {
        let path = self.path("ca.crt");
        std::fs::write(&path, authority.pem()).unwrap();
        tls::Config {
            client_ca: Some(path),
            ..self.config()
        }
    }

    pub(super) fn config(&self) -> tls::Config {
        tls::Config::new(self.cert(), self.key())
    }
}

/// What a file of this name would be called in an error.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
