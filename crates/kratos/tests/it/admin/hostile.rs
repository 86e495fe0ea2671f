//! Who asks is no friend: web sites in a browser, clients that are broken, clients that say nothing.

use std::{net::SocketAddr, time::Duration};

use kratos::telemetry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{ask, config, error, exchange, ready, with_actions};

const JSON: &str = "content-type: application/json\r\n";
const PAUSE: &str = "/subscriptions/messages:orders:billing/pause";

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends bytes as they are; the start of what is answered. Who has said no whole request says no
/// more, in the end.
async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // Who refuses may close before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![0; 4096];
    let soon = timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
    let read = match soon {
        Ok(read) => read,
        Err(_waits) => {
            let _ = stream.shutdown().await;
            let read = timeout(PATIENCE, stream.read(&mut answer)).await;
            read.expect("it hangs")
        }
    };
    answer.truncate(read.unwrap_or_default());
    String::from_utf8_lossy(&answer).into_owned()
}

fn status_of(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.unwrap_or_default()
}

#[tokio::test]
async fn a_web_site_whose_name_means_this_machine_reads_and_does_nothing() {
    let (watched, consumer) = ready(with_actions()).await;
    let asked = async |host: &str, method: &str, path: &str| {
        let headers = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        let request = format!("{headers}{JSON}content-length: 2\r\n\r\n{{}}");
        raw(watched.addr, request.as_bytes()).await
    };
    for host in [
        "evil.example",
        "evil.example:9600",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost.",
        "0x7f.1",
        "2130706433",
    ] {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/status"),
            ("GET", "/config"),
            ("POST", PAUSE),
        ] {
            let answer = asked(host, method, path).await;
            assert_eq!(status_of(&answer), 403, "{host} {path}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                error(body).contains("neither an IP address nor localhost"),
                "{body}"
            );
            assert!(
                head.to_ascii_lowercase().contains("x-frame-options: deny"),
                "{head}"
            );
        }
    }
    assert!(consumer.done.lock().unwrap().is_empty());
    let port = watched.addr.port();
    for host in [
        format!("127.0.0.1:{port}"),
        "127.0.0.1".to_owned(),
        "localhost:1".to_owned(),
        "LOCALHOST".to_owned(),
        "[::1]:9600".to_owned(),
        "10.1.2.3".to_owned(),
    ] {
        let answer = asked(&host, "GET", "/status").await;
        assert_eq!(status_of(&answer), 200, "{host}: {answer}");
    }
    for path in ["http://evil.example/status", "https://evil.example/"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let answer = raw(watched.addr, request.as_bytes()).await;
        assert!((400..500).contains(&status_of(&answer)), "{answer}");
    }
    watched.stop().await;
}

#[tokio::test]
async fn names_of_a_network_are_answered_where_a_network_may_ask() {
    let open = kratos::admin::Config {
        addr: ([0, 0, 0, 0], 0).into(),
        ..config()
    };
    let (watched, _consumer) = ready(open).await;
    let addr = SocketAddr::from(([127, 0, 0, 1], watched.addr.port()));
    let request = b"GET /livez HTTP/1.1\r\nhost: pod.cluster.example\r\nconnection: close\r\n\r\n";
    assert_eq!(status_of(&raw(addr, request).await), 200);
    watched.stop().await;
}

#[tokio::test]
async fn what_changes_something_is_not_taken_from_pages_of_other_sites() {
    let (watched, consumer) = ready(with_actions()).await;
    let post = async |headers: &str| {
        let headers = format!("{JSON}{headers}");
        ask(watched.addr, "POST", PAUSE, &headers, b"{}").await
    };
    for headers in [
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\norigin: http://localhost\r\n",
        "origin: http://evil.example\r\n",
        "origin: http://localhost:1\r\n",
        "origin: null\r\n",
        "origin: ?\r\n",
    ] {
        let (status, body) = post(headers).await;
        assert_eq!(status, 403, "{headers}: {body}");
        assert!(error(&body).contains("another web site"), "{body}");
    }
    let preflight = exchange(
        watched.addr,
        "OPTIONS",
        PAUSE,
        "origin: http://evil.example\r\n",
        b"",
    );
    let preflight = preflight.await.to_ascii_lowercase();
    assert!(
        status_of(&preflight) == 405 && !preflight.contains("access-control"),
        "{preflight}"
    );
    assert!(consumer.done.lock().unwrap().is_empty());
    for headers in [
        "",
        "sec-fetch-site: same-origin\r\norigin: https://behind-a-proxy.example\r\n",
        "sec-fetch-site: none\r\n",
        "origin: http://localhost\r\n",
    ] {
        assert_eq!(post(headers).await.0, 200, "{headers}");
    }
    // An image of another site's page would have a broker count each letter as delivered.
    let letters = "/dead-letters/messages:orders:billing";
    let site = "sec-fetch-site: cross-site\r\n";
    let (status, body) = ask(watched.addr, "GET", letters, site, b"").await;
    assert_eq!(status, 403, "{body}");
    assert!(error(&body).contains("another web site"), "{body}");
    // A link to the page from elsewhere is a link.
    let link = ask(
        watched.addr,
        "GET",
        "/",
        "sec-fetch-site: cross-site\r\n",
        b"",
    );
    assert_eq!(link.await.0, 200);
    watched.stop().await;
}

/// What is sent, and the statuses that may come; 0 is a connection that is closed without a word.
const ODD: [(&str, &str, &[u16]); 31] = [
    ("no host", "GET /livez HTTP/1.1\r\n\r\n", &[400]),
    ("HTTP/1.0 needs none", "GET /livez HTTP/1.0\r\n\r\n", &[200]),
    (
        "two hosts",
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
        &[400],
    ),
    (
        "an odd host",
        "GET /livez HTTP/1.1\r\nhost: a b\r\n\r\n",
        &[400],
    ),
    (
        "an empty host",
        "GET /livez HTTP/1.1\r\nhost: \r\n\r\n",
        &[400],
    ),
    (
        "a host and a user",
        "GET /livez HTTP/1.1\r\nhost: u@evil.example\r\n\r\n",
        &[400, 403],
    ),
    ("no HTTP", "\0\0\0\0\r\n\r\n", &[400, 0]),
    (
        "a handshake of TLS",
        "\x16\x03\x01\x02\0\x01\0\x01",
        &[400, 0],
    ),
    (
        "an unknown version",
        "GET /livez HTTP/3.0\r\nhost: localhost\r\n\r\n",
        &[400, 0],
    ),
    (
        "an unknown method",
        "BREW /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[405],
    ),
    (
        "a proxy's method",
        "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost:1\r\n\r\n",
        &[400, 404, 405],
    ),
    (
        "everything",
        "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[400, 404, 405],
    ),
    (
        "no path",
        "GET  HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[400, 0],
    ),
    (
        "half an escape",
        "GET /subscriptions/%f/pause HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[405],
    ),
    (
        "up",
        "GET /documents/../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[404],
    ),
    (
        "up, escaped",
        "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[404],
    ),
    (
        "two slashes",
        "GET //livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[404],
    ),
    (
        "a slash behind",
        "GET /livez/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[404],
    ),
    (
        "capitals",
        "GET /LIVEZ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[404],
    ),
    (
        "an escaped route",
        "GET /%6civez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[200, 404],
    ),
    (
        "a zero",
        "GET /dead-letters/%00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[404],
    ),
    (
        "not UTF-8",
        "GET /dead-letters/%ff%fe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[400],
    ),
    (
        "an odd query",
        "GET /readyz?verbose=%ff&&&=%00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[200],
    ),
    (
        "a length that is none",
        "POST /subscriptions/x/pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        &[400],
    ),
    (
        "two lengths",
        "POST /subscriptions/x/pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        &[400],
    ),
    (
        "a length and chunks",
        "POST /subscriptions/x/pause HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        &[400],
    ),
    (
        "chunks that are none",
        "POST /subscriptions/x/pause HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        &[400],
    ),
    (
        "half a body",
        "POST /subscriptions/x/pause HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        &[400, 0],
    ),
    (
        "half a head",
        "GET /livez HTTP/1.1\r\nhost: local",
        &[400, 0],
    ),
    (
        "half a preface of HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM",
        &[400, 0],
    ),
    (
        "an upgrade",
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        &[200],
    ),
];

#[tokio::test]
async fn whatever_is_sent_is_answered_or_closed() {
    let (watched, consumer) = ready(with_actions()).await;
    for (what, request, expected) in ODD {
        let answer = raw(watched.addr, request.as_bytes()).await;
        let status = status_of(&answer);
        assert!(expected.contains(&status), "{what}: {answer}");
    }
    let long = "x".repeat(1024 * 1024);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nlong: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)),
    ] {
        let status = status_of(&raw(watched.addr, request.as_bytes()).await);
        assert!([0, 400, 414, 431].contains(&status), "{status}");
    }
    let deep = format!(
        "{{\"concurrency\": {}1{}}}",
        "[".repeat(9_000),
        "]".repeat(9_000)
    );
    let path = "/subscriptions/messages:orders:billing/concurrency";
    let (status, body) = ask(watched.addr, "POST", path, JSON, deep.as_bytes()).await;
    assert_eq!(status, 400, "{body}");
    assert_eq!(watched.get("/livez").await.0, 200);
    assert!(consumer.done.lock().unwrap().is_empty());
    watched.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_without_the_opt_in_not_waited_for() {
    let (watched, _consumer) = ready(with_actions()).await;
    let head =
        format!("POST {PAUSE} HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 2\r\n\r\n{{");
    let answer = async |addr| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 256];
        let read = timeout(PATIENCE, stream.read(&mut answer)).await;
        let read = read.expect("it hangs").unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let late = answer(watched.addr).await;
    assert_eq!(status_of(&late), 408, "{late}");
    watched.stop().await;

    let (watched, _consumer) = ready(config()).await;
    let begun = Instant::now();
    let refused = answer(watched.addr).await;
    assert_eq!(status_of(&refused), 403, "{refused}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "it waited for the body"
    );
    watched.stop().await;
}

#[tokio::test]
async fn a_thousand_connections_that_say_nothing_keep_nobody_waiting() {
    let (watched, _consumer) = ready(config()).await;
    let mut silent = Vec::new();
    let halves = [
        "",
        "GET /livez HTTP/1.1\r\nhost: local",
        "PRI * HTTP/2.0\r\n\r\n",
    ];
    for half in halves.iter().cycle().take(1_000) {
        let mut stream = TcpStream::connect(watched.addr).await.unwrap();
        let _ = stream.write_all(half.as_bytes()).await;
        silent.push(stream);
    }
    let begun = Instant::now();
    for _ in 0..5 {
        let answer = timeout(PATIENCE, watched.get("/livez")).await;
        assert_eq!(answer.expect("it waits").0, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    // So many stay, and no more.
    let mut open = 0;
    for stream in &mut silent {
        let read = timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await;
        open += usize::from(read.is_err());
    }
    assert!((1..=64).contains(&open), "{open} are open");
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_wait_for_a_lock_are_given_up_and_everything_else_answers() {
    let builder = telemetry::Telemetry::builder(&telemetry::Config::default()).unwrap();
    // Another test of this process may have done so before.
    let _either = builder.writer(std::io::sink).install();
    let (watched, consumer) = ready(config()).await;
    *consumer.lag.lock().unwrap() = Some(77);
    // The names that the dashboard and the alerts ask for.
    super::until("the metrics tell all that is known", async || {
        let (status, text) = watched.get("/metrics").await;
        let mut lines = text.lines();
        let lag =
            |line: &str| line.starts_with("kratos_subscription_lag{") && line.ends_with(" 77");
        status == 200 && lines.any(lag) && text.contains("kratos_subscription_in_flight")
    })
    .await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let _guard = consumer.lock.lock().unwrap();
        locked.send(()).unwrap();
        held.recv()
    });
    is_locked.await.unwrap();
    // What was seen a moment ago serves for as long.
    super::until("the metrics wait", async || {
        watched.get("/metrics").await.0 == 503
    })
    .await;
    let begun = Instant::now();
    let asked: Vec<_> = (0..6)
        .map(|_| tokio::spawn(super::get(watched.addr, "/metrics")))
        .collect();
    let quick = [
        "/livez",
        "/readyz",
        "/startupz",
        "/config",
        "/",
        "/documents",
    ];
    for path in quick {
        assert_eq!(watched.get(path).await.0, 200, "{path}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for asked in asked {
        let (status, body) = asked.await.unwrap();
        assert_eq!(status, 503);
        assert!(
            error(&body).contains("the metrics do not answer within 2 s"),
            "{body}"
        );
    }
    let (status, text) = watched.get("/readyz?verbose").await;
    assert!(
        status == 200 && text.contains("[+] subscriptions: the subscriptions do not answer"),
        "{text}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    release.send(()).unwrap();
    holder.join().unwrap().unwrap();
    super::until("the metrics are back", async || {
        watched.get("/metrics").await.0 == 200
    })
    .await;
    watched.stop().await;
}
