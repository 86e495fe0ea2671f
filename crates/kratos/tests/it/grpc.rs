//! The gRPC server.

use std::time::Duration;

use kratos::Health;
use tokio::{io::AsyncWriteExt, sync::watch, time::Instant};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    servers::{Echo, call, grpc_server, hang, read_all, run},
    support::{Events, app, chain},
};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn handlers_see_the_app_info() {
    let running = run(app().server(grpc_server())).await;
    let answer = call(running.channel().await, "/test.Echo/Name")
        .await
        .unwrap();
    assert!(answer.starts_with("echo"), "{answer}");
    running.stop().await.unwrap();
}

/// S11.
#[tokio::test]
async fn a_hung_stream_ends_at_the_deadline_and_is_named() {
    let running = run(app()
        .stop_timeout(Duration::from_secs(1))
        .server(grpc_server()))
    .await;
    let mut stream = hang(running.channel().await).await;
    let begun = Instant::now();
    let (ended, stopped) = tokio::join!(stream.message(), running.stop());
    assert!(
        begun.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
    assert!(ended.is_err());
    assert_eq!(
        stopped.unwrap_err().abandoned_ids(),
        ["POST /test.Echo/Hang"]
    );
}

#[tokio::test]
async fn an_idle_client_does_not_hold_the_stop() {
    let running = run(app().server(grpc_server())).await;
    let channel = running.channel().await;
    call(channel.clone(), "/test.Echo/Name").await.unwrap();
    let begun = Instant::now();
    running.stop().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    drop(channel);
}

#[tokio::test]
async fn a_panic_and_an_unknown_method_have_their_status() {
    let running = run(app().server(grpc_server())).await;
    let channel = running.channel().await;
    let panicked = call(channel.clone(), "/test.Echo/Panic").await.unwrap_err();
    assert_eq!(panicked.code(), Code::Internal, "{panicked}");
    let unknown = call(channel, "/test.Nobody/Name").await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn health_follows_the_phase_and_its_watchers_do_not_hold_the_drain() {
    let events = Events::default();
    let (health, receiver) = watch::channel(Health::Serving);
    let app = app()
        .server(grpc_server())
        .server(events.server("mq").health(receiver));
    let running = run(app).await;
    let mut client = HealthClient::new(running.channel().await);
    for service in ["", "test.Echo"] {
        let answer = client.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = client.check(of("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    let mut watching = client.watch(of("test.Echo")).await.unwrap().into_inner();
    let mut next = async || {
        watching
            .message()
            .await
            .unwrap()
            .map(|answer| answer.status())
    };
    assert_eq!(next().await, Some(ServingStatus::Serving));
    health.send_replace(Health::NotServing("the disk is full".into()));
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    health.send_replace(Health::Serving);
    assert_eq!(next().await, Some(ServingStatus::Serving));

    let mut unknown = client.watch(of("nobody")).await.unwrap().into_inner();
    let status = unknown.message().await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::ServiceUnknown);

    let begun = Instant::now();
    running.handle.stop();
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
    running.stop().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_service_that_was_added_twice_is_an_error() {
    let error = app()
        .server(grpc_server().add_service(Echo))
        .run()
        .await
        .unwrap_err();
    assert_eq!(
        chain(&error),
        "server `grpc`: bind failed: service test.Echo was added twice"
    );
}

/// By hand, since tonic's client ends the call itself.
#[tokio::test]
async fn a_call_ends_when_its_caller_waits_no_longer() {
    let running = run(app().server(grpc_server())).await;
    let mut stream = running.connect().await;
    let head = "POST /test.Echo/Wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                content-type: application/grpc\r\ngrpc-timeout: 50m\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    running.stop().await.unwrap();
}
