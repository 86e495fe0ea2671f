//! TLS and plaintext on one port, and in memory.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rocketmq_devbroker::{Builder, Connector, DevBroker};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Endpoint;

use crate::client::{Client, id};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of the authority and its key, both PEM.
fn certificate(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["devbroker.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Trusts the authority, shows the certificate if there is one.
fn config(authority: &Authority, own: Option<&(String, String)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn handshake<I>(config: Arc<ClientConfig>, io: I) -> io::Result<TlsStream<I>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from("devbroker.test").unwrap();
    TlsConnector::from(config).connect(name, io).await
}

/// Connects in memory, and speaks TLS there.
#[derive(Clone)]
struct InMemoryTls(Connector, Arc<ClientConfig>);

impl tower_service::Service<http::Uri> for InMemoryTls {
    type Response = TokioIo<TlsStream<tokio::io::DuplexStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let (connected, config) = (self.0.connect(), Arc::clone(&self.1));
        Box::pin(async move { handshake(config, connected?).await.map(TokioIo::new) })
    }
}

/// Connects over the socket with TLS.
#[derive(Clone)]
struct SocketTls(std::net::SocketAddr, Arc<ClientConfig>);

impl tower_service::Service<http::Uri> for SocketTls {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let (addr, config) = (self.0, Arc::clone(&self.1));
        Box::pin(async move {
            let socket = TcpStream::connect(addr).await?;
            handshake(config, socket).await.map(TokioIo::new)
        })
    }
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://devbroker.test")
}

async fn start(builder: Builder) -> DevBroker {
    let broker = builder.topic("t", rocketmq_devbroker::TopicType::Normal);
    broker.listen(([127, 0, 0, 1], 0)).start().await.unwrap()
}

/// Sends over one client and receives over the same.
async fn round_trip(mut client: Client, message: &str, group: &str) {
    client.consume("t", group).await.unwrap();
    client.put("t", message).await;
    let received = client.receive("t", group).await;
    let ids = received.messages.iter().map(id);
    assert!(ids.into_iter().any(|id| id == message), "{received:?}");
}

#[tokio::test]
async fn tls_and_plaintext_share_a_port() {
    let authority = authority();
    let (cert, key) = certificate(&authority);
    let broker = start(DevBroker::builder().tls(cert, key)).await;
    let tls = SocketTls(broker.addr().unwrap(), config(&authority, None));
    let channel = endpoint().connect_with_connector(tls).await.unwrap();
    round_trip(Client::over(channel, "tls"), "1", "g1").await;
    round_trip(Client::dial(&broker, "plain").await, "2", "g2").await;
    broker.shutdown().await;
}

#[tokio::test]
async fn tls_and_plaintext_share_the_way_in_without_a_socket() {
    let authority = authority();
    let (cert, key) = certificate(&authority);
    let broker = DevBroker::builder().tls(cert, key).in_memory().unwrap();
    let tls = InMemoryTls(broker.connector(), config(&authority, None));
    let channel = endpoint().connect_with_connector(tls).await.unwrap();
    round_trip(Client::over(channel, "tls"), "1", "g1").await;
    round_trip(Client::embedded(&broker, "plain").await, "2", "g2").await;
}

#[tokio::test]
async fn a_client_must_show_a_certificate_that_the_authority_has_signed() {
    let authority = authority();
    let (cert, key) = certificate(&authority);
    let builder = DevBroker::builder()
        .tls(cert, key)
        .client_ca(authority.pem());
    let broker = start(builder).await;
    let addr = broker.addr().unwrap();

    let own = certificate(&authority);
    let known = SocketTls(addr, config(&authority, Some(&own)));
    let channel = endpoint().connect_with_connector(known).await.unwrap();
    round_trip(Client::over(channel, "known"), "1", "g").await;

    let stranger = certificate(&self::authority());
    for own in [None, Some(&stranger)] {
        let socket = TcpStream::connect(addr).await.unwrap();
        // With TLS 1.3 the client is done before the server has looked at its certificate.
        let refused = match handshake(config(&authority, own), socket).await {
            Ok(mut stream) => stream.read_u8().await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{own:?}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn plaintext_ends_where_client_certificates_are_asked_for() {
    let authority = authority();
    let (cert, key) = certificate(&authority);
    let builder = DevBroker::builder()
        .tls(cert, key)
        .client_ca(authority.pem());
    let broker = start(builder).await;
    let client = Client::dial(&broker, "plain").await;
    assert!(client.try_route("t").await.is_err());
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_no_tls_after_its_first_byte_is_cut_and_harms_nobody() {
    use tokio::io::AsyncWriteExt as _;

    let authority = authority();
    let (cert, key) = certificate(&authority);
    let broker = start(DevBroker::builder().tls(cert, key)).await;
    let mut socket = TcpStream::connect(broker.addr().unwrap()).await.unwrap();
    socket
        .write_all(&[0x16, 0, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let mut rest = Vec::new();
    // The end, orderly or not, is what counts.
    let _ = socket.read_to_end(&mut rest).await;
    round_trip(Client::dial(&broker, "plain").await, "1", "g").await;
    broker.shutdown().await;
}

#[test]
fn wrong_certificates_and_keys_are_told_at_the_start() {
    let authority = authority();
    let (cert, key) = certificate(&authority);
    let other = KeyPair::generate().unwrap().serialize_pem();
    let started = |builder: Builder| builder.in_memory().map(drop).unwrap_err().to_string();
    let tls = |cert: &str, key: &str| DevBroker::builder().tls(cert, key);

    assert!(started(tls("rubbish", &key)).contains("the certificate holds no PEM section"));
    assert!(started(tls(&key, &key)).contains("the certificate holds no PEM section"));
    let cut = &cert[..cert.len() / 2];
    assert!(
        started(tls(cut, &key)).contains("the certificate is no PEM"),
        "cut"
    );
    assert!(started(tls(&cert, "rubbish")).contains("the private key"));
    assert!(started(tls(&cert, &other)).contains("do not go together"));
    let roots = tls(&cert, &key).client_ca("rubbish");
    assert!(started(roots).contains("the authority of client certificates"));
    let alone = DevBroker::builder().client_ca(authority.pem());
    assert!(started(alone).contains("client certificates need TLS"));
}

#[test]
fn a_key_is_not_printed() {
    let (cert, key) = certificate(&authority());
    let printed = format!("{:?}", DevBroker::builder().tls(cert, key.clone()));
    assert!(!printed.contains("PRIVATE") && !printed.contains(&format!("{:?}", key.as_bytes())));
}
