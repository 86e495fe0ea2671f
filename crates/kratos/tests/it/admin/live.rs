//! Liveness: what is stuck is said, by a thread that is not.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use kratos::admin;

use super::{config, ready, until};

fn quick() -> admin::Config {
    admin::Config {
        stuck_after: Duration::from_secs(2),
        ..config()
    }
}

/// Without a runtime.
fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_blocked_runtime_is_told_and_every_route_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (watched, _consumer) = runtime.block_on(async {
        let watching = tokio::spawn(ready(quick()));
        watching.await.unwrap()
    });
    assert!(get(watched.addr, "/livez").starts_with("HTTP/1.1 200"));
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    runtime.spawn(async move { blocked.recv() });
    let mut livez = String::new();
    for _ in 0..50 {
        livez = get(watched.addr, "/livez?verbose");
        if livez.starts_with("HTTP/1.1 503") {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert!(
        livez.contains("[-] runtime: the runtime has not run for"),
        "{livez}"
    );
    for path in [
        "/",
        "/status",
        "/subscriptions",
        "/readyz?verbose",
        "/config",
    ] {
        assert!(
            get(watched.addr, path).starts_with("HTTP/1.1 200"),
            "{path}"
        );
    }
    assert!(get(watched.addr, "/status").contains("\"alive\":false"));
    unblock.send(()).unwrap();
    runtime.block_on(async {
        until("it is alive", async || watched.get("/livez").await.0 == 200).await;
        watched.stop().await;
    });
}

#[tokio::test]
async fn a_dispatcher_whose_heart_stands_still_or_that_is_stuck_is_named() {
    let (watched, consumer) = ready(quick()).await;
    assert_eq!(watched.get("/livez").await.0, 200, "it does not beat yet");
    consumer.pulse.lock().unwrap().last_beat = Some(Duration::from_secs(1));
    assert_eq!(watched.get("/livez").await.0, 200);
    consumer.pulse.lock().unwrap().last_beat = Some(Duration::from_secs(30));
    let (status, text) = watched.get("/livez").await;
    assert_eq!(
        (status, &*text),
        (
            503,
            "not alive: server messages: its dispatcher has not run for 30.0 s\n"
        )
    );
    {
        let mut pulse = consumer.pulse.lock().unwrap();
        pulse.last_beat = Some(Duration::ZERO);
        pulse.stuck = Some("messages are ready and lanes free".to_owned());
    }
    let (status, text) = watched.get("/livez?verbose").await;
    assert_eq!(status, 503);
    assert!(
        text.contains("[+] runtime\n[-] server messages: messages are ready"),
        "{text}"
    );
    let status = watched.json("/status").await;
    let reason = status["liveness"]["reason"].as_str().unwrap();
    assert!(reason.contains("lanes free"), "{reason}");
    consumer.pulse.lock().unwrap().stuck = None;
    assert_eq!(watched.get("/livez").await.0, 200);
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_never_released_hangs_no_answer() {
    let (watched, consumer) = ready(config()).await;
    let held = std::thread::scope(|scope| {
        let guard = consumer.lock.lock().unwrap();
        let addr = watched.addr;
        // More looks than there are threads for them.
        let looks: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || get(addr, "/subscriptions")))
            .collect();
        let status = get(addr, "/status");
        let livez = get(addr, "/livez");
        let answers: Vec<_> = looks.into_iter().map(|look| look.join().unwrap()).collect();
        drop(guard);
        (answers, status, livez)
    });
    let (answers, status, livez) = held;
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("do not answer within 2 s"), "{answer}");
    }
    assert!(
        status.starts_with("HTTP/1.1 200") && status.contains("\"subscriptions\":[]"),
        "{status}"
    );
    assert!(livez.starts_with("HTTP/1.1 200"), "{livez}");
    watched.stop().await;
}
