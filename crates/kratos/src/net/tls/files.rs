//! Certificates and keys from files, with errors that name the file, the setting and the remedy.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    Error, Result,
    tls::{ClientAuth, Config},
};

/// Larger files are no certificates: one is a few KB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the files held, to tell whether they have changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Names a file and its setting.
struct Source<'a> {
    path: &'a Path,
    /// `http.tls.cert`.
    key: String,
}

impl Files {
    pub(super) fn read(config: &Config, section: &str) -> Result<Self> {
        let read = |path: &PathBuf, setting: &str| Source::new(path, section, setting).read();
        Ok(Self {
            cert: read(&config.cert, "cert")?,
            key: read(&config.key, "key")?,
            client_ca: match &config.client_ca {
                Some(path) => Some(read(path, "client_ca")?),
                None => None,
            },
        })
    }

    pub(super) fn server_config(
        &self,
        config: &Config,
        section: &str,
        alpn: &[&[u8]],
    ) -> Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let at_cert = Source::new(&config.cert, section, "cert");
        let at_key = Source::new(&config.key, section, "key");
        let chain = at_cert.certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| {
            at_key
                .error("holds no private key in PEM that can be used (a password is not supported)")
                .with_source(e)
        })?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(Error::from_any)?;
        let builder = match (&config.client_ca, &self.client_ca) {
            (Some(path), Some(pem)) => {
                let source = Source::new(path, section, "client_ca");
                builder.with_client_cert_verifier(verifier(&source, pem, config, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(|error| {
            let Source { path, key } = &at_key;
            let cert = config.cert.display();
            let said = format!("cannot use {cert} with {}, `{key}`", path.display());
            Error::msg(match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("{said}: the key is not that of the certificate")
                }
                _ => said,
            })
            .with_source(error)
        })?;
        server.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(server)
    }
}

fn verifier(
    source: &Source<'_>,
    pem: &[u8],
    config: &Config,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for authority in source.certificates(pem)? {
        roots.add(authority).map_err(|e| {
            source
                .error("holds a certificate that cannot be an authority")
                .with_source(e)
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let builder = match config.client_auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|e| source.error("holds no usable authority").with_source(e))
}

// === impl Source ===

impl<'a> Source<'a> {
    fn new(path: &'a Path, section: &str, setting: &str) -> Self {
        Self {
            path,
            key: format!("{section}.{setting}"),
        }
    }

    fn error(&self, what: &str) -> Error {
        let Self { path, key } = self;
        Error::msg(format!("{}, set by `{key}`, {what}", path.display()))
    }

    fn read(&self) -> Result<Vec<u8>> {
        let failed = |error: io::Error| self.error("cannot be read").with_source(error);
        let length = fs::metadata(self.path).map_err(failed)?.len();
        if length > FILE_BYTES_MAX {
            return Err(self.error("is too large for certificates (4 MiB at most)"));
        }
        fs::read(self.path).map_err(failed)
    }

    fn certificates(&self, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = read.map_err(|e| self.error("is no valid PEM").with_source(e))?;
        if found.is_empty() {
            let what = "holds no certificate: it should have a block that begins with \
                        \"-----BEGIN CERTIFICATE-----\"";
            return Err(self.error(what));
        }
        Ok(found)
    }
}
