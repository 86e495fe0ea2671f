//! The HTTP server.

use std::{future::pending, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::Request,
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use kratos::{AppInfo, Server as _, http};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

use crate::{
    servers::{http_server, read_all, run},
    support::{Events, app, chain, eventually},
};

async fn slow() -> &'static str {
    sleep(Duration::from_millis(600)).await;
    "slow but sure"
}

async fn endless() -> Body {
    let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"data: 1\n\n"))]);
    Body::from_stream(first.chain(stream::pending()))
}

#[tokio::test]
async fn handlers_see_the_app_info() {
    let name = |Extension(info): Extension<AppInfo>| async move { info.name().to_owned() };
    let running = run(app().server(http_server(Router::new().route("/", get(name))))).await;
    let answer = running.get("/", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("echo"),
        "{answer}"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_the_client_told_to_close() {
    let running = run(app().server(http_server(Router::new().route("/slow", get(slow))))).await;
    let mut stream = running.connect().await;
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(100)).await;
    let (answer, stopped) = tokio::join!(read_all(&mut stream), running.stop());
    stopped.unwrap();
    assert!(answer.ends_with("slow but sure"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
}

/// The client wrote while the server began to stop: HTTP/1 has no way to tell it not to.
#[tokio::test]
async fn a_request_that_crosses_with_the_stop_is_answered() {
    let hello = get(|| async { "hello" });
    let running = run(app().server(http_server(Router::new().route("/", hello)))).await;
    let mut used = running.connect().await;
    let mut fresh = running.connect().await;
    used.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 512];
    let read = used.read(&mut first).await.unwrap();
    assert!(read > 0);

    running.handle.stop();
    sleep(Duration::from_millis(50)).await;
    for stream in [&mut used, &mut fresh] {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let answer = read_all(stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
            "{answer:?}"
        );
    }
    running.stop().await.unwrap();
}

/// S10: what a handler uses is open for as long as the handler runs.
#[tokio::test]
async fn a_resource_outlives_the_handlers_that_use_it() {
    let events = Events::default();
    let seen = events.clone();
    let publish = get(|| async move {
        sleep(Duration::from_millis(400)).await;
        if seen.has("close broker") {
            "lost"
        } else {
            "published"
        }
    });
    let app = app()
        .resource(events.resource("broker"))
        .server(http_server(Router::new().route("/", publish)));
    let running = run(app).await;
    let mut stream = running.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    let (answer, stopped) = tokio::join!(read_all(&mut stream), running.stop());
    stopped.unwrap();
    assert!(answer.ends_with("published"), "{answer}");
    assert!(events.has("closed broker"));
}

/// S5.
#[tokio::test]
async fn idle_connections_do_not_hold_the_stop() {
    let running = run(app().server(http_server(Router::new()))).await;
    let mut used = running.connect().await;
    used.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let _answered = used.read(&mut [0; 512]).await.unwrap();
    let _silent = running.connect().await;
    let begun = Instant::now();
    running.stop().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_said_gives_its_place_back() {
    let config = http::Config {
        addr: ([127, 0, 0, 1], 0).into(),
        connections_max: 1,
        header_read_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let router = Router::new().route("/", get(|| async { "there is room" }));
    let running = run(app().server(http::Server::new(config, router))).await;
    for half in [&b""[..], b"P", b"PRI * HTTP/2.0", b"GET / HTTP/1.1\r\nhos"] {
        let mut silent = running.connect().await;
        silent.write_all(half).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), running.get("/", "")).await;
        let answer = answer.expect("it holds its place");
        assert!(answer.ends_with("there is room"), "{answer}");
    }
    running.stop().await.unwrap();
}

/// S11: neither a handler that never answers nor a response that never ends.
#[tokio::test]
async fn a_hung_request_or_response_ends_at_the_deadline_and_is_named() {
    let hung = post(|_: Request| pending::<&'static str>());
    let router = Router::new()
        .route("/hung", hung)
        .route("/events", get(endless));
    let app = app()
        .stop_timeout(Duration::from_secs(1))
        .server(http_server(router));
    let running = run(app).await;
    let mut hung = running.connect().await;
    hung.write_all(b"POST /hung?token=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let mut events = running.connect().await;
    events
        .write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut seen = vec![0; 512];
    let read = events.read(&mut seen).await.unwrap();
    assert!(read > 0);

    let begun = Instant::now();
    let error = running.stop().await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() > Duration::from_millis(700),
        "{:?}",
        begun.elapsed()
    );
    let mut ids = error.abandoned_ids().to_vec();
    ids.sort();
    assert_eq!(ids, ["GET /events", "POST /hung"], "{}", chain(&error));
}

#[tokio::test]
async fn a_panic_answers_500_and_the_server_goes_on() {
    async fn broken() -> &'static str {
        panic!("broken handler")
    }
    let router = Router::new()
        .route("/broken", get(broken))
        .route("/", get(|| async { "fine" }));
    let running = run(app().server(http_server(router))).await;
    assert!(running.get("/broken", "").await.starts_with("HTTP/1.1 500"));
    assert!(running.get("/", "").await.ends_with("fine"));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_names_server_and_address_and_what_to_do() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let server = http::Server::new(
        http::Config {
            addr,
            ..Default::default()
        },
        Router::new(),
    );
    let error = app().server(server).run().await.unwrap_err();
    let message = chain(&error);
    for part in [
        "server `http`",
        &addr.to_string(),
        "`http.addr`",
        "KRATOS_HTTP__ADDR",
    ] {
        assert!(message.contains(part), "no {part} in {message}");
    }
}

/// S7: whoever looks at readiness knows before a connection is refused.
#[tokio::test]
async fn readiness_is_false_before_the_last_accept() {
    let router = Router::new().route("/", get(|| async { "here" }));
    let app = app()
        .drain_delay(Duration::from_millis(300))
        .server(http_server(router));
    let running = run(app).await;
    running.handle.stop();
    eventually("unready", || !running.handle.is_ready()).await;
    assert!(running.get("/", "").await.ends_with("here"));
    let addr = running.addr;
    running.stop().await.unwrap();
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

/// Connections in the kernel's queue were accepted as far as their clients know.
#[tokio::test]
async fn connections_beyond_the_maximum_wait_and_are_not_lost() {
    let addr = ([127, 0, 0, 1], 0).into();
    let config = http::Config {
        addr,
        connections_max: 1,
        ..Default::default()
    };
    let router = Router::new().route("/", get(|| async { "at last" }));
    let running = run(app().server(http::Server::new(config, router))).await;
    let _holds_the_slot = running.connect().await;
    sleep(Duration::from_millis(50)).await;
    let mut waiting = running.connect().await;
    waiting
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let (answer, stopped) = tokio::join!(read_all(&mut waiting), running.stop());
    stopped.unwrap();
    assert!(answer.ends_with("at last"), "{answer:?}");
}

#[test]
fn an_openapi_document_names_the_routes() {
    let document = serde_json::json!({
        "paths": {"/report": {"summary": "one", "post": {}, "get": {}}},
    });
    let server = http::Server::new(http::Config::default(), Router::new()).openapi(document);
    let described = server.describe();
    let routes: Vec<_> = described
        .entries()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(routes, ["route GET /report", "route POST /report"]);
    assert_eq!(described.documents()[0].name(), "openapi");
}
