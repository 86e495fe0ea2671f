//! What can happen to a connection.

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rocketmq_admin::{Admin, Config};
use tokio::time::{Instant, timeout};

use crate::fake::{Act, Fake, LONG, SHORT};

const EMPTY: &str = r#"{"brokerAddrTable":{}}"#;

fn empty() -> Act {
    Act::Body(EMPTY.to_owned())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let server = Fake::start(|_, _| empty()).await;
    let address = server.address().to_owned();
    drop(server);
    let error = Admin::new(address.as_str())
        .unwrap()
        .cluster()
        .await
        .unwrap_err();
    assert!(error.is_disconnected() && error.is_retryable(), "{error}");
    assert_eq!(error.address(), Some(address.as_str()));
    assert_eq!((error.broker(), error.request_code()), (None, Some(106)));
    assert!(
        error.source().is_some() && error.to_string().contains(&address),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_a_timeout_and_the_next_call_connects_anew() {
    let server = Fake::start(|_, connection| match connection {
        0 => Act::Silence,
        _ => empty(),
    })
    .await;
    let admin = server.admin_within(SHORT);
    let start = Instant::now();
    let error = admin.cluster().await.unwrap_err();
    assert!(error.is_timeout() && error.is_retryable(), "{error}");
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG);
    // Half-open: the silent connection is not used again.
    assert!(admin.cluster().await.unwrap().is_empty());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn one_slow_answer_does_not_cost_the_others_their_connection() {
    let server = Fake::start(|code, _| match code {
        105 => Act::Silence,
        _ => empty(),
    })
    .await;
    let admin = server.admin_within(SHORT * 3);
    let route = admin.wait_for_topic("t", SHORT * 3);
    let lively = async {
        for _ in 0..8 {
            admin.cluster().await.unwrap();
            tokio::time::sleep(SHORT / 2).await;
        }
    };
    let (route, ()) = tokio::join!(route, lively);
    assert!(route.unwrap_err().is_timeout());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn many_calls_share_one_connection_and_get_their_own_answers() {
    let brokers = Fake::start(|_, _| Act::Body(String::new())).await;
    let server = Fake::name_server(&[("a", &brokers)]).await;
    let admin = server.admin();
    let calls = (0..50).map(|_| admin.cluster());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap()[0].name, "a");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_opened_again_unseen() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let server = Fake::start(move |_, connection| {
        // The first connection dies with its second request.
        match (connection, count.fetch_add(1, Ordering::Relaxed)) {
            (0, 1) => Act::Close,
            _ => empty(),
        }
    })
    .await;
    let admin = server.admin();
    admin.cluster().await.unwrap();
    admin.cluster().await.unwrap();
    assert_eq!(
        (server.connections(), calls.load(Ordering::Relaxed)),
        (2, 3)
    );
}

#[tokio::test]
async fn a_server_that_closes_every_connection_is_an_error() {
    let server = Fake::start(|_, _| Act::Close).await;
    let error = timeout(LONG, server.admin().cluster())
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.is_disconnected() && error.is_retryable(), "{error}");
    // Opened for this call, so no second try.
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn half_an_answer_is_a_timeout() {
    let server = Fake::start(|_, _| Act::Half).await;
    let error = server.admin_within(SHORT).cluster().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn an_answer_in_pieces_is_an_answer() {
    let server = Fake::start(|_, _| Act::Slowly(EMPTY.to_owned())).await;
    assert!(server.admin().cluster().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_server_says_besides_is_ignored() {
    let server = Fake::start(|_, _| Act::Chatter(EMPTY.to_owned())).await;
    let admin = server.admin();
    assert!(admin.cluster().await.unwrap().is_empty());
    assert!(admin.cluster().await.unwrap().is_empty());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn rubbish_is_told_from_a_lost_connection() {
    for rubbish in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0; 64],
        // A header of another type, one that is longer than its frame, one that is no JSON.
        vec![0, 0, 0, 8, 1, 0, 0, 4, 0, 0, 0, 0],
        vec![0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0],
        vec![0, 0, 0, 8, 0, 0, 0, 4, b'{', b'"', b'x', b'}'],
    ] {
        let bytes = rubbish.clone();
        let server = Fake::start(move |_, _| Act::Rubbish(bytes.clone())).await;
        let error = timeout(LONG, server.admin().cluster())
            .await
            .unwrap()
            .unwrap_err();
        let told = format!("{rubbish:?}: {error}");
        assert!(error.to_string().contains("does not speak"), "{told}");
        assert!(
            !error.is_retryable() && !error.is_timeout() && error.source().is_some(),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_not_understood_is_an_error() {
    for body in ["", "{", "null", r#"{"brokerAddrTable":{"a":{}}}"#] {
        let server = Fake::start(move |_, _| Act::Body(body.to_owned())).await;
        let error = server.admin().cluster().await.unwrap_err();
        assert!(
            error.to_string().contains("not understood"),
            "{body}: {error}"
        );
        assert!(error.source().is_some() && !error.is_retryable());
    }
}

#[tokio::test]
async fn another_name_server_is_asked_when_one_fails() {
    let knows = Fake::start(|_, _| empty()).await;
    let silent = Fake::start(|_, _| Act::Silence).await;
    let closes = Fake::start(|_, _| Act::Close).await;
    let list = format!(
        "127.0.0.1:1;{};{},{}",
        closes.address(),
        silent.address(),
        knows.address()
    );
    let admin = Admin::new(Config::new(list).request_timeout(SHORT)).unwrap();
    assert!(admin.cluster().await.unwrap().is_empty());
}

#[tokio::test]
async fn dropped_calls_leave_nothing_behind() {
    let server = Fake::start(|code, _| match code {
        105 => Act::Silence,
        _ => empty(),
    })
    .await;
    let admin = server.admin();
    for _ in 0..200 {
        let wait = admin.wait_for_topic("t", LONG);
        assert!(timeout(Duration::from_millis(1), wait).await.is_err());
    }
    assert!(admin.cluster().await.unwrap().is_empty());
    assert_eq!(server.connections(), 1);
}
