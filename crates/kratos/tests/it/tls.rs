//! TLS of the HTTP and gRPC servers.

mod authority;

use std::{net::SocketAddr, time::Duration};

use axum::{Extension, Router, routing::get};
use hyper_util::rt::TokioIo;
use kratos::{
    Handle, grpc, http,
    tls::{self, ClientAuth, ClientCertificates},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use self::authority::{Authority, Files, secured, shown};
use crate::{
    servers::{Echo, Running, call, run},
    support::{app, chain},
};

/// Longer than any step of these tests takes.
const SOON: Duration = Duration::from_secs(10);
const HTTP: &[u8] = b"http/1.1";
const H2: &[u8] = b"h2";

fn routes() -> Router {
    let who = |shown: Option<Extension<ClientCertificates>>| async move {
        match shown {
            Some(Extension(shown)) => format!("known by {} certificate", shown.chain().count()),
            None => "unknown".to_owned(),
        }
    };
    Router::new().route("/who", get(who))
}

fn http_server(tls: tls::Config) -> http::Server {
    let config = http::Config {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: Some(tls),
        ..Default::default()
    };
    http::Server::new(config, routes())
}

async fn serve(tls: tls::Config) -> Running {
    run(app().server(http_server(tls))).await
}

async fn connect(
    running: &Running,
    client: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    secured(client, running.connect().await).await
}

/// A request on a connection that stays open.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream
        .write_all(b"GET /who HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    let mut answer = String::new();
    let mut some = [0; 1024];
    while !answer.contains("nown") {
        let read = stream.read(&mut some).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    Ok(answer)
}

fn served_certificate(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].to_vec()
}

/// The error of an App whose HTTP server has these settings.
async fn refused(tls: tls::Config) -> String {
    let app = app().server(http_server(tls));
    chain(
        &tokio::time::timeout(SOON, app.run())
            .await
            .unwrap()
            .unwrap_err(),
    )
}

#[tokio::test]
async fn a_request_over_tls_is_answered() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue("localhost"));
    let running = serve(files.config()).await;
    let mut stream = connect(&running, &authority.client(None, HTTP))
        .await
        .unwrap();
    let answer = ask(&mut stream).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("unknown"),
        "{answer}"
    );
    drop(stream);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn endpoints_say_that_they_are_secure() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue("localhost"));
    let (tell, told) = tokio::sync::oneshot::channel();
    let config = grpc::Config {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: Some(files.config()),
        ..Default::default()
    };
    let app = app()
        .server(http_server(files.config()))
        .server(grpc::Server::new(config))
        .after_start("tell", |cx| async move {
            let endpoints = cx.info().endpoints();
            let _ = tell.send(
                endpoints
                    .iter()
                    .map(|e| e.scheme().to_owned())
                    .collect::<Vec<_>>(),
            );
        });
    let handle: Handle = app.handle();
    let task = tokio::spawn(app.run());
    assert_eq!(told.await.unwrap(), ["https", "grpcs"]);
    handle.stop();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn grpc_is_served_over_tls() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue("localhost"));
    let config = grpc::Config {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: Some(files.config()),
        ..Default::default()
    };
    let running = run(app().server(grpc::Server::new(config).add_service(Echo))).await;
    let client = authority.client(None, H2);
    let addr = running.addr;
    let connector = service_fn(move |_| {
        let client = client.clone();
        async move {
            let stream = TcpStream::connect(addr).await?;
            Ok::<_, std::io::Error>(TokioIo::new(secured(&client, stream).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel: Channel = endpoint.connect_with_connector(connector).await.unwrap();
    let answer = call(channel.clone(), "/test.Echo/Name").await.unwrap();
    assert!(answer.starts_with("echo"), "{answer}");
    drop(channel);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_shows_the_certificate_that_is_required() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.issue("localhost"));
    let running = serve(files.with_ca(&authority)).await;

    let own = authority.issue("a-client");
    let mut stream = connect(&running, &authority.client(Some(&own), HTTP))
        .await
        .unwrap();
    let answer = ask(&mut stream).await.unwrap();
    assert!(answer.ends_with("known by 1 certificate"), "{answer}");

    let forged = foreign.issue("a-client");
    let expired = authority.issue_expired("a-client");
    for own in [None, Some(&forged), Some(&expired)] {
        // With TLS 1.3 the client hears of the refusal after its own half of the handshake.
        let refused = match connect(&running, &authority.client(own, HTTP)).await {
            Ok(mut stream) => ask(&mut stream).await.is_err(),
            Err(_) => true,
        };
        assert!(
            refused,
            "answered a client with certificate: {}",
            own.is_some()
        );
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_optional_certificate_may_be_left_out_but_not_forged() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.issue("localhost"));
    let config = tls::Config {
        client_auth: ClientAuth::Optional,
        ..files.with_ca(&authority)
    };
    let running = serve(config).await;

    let mut stream = connect(&running, &authority.client(None, HTTP))
        .await
        .unwrap();
    assert!(ask(&mut stream).await.unwrap().ends_with("unknown"));
    let own = authority.issue("a-client");
    let mut stream = connect(&running, &authority.client(Some(&own), HTTP))
        .await
        .unwrap();
    assert!(ask(&mut stream).await.unwrap().contains("known by 1"));
    let forged = foreign.issue("a-client");
    let refused = match connect(&running, &authority.client(Some(&forged), HTTP)).await {
        Ok(mut stream) => ask(&mut stream).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn renewed_certificates_are_served_without_a_restart() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue("localhost"));
    let config = tls::Config {
        reload_interval: Duration::from_millis(500),
        ..files.config()
    };
    let running = serve(config).await;
    let client = authority.client(None, HTTP);
    let mut before = connect(&running, &client).await.unwrap();
    let old = served_certificate(&before);

    // First one that does not work, as while two files are being written: the old one stays.
    let renewed = authority.issue("localhost");
    std::fs::write(files.cert(), &renewed.cert).unwrap();
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        let stream = connect(&running, &client).await.unwrap();
        assert_eq!(served_certificate(&stream), old);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    files.write(&renewed);
    let deadline = Instant::now() + SOON;
    loop {
        let mut stream = connect(&running, &client).await.unwrap();
        assert!(ask(&mut stream).await.unwrap().starts_with("HTTP/1.1 200"));
        if served_certificate(&stream) != old {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the old certificate is served for ever"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ask(&mut before).await.unwrap().starts_with("HTTP/1.1 200"));
    drop(before);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_or_wrong_file_ends_the_start_with_its_name() {
    let authority = Authority::new();
    let (one, other) = (authority.issue("localhost"), authority.issue("localhost"));
    let files = Files::new(&one);

    let lost = files.path("lost.crt");
    let error = refused(tls::Config::new(&lost, files.key())).await;
    assert!(
        error.contains(&shown(&lost)) && error.contains("`http.tls.cert`"),
        "{error}"
    );
    assert!(error.contains("No such file"), "{error}");

    let lost = files.path("lost.key");
    let error = refused(tls::Config::new(files.cert(), &lost)).await;
    assert!(
        error.contains(&shown(&lost)) && error.contains("`http.tls.key`"),
        "{error}"
    );

    let error = refused(tls::Config::new(files.key(), files.key())).await;
    assert!(error.contains("holds no certificate"), "{error}");

    let error = refused(tls::Config::new(files.cert(), files.cert())).await;
    assert!(error.contains("holds no private key"), "{error}");

    let foreign = files.path("foreign.key");
    std::fs::write(&foreign, &other.key).unwrap();
    let error = refused(tls::Config::new(files.cert(), &foreign)).await;
    assert!(
        error.contains("the key is not that of the certificate"),
        "{error}"
    );
    assert!(error.contains(&shown(&foreign)), "{error}");

    let rubbish = files.path("rubbish.crt");
    std::fs::write(&rubbish, [0xff; 100]).unwrap();
    let config = tls::Config {
        client_ca: Some(rubbish.clone()),
        ..files.config()
    };
    let error = refused(config).await;
    assert!(error.contains(&shown(&rubbish)), "{error}");
    assert!(error.contains("`http.tls.client_ca`"), "{error}");

    let cut = files.path("cut.crt");
    std::fs::write(&cut, &one.cert[..one.cert.len() / 2]).unwrap();
    let error = refused(tls::Config::new(&cut, files.key())).await;
    assert!(error.contains(&shown(&cut)), "{error}");
}

#[tokio::test]
async fn a_client_of_plain_http_is_told_to_use_tls() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue("localhost"));
    let running = serve(files.config()).await;
    let answer = running.get("/who", "").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.ends_with("this port speaks TLS: use https, not http://\n"),
        "{answer}"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_never_ends_holds_neither_its_place_nor_the_stop() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue("localhost"));
    let config = tls::Config {
        handshake_timeout: Duration::from_millis(300),
        ..files.config()
    };
    let running = serve(config).await;
    let mut silent = running.connect().await;
    let read = tokio::time::timeout(SOON, silent.read(&mut [0; 1])).await;
    assert!(
        matches!(read, Ok(Ok(0) | Err(_))),
        "the connection stays open: {read:?}"
    );
    running.stop().await.unwrap();

    let running = serve(files.config()).await;
    let mut silent = running.connect().await;
    silent.write_all(&[0x16, 3, 1]).await.unwrap();
    let before = Instant::now();
    running.stop().await.unwrap();
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test]
async fn handshakes_that_hang_delay_nobody_else() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue("localhost"));
    let running = serve(files.config()).await;
    let mut hanging = Vec::new();
    for n in 0..50_u8 {
        let mut stream = running.connect().await;
        // None, one byte, or the head of a record that never comes.
        stream
            .write_all(&[0x16, 3, 1, 2, 0][..usize::from(n % 6).min(5)])
            .await
            .unwrap();
        hanging.push(stream);
    }
    let asking = async {
        let mut stream = connect(&running, &authority.client(None, HTTP))
            .await
            .unwrap();
        ask(&mut stream).await.unwrap()
    };
    // Far less than a handshake may take.
    let answer = tokio::time::timeout(Duration::from_secs(5), asking).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    drop(hanging);
    running.stop().await.unwrap();
}
