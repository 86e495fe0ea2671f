//! The admin server from the first moment of a start to the last one of a stop.

use std::time::Duration;

use kratos::{Error, Health, Phase, admin};
use tokio::{net::TcpStream, sync::watch, time::Instant};

use super::{Consumer, Messages, config, ready, until, watched};
use crate::support::{Events, Step, app, chain};

const STOP: Duration = Duration::from_secs(10);

#[tokio::test]
async fn nothing_but_loopback_listens_by_default() {
    let defaults = admin::Config::default();
    assert!(defaults.addr.ip().is_loopback() && !defaults.actions);
}

#[tokio::test]
async fn a_start_that_takes_its_time_is_seen() {
    let events = Events::default();
    let slow = events
        .server("slow")
        .bind(Step::Take(Duration::from_secs(2)));
    let watched = watched(config(), |app| app.server(slow)).await;
    assert_eq!(watched.get("/livez").await, (200, "alive\n".to_owned()));
    let (status, text) = watched.get("/readyz").await;
    assert_eq!((status, &*text), (503, "not ready: phase: starting\n"));
    assert_eq!(watched.get("/startupz").await.0, 503);
    let status = watched.json("/status").await;
    assert_eq!(
        (&status["phase"], &status["servers"][1]["state"]),
        (&"starting".into(), &"starting".into())
    );

    watched.handle.reached(Phase::Ready).await;
    assert_eq!(watched.get("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(
        watched.get("/startupz").await,
        (200, "started\n".to_owned())
    );
    watched.stop().await;
}

#[tokio::test]
async fn it_says_not_ready_before_the_last_accept_and_answers_until_all_have_drained() {
    let consumer = std::sync::Arc::<Consumer>::default();
    let drains = Duration::from_secs(2);
    let messages = Messages::new(&consumer).drains(drains);
    let watched = watched(config(), |app| app.server(messages).stop_timeout(STOP)).await;
    watched.handle.reached(Phase::Ready).await;
    let (addr, asked) = (watched.addr, Instant::now());
    watched.handle.stop();
    watched.handle.reached(Phase::Draining).await;
    let mut answers = 0;
    while asked.elapsed() < drains - Duration::from_millis(200) {
        let (status, text) = watched.get("/readyz?verbose").await;
        assert!(
            status == 503 && text.contains("[-] phase: draining"),
            "{text}"
        );
        assert_eq!(watched.get("/livez").await.0, 200);
        assert_eq!(watched.get("/startupz").await.0, 200);
        answers += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(answers > 5, "{answers}");
    watched.task.await.unwrap().unwrap();
    assert!(
        asked.elapsed() < drains + Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    assert!(
        TcpStream::connect(addr).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn a_page_that_stays_open_delays_no_stop() {
    let (watched, _consumer) = ready(config()).await;
    let _idle = TcpStream::connect(watched.addr).await.unwrap();
    let asked = Instant::now();
    watched.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn readiness_follows_each_server_and_a_word_is_said_of_each() {
    let (tell, health) = watch::channel(Health::Serving);
    let consumer = std::sync::Arc::<Consumer>::default();
    let messages = Messages::new(&consumer).health(health);
    let watched = watched(config(), |app| app.server(messages)).await;
    watched.handle.reached(Phase::Ready).await;

    tell.send_replace(Health::Degraded("the broker is away".into()));
    until("it is degraded", async || {
        watched.get("/readyz?verbose").await.1.contains("degraded")
    })
    .await;
    let (status, text) = watched.get("/readyz?verbose").await;
    assert_eq!(status, 200, "{text}");
    assert!(
        text.contains("[+] server messages: degraded: the broker is away"),
        "{text}"
    );
    assert_eq!(
        watched.get("/livez").await.0,
        200,
        "no restart brings a broker back"
    );

    tell.send_replace(Health::NotServing("no disk".into()));
    until("it is not ready", async || {
        watched.get("/readyz").await.0 == 503
    })
    .await;
    let (_, text) = watched.get("/readyz").await;
    assert_eq!(text, "not ready: server messages: no disk\n");
    tell.send_replace(Health::Serving);
    until("it is ready", async || {
        watched.get("/readyz").await.0 == 200
    })
    .await;

    *consumer.assigned.lock().unwrap() = Some(false);
    let (status, text) = watched.get("/readyz?verbose=1").await;
    let word = "[+] subscription messages:orders:billing: the broker has assigned nothing to it";
    assert!(status == 200 && text.contains(word), "{text}");
    watched.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_at_the_start() {
    let (watched, _consumer) = ready(config()).await;
    let taken = admin::Config {
        addr: watched.addr,
        ..config()
    };
    let error: Error = app()
        .server(admin::Server::new(taken))
        .run()
        .await
        .unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("server `admin`") && text.contains("KRATOS_ADMIN__ADDR"),
        "{text}"
    );
    watched.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_nobody_listening() {
    let events = Events::default();
    let failing = events.server("bad").bind(Step::Fail);
    let app = app().server(admin::Server::new(config())).server(failing);
    let handle = app.handle();
    app.run().await.unwrap_err();
    let addr = handle.servers()[0].endpoints[0].addr();
    until("it is closed", async || {
        TcpStream::connect(addr).await.is_err()
    })
    .await;
}
