//! TLS between the client and a server behind a TLS terminator, in memory.

use std::{io, sync::Arc};

use http::Uri;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rocketmq_grpc::{Client, Config, Connector, Error, Message, ProducerConfig, Tls};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;

use crate::fake::{Fake, TOPIC};

const NAME: &str = "fake";

/// PEM.
struct Signed {
    certificate: String,
    key: String,
}

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        Signed {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn server(&self) -> ServerConfig {
        server(&self.sign(&params(NAME)), None)
    }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn server(identity: &Signed, clients: Option<&Ca>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&ca.pem)).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let mut config = builder
        .with_single_cert(vec![certificate(&identity.certificate)], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// To the server through a terminator of TLS.
fn terminated(fake: &Fake, config: ServerConfig) -> Connector {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let link = fake.link.clone();
    Connector::new(tower::service_fn(move |uri: Uri| {
        let (client, near) = tokio::io::duplex(64 << 10);
        let (acceptor, link) = (acceptor.clone(), link.clone());
        tokio::spawn(async move {
            let mut far = link.connect(uri.host().unwrap_or_default())?;
            let mut near = acceptor.accept(near).await?;
            copy_bidirectional(&mut near, &mut far).await?;
            Ok::<_, io::Error>(())
        });
        std::future::ready(Ok::<_, io::Error>(client))
    }))
}

async fn send(config: Config, connector: Connector) -> Result<(), Error> {
    let client = Client::with_connector(config, connector)?;
    let producer = client.producer(ProducerConfig::new().topic(TOPIC)).await?;
    producer.send(Message::new(TOPIC, "x")).await.map(drop)
}

async fn refusal(tls: Tls, server: ServerConfig) -> Error {
    let fake = Fake::start();
    let sent = send(Fake::config().tls(tls), terminated(&fake, server)).await;
    let error = sent.unwrap_err();
    assert!(error.is_incompatible(), "{error:?}");
    assert!(!error.is_retryable() && !error.may_be_stored(), "{error:?}");
    assert!(error.to_string().contains("fake:1"), "{error}");
    error
}

#[track_caller]
fn says(error: &Error, text: &str) {
    assert!(error.to_string().contains(text), "{error}");
}

#[tokio::test]
async fn a_server_that_the_given_ca_vouches_for_is_spoken_to() {
    let (fake, ca) = (Fake::start(), Ca::new());
    let tls = Tls::new().ca_pem(ca.pem.clone());
    send(Fake::config().tls(tls), terminated(&fake, ca.server()))
        .await
        .unwrap();
    assert_eq!(fake.calls("send"), 1);
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_pinned() {
    let fake = Fake::start();
    let key = KeyPair::generate().unwrap();
    let own = Signed {
        certificate: params(NAME).self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let tls = Tls::new().ca_pem(own.certificate.clone());
    let connector = terminated(&fake, server(&own, None));
    send(Fake::config().tls(tls), connector).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_nobody_trusted_signed_is_refused() {
    let error = refusal(Tls::new().ca_pem(Ca::new().pem), Ca::new().server()).await;
    says(&error, "Tls::ca_pem");
    // The roots of this system, if it has any, did not sign it either.
    let error = refusal(Tls::new(), Ca::new().server()).await;
    says(&error, "Tls::ca_pem");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    let ca = Ca::new();
    for (from, to, text) in [(2000, 2001, "has expired"), (2998, 2999, "not valid yet")] {
        let mut params = params(NAME);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let server = server(&ca.sign(&params), None);
        let error = refusal(Tls::new().ca_pem(ca.pem.clone()), server).await;
        says(&error, text);
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_it_is_the_name_asked_for() {
    let (fake, ca) = (Fake::start(), Ca::new());
    let other = || server(&ca.sign(&params("other.example")), None);
    let tls = Tls::new().ca_pem(ca.pem.clone());
    let error = refusal(tls.clone(), other()).await;
    says(&error, "Tls::server_name");
    says(&error, "other.example");
    let tls = tls.server_name("other.example");
    send(Fake::config().tls(tls), terminated(&fake, other()))
        .await
        .unwrap();
}

#[tokio::test]
async fn anything_is_accepted_if_that_is_asked_for() {
    let fake = Fake::start();
    let mut params = params("other.example");
    params.not_after = rcgen::date_time_ymd(2000, 1, 1);
    let server = server(&Ca::new().sign(&params), None);
    let tls = Tls::new().dangerously_accept_any_certificate();
    assert!(format!("{tls:?}").contains("ANYONE"));
    send(Fake::config().tls(tls), terminated(&fake, server))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_it_or_says_what_is_missing() {
    let (fake, ca) = (Fake::start(), Ca::new());
    let server = || server(&ca.sign(&params(NAME)), Some(&ca));
    let tls = Tls::new().ca_pem(ca.pem.clone());

    let error = refusal(tls.clone(), server()).await;
    says(&error, "wants a client certificate");
    says(&error, "Tls::client_identity_pem");

    let stranger = Ca::new().sign(&params("client"));
    let strange = tls
        .clone()
        .client_identity_pem(stranger.certificate, stranger.key.clone());
    assert!(!format!("{strange:?}").contains(stranger.key.lines().nth(1).unwrap()));
    let error = refusal(strange, server()).await;
    says(&error, "refuses this client's certificate");

    let known = ca.sign(&params("client"));
    let tls = tls.client_identity_pem(known.certificate, known.key);
    send(Fake::config().tls(tls), terminated(&fake, server()))
        .await
        .unwrap();
}

#[tokio::test]
async fn plaintext_to_a_tls_port_and_the_reverse_say_so() {
    let (fake, ca) = (Fake::start(), Ca::new());
    let error = send(Fake::config(), terminated(&fake, ca.server()))
        .await
        .unwrap_err();
    says(&error, "speaks TLS at this port");
    says(&error, "Config::tls");
    assert!(
        error.is_incompatible() && !error.is_retryable(),
        "{error:?}"
    );

    let tls = Tls::new().ca_pem(ca.pem);
    let error = send(Fake::config().tls(tls), fake.link.connector())
        .await
        .unwrap_err();
    says(&error, "does not speak TLS at this port");
    assert!(
        error.is_incompatible() && !error.is_retryable(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_port_that_closes_or_speaks_http_1_says_so() {
    let answering = |answer: &'static [u8]| {
        Connector::new(tower::service_fn(move |_: Uri| {
            let (client, mut server) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let _ = server.read(&mut [0; 256]).await;
                let _ = server.write_all(answer).await;
            });
            std::future::ready(Ok::<_, io::Error>(client))
        }))
    };
    let connector = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let error = send(Fake::config(), connector).await.unwrap_err();
    says(&error, "speaks HTTP/1");
    let error = send(Fake::config(), answering(b"")).await.unwrap_err();
    says(&error, "without a word");
    assert!(
        error.is_disconnected() && error.is_retryable(),
        "it may be restarting: {error:?}"
    );
}

#[test]
fn what_is_no_certificate_is_refused_before_anything_is_connected_to() {
    let ca = Ca::new();
    let (one, other) = (ca.sign(&params("one")), ca.sign(&params("other")));
    let broken = one.certificate.replace("MII", "!!!");
    for (tls, text) in [
        (Tls::new().ca_pem("x"), "has no certificate"),
        (Tls::new().ca_pem(broken), "no well-formed PEM"),
        (
            Tls::new().ca_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "cannot be used as a root",
        ),
        (
            Tls::new().client_identity_pem(one.certificate.clone(), "x"),
            "no PEM private key",
        ),
        (
            Tls::new().client_identity_pem("", one.key.clone()),
            "client certificate has no certificate",
        ),
        (
            Tls::new().client_identity_pem(one.certificate, other.key),
            "do not go together",
        ),
        (Tls::new().server_name("a name"), "no name of a server"),
    ] {
        let config = Config::new("fake:1").tls(tls);
        let error = Client::new(config).unwrap_err();
        assert!(error.is_invalid(), "{error:?}");
        says(&error, text);
    }
}
