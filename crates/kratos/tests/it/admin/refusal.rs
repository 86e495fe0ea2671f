//! Whatever is wrong with a request is said, and nothing is done.

use serde_json::json;

use super::{Watched, ask, config, error, exchange, ready, with_actions};

const GETS: [&str; 14] = [
    "/",
    "/documents",
    "/livez",
    "/readyz",
    "/startupz",
    "/metrics",
    "/status",
    "/subscriptions",
    "/dead-letters/x",
    "/config",
    "/log-level",
    "/asyncapi.json",
    "/openapi.json",
    "/livez?verbose",
];

const POSTS: [(&str, &str); 4] = [
    ("/subscriptions/messages:orders:billing/pause", "{}"),
    ("/subscriptions/messages:orders:billing/resume", "{}"),
    (
        "/subscriptions/messages:orders:billing/concurrency",
        r#"{"concurrency": 4}"#,
    ),
    ("/dead-letters/messages:orders:billing/replay", "{}"),
];

async fn refused(watched: &Watched, method: &str, path: &str, headers: &str, body: &[u8]) -> u16 {
    let (status, body) = ask(watched.addr, method, path, headers, body).await;
    assert!(
        (400..500).contains(&status),
        "{method} {path}: {status} {body}"
    );
    assert!(!error(&body).is_empty(), "{body}");
    status
}

#[tokio::test]
async fn a_wrong_method_is_refused_on_every_route() {
    let (watched, consumer) = ready(with_actions()).await;
    for path in GETS {
        assert_eq!(
            refused(&watched, "DELETE", path, "", b"").await,
            405,
            "{path}"
        );
        assert_eq!(
            refused(&watched, "POST", path, "", b"{}").await,
            405,
            "{path}"
        );
    }
    for (path, _) in POSTS {
        assert_eq!(refused(&watched, "GET", path, "", b"").await, 405, "{path}");
        assert_eq!(
            refused(&watched, "PUT", path, "", b"{}").await,
            405,
            "{path}"
        );
    }
    let answer = exchange(watched.addr, "GET", POSTS[0].0, "", b"").await;
    assert!(
        answer.to_ascii_lowercase().contains("\r\nallow: post"),
        "{answer}"
    );
    assert!(consumer.done.lock().unwrap().is_empty());
    watched.stop().await;
}

#[tokio::test]
async fn nothing_is_done_without_the_opt_in() {
    let (watched, consumer) = ready(config()).await;
    let json = "content-type: application/json\r\n";
    for (path, body) in POSTS {
        let status = refused(&watched, "POST", path, json, body.as_bytes()).await;
        assert_eq!(status, 403, "{path}");
    }
    // A broker counts what is read of them.
    let letters = "/dead-letters/messages:orders:billing";
    assert_eq!(refused(&watched, "GET", letters, "", b"").await, 403);
    let level = br#"{"log_level": "debug"}"#;
    assert_eq!(
        refused(&watched, "PUT", "/log-level", json, level).await,
        403
    );
    assert!(consumer.done.lock().unwrap().is_empty());
    watched.stop().await;
}

#[tokio::test]
async fn a_body_that_is_huge_odd_or_no_json_is_refused_on_every_route() {
    let (watched, consumer) = ready(with_actions()).await;
    let json = "content-type: application/json\r\n";
    let huge = vec![b' '; 65 * 1024];
    for (path, good) in POSTS {
        assert_eq!(
            refused(&watched, "POST", path, json, &huge).await,
            413,
            "{path}"
        );
        for bad in [
            &b""[..],
            b"{",
            b"[1]",
            b"null",
            b"\xff\xfe",
            br#"{"surprise": 1}"#,
            br#"{"concurrency": -1}"#,
            br#"{"concurrency": "8"}"#,
            br#"{"at_most": 0}"#,
            br#"{"at_most": 1e9}"#,
        ] {
            let status = refused(&watched, "POST", path, json, bad).await;
            assert_eq!(status, 400, "{path} {}", String::from_utf8_lossy(bad));
        }
        for kind in [
            "",
            "content-type: text/plain\r\n",
            "content-type: multipart/form-data\r\n",
        ] {
            let status = refused(&watched, "POST", path, kind, good.as_bytes()).await;
            assert_eq!(status, 415, "{path}");
        }
    }
    let level = "/log-level";
    assert_eq!(refused(&watched, "PUT", level, json, &huge).await, 413);
    assert_eq!(refused(&watched, "PUT", level, "", b"info").await, 415);
    for bad in [&b"info"[..], b"\"info\"", b"{}", br#"{"log_level": 7}"#] {
        assert_eq!(refused(&watched, "PUT", level, json, bad).await, 400);
    }
    assert!(consumer.done.lock().unwrap().is_empty());
    watched.stop().await;
}

#[tokio::test]
async fn an_unknown_id_or_path_is_refused_on_every_route() {
    let (watched, _consumer) = ready(with_actions()).await;
    let json = "content-type: application/json\r\n";
    for (path, body) in POSTS {
        for id in [
            "nobody",
            "%20",
            "a%2Fb",
            "%F0%9F%92%A5",
            "messages:orders:billin",
        ] {
            let path = path.replace("messages:orders:billing", id);
            let status = refused(&watched, "POST", &path, json, body.as_bytes()).await;
            assert_eq!(status, 404, "{path}");
        }
        let path = path.replace("messages:orders:billing", "%ff");
        let status = refused(&watched, "POST", &path, json, body.as_bytes()).await;
        assert_eq!(status, 400, "{path}: no UTF-8");
    }
    for path in [
        "/dead-letters/nobody",
        "/nothing",
        "/status/",
        "/subscriptions/x",
        "/../etc",
    ] {
        assert_eq!(refused(&watched, "GET", path, "", b"").await, 404, "{path}");
    }
    let long = format!("/{}", "x".repeat(4_000));
    assert_eq!(refused(&watched, "GET", &long, "", b"").await, 404);
    for name in ["asyncapi", "openapi"] {
        let (status, body) = watched.get(&format!("/{name}.json")).await;
        assert_eq!(status, 404);
        assert!(error(&body).contains(name), "{body}");
    }
    watched.stop().await;
}

#[tokio::test]
async fn what_the_server_refuses_is_told_as_it_says_it() {
    let (watched, consumer) = ready(with_actions()).await;
    let path = "/subscriptions/messages:orders:billing/concurrency";
    let (status, body) = watched.post(path, r#"{"concurrency": 0}"#).await;
    assert_eq!((status, &*error(&body)), (400, "concurrency is 1 to 8"));
    let (status, body) = watched.post(path, r#"{"concurrency": 99}"#).await;
    assert_eq!((status, &*error(&body)), (409, "it is stopping"));
    let (status, body) = watched.get("/dead-letters/messages:orders:billing").await;
    assert_eq!(status, 404);
    assert!(error(&body).contains("cannot list dead letters"), "{body}");

    let (status, body) = watched.post(path, r#"{"concurrency": 4}"#).await;
    assert_eq!((status, body), (200, json!({"done": true}).to_string()));
    for what in ["pause", "resume"] {
        let path = format!("/subscriptions/messages%3Aorders:billing/{what}");
        assert_eq!(watched.post(&path, "{}").await.0, 200);
    }
    let replay = "/dead-letters/messages:orders:billing/replay";
    let (status, body) = watched.post(replay, r#"{"at_most": 7}"#).await;
    assert_eq!((status, body), (200, json!({"replayed": 7}).to_string()));
    assert_eq!(consumer.done.lock().unwrap().len(), 3);
    watched.stop().await;
}
