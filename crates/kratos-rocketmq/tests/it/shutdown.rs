//! The laws of shutdown, by a whole App: S1 to S6, S9, S10, S12, S14.

use std::{net::TcpListener, time::Duration};

use axum::{Router, routing::post};
use kratos::{App, Health, Phase, http};
use kratos_broker::{Message, testing::Started};
use kratos_rocketmq::Server;
use rocketmq_devbroker::TopicType;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::site::{GROUP, Gate, PATIENCE, Running, Site, TOPIC, eventually, within};

#[tokio::test]
async fn s1_what_is_in_flight_at_sigterm_is_acknowledged() {
    let (site, gate) = (Site::new(), Gate::new());
    let running = Running::start(site.app(&gate));
    running.ready().await;
    site.publish(8).await;
    gate.entered(8).await;

    running.signals.send();
    running.reached(Phase::Draining).await;
    gate.open.add_permits(8);

    running.ended().await.0.unwrap();
    assert!(
        site.is_settled(),
        "a second consumer would see {:?}",
        site.broker.in_flight(GROUP)
    );
    assert_eq!(site.consumers(), 0);
}

#[tokio::test]
async fn s2_past_the_deadline_the_abandoned_ids_are_reported() {
    let (site, gate) = (Site::new(), Gate::new());
    let stop_timeout = Duration::from_secs(2);
    let app = site.app(&gate).stop_timeout(stop_timeout);
    let running = Running::start(app);
    running.ready().await;
    let ids = site.publish(1).await;
    gate.entered(1).await; // and never opens

    running.signals.send();
    let (result, took) = running.ended().await;
    let error = result.unwrap_err();
    let chain = kratos::error_chain(&error).to_string();
    assert!(chain.contains(ids[0].as_str()), "{chain}");
    assert!(took < stop_timeout + Duration::from_secs(1), "{took:?}");
    assert!(
        site.broker.in_flight(GROUP).is_empty(),
        "it was handed back"
    );
    assert_eq!(site.broker.lag(TOPIC, GROUP), 1);
}

#[tokio::test]
async fn s3_a_second_signal_ends_it_at_once() {
    let (site, gate) = (Site::new(), Gate::new());
    let running = Running::start(site.app(&gate));
    running.ready().await;
    site.publish(1).await;
    gate.entered(1).await;

    running.signals.send();
    running.signals.send();
    let (result, took) = running.ended().await;
    result.unwrap_err();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn s4_sigterm_at_any_moment_of_the_start_ends_it_cleanly() {
    for moment in 0..40 {
        let (site, gate) = (Site::new(), Gate::new());
        let running = Running::start(site.app(&gate));
        sleep(Duration::from_micros(250 * moment)).await;
        running.signals.send();
        let (result, took) = running.ended().await;
        result.unwrap_or_else(|error| panic!("at moment {moment}: {error:?}"));
        assert!(
            took < Duration::from_secs(2),
            "at moment {moment}: {took:?}"
        );
        assert_eq!(site.consumers(), 0, "at moment {moment}");
    }
}

#[tokio::test]
async fn s4_sigterm_while_the_broker_is_away_ends_it_cleanly() {
    let (site, gate) = (Site::new(), Gate::new());
    site.broker.stop().await;
    let running = Running::start(site.app(&gate));
    sleep(Duration::from_millis(300)).await;
    running.signals.send();
    let (result, took) = running.ended().await;
    result.unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn s5_idle_it_stops_within_a_second() {
    let (site, gate) = (Site::new(), Gate::new());
    let running = Running::start(site.app(&gate));
    running.ready().await;
    sleep(Duration::from_millis(300)).await; // into a long poll
    running.signals.send();
    let (result, took) = running.ended().await;
    result.unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn s6_with_the_broker_gone_it_still_stops_within_the_deadline() {
    let (site, gate) = (Site::new(), Gate::new());
    let stop_timeout = Duration::from_secs(4);
    let app = site.app(&gate).stop_timeout(stop_timeout);
    let running = Running::start(app);
    running.ready().await;
    let ids = site.publish(2).await;
    gate.entered(2).await;

    site.broker.stop().await;
    gate.open.add_permits(2);
    running.signals.send();
    let (result, took) = running.ended().await;
    assert!(took < stop_timeout + Duration::from_secs(1), "{took:?}");
    // Done, but nobody could be told: that is said.
    let chain = kratos::error_chain(&result.unwrap_err()).to_string();
    assert!(ids.iter().all(|id| chain.contains(id.as_str())), "{chain}");
}

#[tokio::test]
async fn s9_acknowledgements_are_flushed_before_the_connection_closes() {
    let (site, gate) = (Site::new(), Gate::new());
    gate.open.add_permits(100);
    let running = Running::start(site.app(&gate));
    running.ready().await;
    site.publish(100).await;
    gate.entered(100).await;
    running.signals.send();
    running.ended().await.0.unwrap();
    assert!(site.is_settled(), "{:?}", site.broker.in_flight(GROUP));
}

#[tokio::test]
async fn s10_an_http_handler_that_publishes_while_draining_succeeds() {
    let (site, gate) = (Site::new(), Gate::new());
    let addr = free_addr();
    let publisher = site.client.publisher();
    let (inside, go) = (gate.entered.clone(), gate.open.clone());
    let routes = Router::new().route(
        "/orders",
        post(move || async move {
            inside.add_permits(1);
            go.acquire().await.unwrap().forget();
            publisher
                .publish(Message::new(TOPIC, "late"))
                .await
                .unwrap();
            "published"
        }),
    );
    let app = App::new()
        .resource(site.client.clone())
        .server(http::Server::new(config(addr), routes));
    let running = Running::start(app);
    running.ready().await;

    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = b"POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    gate.entered(1).await;
    running.signals.send();
    running.reached(Phase::Draining).await;
    gate.open.add_permits(1);

    let mut answer = String::new();
    within(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("published"),
        "{answer}"
    );
    running.ended().await.0.unwrap();
    assert_eq!(site.broker.messages(TOPIC).len(), 1);
}

#[tokio::test]
async fn s12_a_failed_start_stops_what_runs_and_names_the_culprit() {
    let (site, gate) = (Site::new(), Gate::new());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let app = site
        .app(&gate)
        .server(http::Server::new(config(addr), Router::new()));
    let (result, took) = Running::start(app).ended().await;
    let chain = kratos::error_chain(&result.unwrap_err()).to_string();
    assert!(
        chain.contains("http") && chain.contains(&addr.to_string()),
        "{chain}"
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
    eventually("the consumer has left", || site.consumers() == 0).await;
}

/// The example `blocking` has a handler that blocks its thread for a minute.
async fn blocking_example() -> std::path::PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().unwrap().parent().unwrap();
    let binary = profile.join("examples/blocking");
    if !binary.exists() {
        // `cargo test` builds examples, `cargo test --test it` does not.
        let build = tokio::process::Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME")])
            .args(["--example", "blocking", "--target-dir"])
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .await;
        assert!(build.unwrap().success(), "the example is built");
    }
    binary
}

#[tokio::test]
async fn s14_a_blocking_handler_cannot_hold_the_process() {
    let binary = blocking_example().await;
    let mut child = tokio::process::Command::new(&binary)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    let mut line = [0; 8];
    let mut out = child.stdout.take().unwrap();
    within(PATIENCE, out.read_exact(&mut line)).await.unwrap();
    assert_eq!(&line, b"blocking");

    let pid = child.id().unwrap().to_string();
    let start = Instant::now();
    let kill = tokio::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await;
    assert!(kill.unwrap().success());
    let status = within(PATIENCE, child.wait()).await.unwrap();
    let took = start.elapsed();
    assert!(!status.success(), "work was abandoned");
    // Its stop_timeout is 2 s.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_broker_that_comes_back_is_consumed_from_again() {
    let (site, gate) = (Site::new(), Gate::new());
    gate.open.add_permits(1_000);
    let server: Server = site.server(&gate);
    let running = Running::start(App::new().resource(site.client.clone()).server(server));
    running.ready().await;
    site.publish(3).await;
    gate.entered(3).await;
    site.broker.stop().await;
    sleep(Duration::from_millis(300)).await;
    site.broker.restart().await.unwrap();
    site.publish(3).await;
    gate.entered(3).await;
    eventually("all are acknowledged", || site.is_settled()).await;
    running.signals.send();
    running.ended().await.0.unwrap();
}

#[tokio::test]
async fn health_recovers_for_every_topic_of_a_group_though_no_message_comes() {
    let site = Site::new();
    site.broker
        .create_topic("refunds", TopicType::Normal)
        .unwrap();
    let server = Server::new(site.client.clone())
        .subscribe(TOPIC, GROUP, || async {})
        .subscribe("refunds", GROUP, || async {});
    let started = Started::start(server).await;
    site.broker.stop().await;
    eventually("it is degraded", || started.health() != Health::Serving).await;
    sleep(Duration::from_secs(3)).await; // both topics have noticed
    site.broker.restart().await.unwrap();
    eventually("it serves", || started.health() == Health::Serving).await;
    started.stop(Duration::from_secs(5)).await.unwrap();
}

fn free_addr() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn config(addr: std::net::SocketAddr) -> http::Config {
    http::Config {
        addr,
        ..http::Config::default()
    }
}
