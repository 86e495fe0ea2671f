//! The admin server over the engine: what is stuck, what is only away, and a hand on it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use kratos::{App, Handle, Phase, ServerState, Signals, admin};
use kratos_broker::{Message, Publisher, Router, memory::Broker};

use crate::support::{server, subscription};

/// A request without a runtime: status line, headers and body.
fn ask(addr: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks until the answer has this in it.
fn until(addr: SocketAddr, path: &str, wanted: &str) -> String {
    let mut answer = String::new();
    for _ in 0..300 {
        answer = ask(addr, "GET", path, "");
        if answer.contains(wanted) {
            return answer;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("never {wanted:?}: {answer}");
}

fn app(broker: &Broker, router: Router) -> App {
    let config = admin::Config {
        addr: ([127, 0, 0, 1], 0).into(),
        actions: true,
        stuck_after: Duration::from_secs(2),
    };
    App::new()
        .signals(Signals::none())
        .server(admin::Server::new(config))
        .server(server(broker, router))
}

async fn ready(handle: &Handle) -> SocketAddr {
    handle.reached(Phase::Ready).await;
    handle.servers()[0].endpoints[0].addr()
}

#[test]
fn h1_a_stuck_dispatcher_is_not_alive_and_an_absent_broker_is_no_reason() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let broker = Broker::new();
    let (release, gate) = channel::<()>();
    let gate: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(gate));
    // What nobody should do: it blocks the thread that all else runs on.
    let block = move || {
        let gate = gate.clone();
        async move {
            let _released = gate.lock().unwrap().recv();
        }
    };
    let app = app(&broker, Router::new().subscribe_with(subscription(), block));
    let handle = app.handle();
    let run = runtime.spawn(app.run());
    let addr = runtime.block_on(ready(&handle));
    until(addr, "/livez?verbose", "[+] server memory\nalive");

    broker.disconnect();
    until(addr, "/status", "cannot receive from topic t");
    for _ in 0..60 {
        let alive = ask(addr, "GET", "/livez", "");
        assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
        let ready = ask(addr, "GET", "/readyz", "");
        assert!(ready.starts_with("HTTP/1.1 200"), "degraded: {ready}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    until(addr, "/readyz?verbose", "[+] server memory: degraded");
    broker.reconnect();

    let publisher = Publisher::new(broker);
    runtime.block_on(async { publisher.publish(Message::new("t", "x")).await.unwrap() });
    // Whichever beat was due first is missed first.
    let dead = until(addr, "/livez?verbose", "[-] runtime: ");
    assert!(dead.starts_with("HTTP/1.1 503"), "{dead}");
    until(
        addr,
        "/livez?verbose",
        "[-] server memory: its dispatcher has not run",
    );
    let status = ask(addr, "GET", "/status", "");
    assert!(status.contains("\"in_flight\":1"), "it is seen: {status}");

    drop(release);
    until(addr, "/livez", "HTTP/1.1 200");
    handle.stop();
    runtime.block_on(run).unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_paused_resumed_and_resized_over_http() {
    let broker = Broker::new();
    let router = Router::new().subscribe_with(subscription(), async || {});
    let app = app(&broker, router);
    let handle = app.handle();
    let run = tokio::spawn(app.run());
    let addr = ready(&handle).await;
    let steps = tokio::task::spawn_blocking(move || {
        until(addr, "/subscriptions", "\"id\":\"memory:t:g\"");
        for (what, body, seen) in [
            ("pause", "{}", "\"state\":\"paused\""),
            ("resume", "{}", "\"state\":\"running\""),
            ("concurrency", r#"{"concurrency": 3}"#, "\"concurrency\":3"),
        ] {
            let path = format!("/subscriptions/memory:t:g/{what}");
            let answer = ask(addr, "POST", &path, body);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(ask(addr, "GET", "/status", "").contains(seen), "{what}");
        }
        let path = "/subscriptions/memory:t:g/concurrency";
        let many = ask(addr, "POST", path, r#"{"concurrency": 5000}"#);
        assert!(
            many.starts_with("HTTP/1.1 400") && many.contains("1 to 4096"),
            "{many}"
        );
    });
    steps.await.unwrap();
    handle.stop();
    run.await.unwrap().unwrap();
    let ended = handle.servers();
    assert!(
        ended
            .iter()
            .all(|server| server.state == ServerState::Ended)
    );
}
