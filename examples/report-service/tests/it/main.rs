//! Both sides of the report service, on the dev broker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kratos::{App, grpc, http as web};
use kratos_broker::{Bytes, testing::TestApp};
use kratos_rocketmq as rocketmq;
use report_proto::{PostReportRequest, report_service_server::ReportService};
use report_service::{Reports, TOPIC_EVENT, TOPIC_USER};
use serde_json::{Value, json};
use tonic::Code;
use tower::ServiceExt;

const EVENT: &str = r#"{"reportType":"event","appId":"a","appKey":"k","eventName":"login","debug":0,"content":"{}"}"#;

async fn post(routes: &Router, body: &'static str) -> (StatusCode, Value) {
    let request = Request::post("/agent/v1/report")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_confirmed_report_answers_success() {
    let client = rocketmq::Client::embedded();
    let routes = report_service::routes(Reports::new(client.publisher()));
    let answer = post(&routes, EVENT).await;
    assert_eq!(
        answer,
        (StatusCode::OK, json!({"code": 0, "msg": "success"}))
    );
}

#[tokio::test]
async fn a_wrong_report_answers_400_with_the_reason() {
    let client = rocketmq::Client::embedded();
    let routes = report_service::routes(Reports::new(client.publisher()));
    for (body, reason) in [
        (r#"{"reportType":"event","#, "EOF"),
        (r#"{"reportType":7}"#, "reportType"),
        (r#"{"reportType":"evnt","eventName":"login"}"#, "\"evnt\""),
        (r#"{"reportType":"event"}"#, "eventName"),
    ] {
        let (status, answer) = post(&routes, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer["code"], 400);
        assert!(
            answer["msg"].as_str().unwrap().contains(reason),
            "{body}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_broker_that_does_not_confirm_answers_503_and_unavailable() {
    let config = rocketmq::Config {
        // Nothing listens here.
        endpoints: Some("127.0.0.1:1".to_owned()),
        ..rocketmq::Config::default()
    };
    let client = rocketmq::Client::new(config).unwrap();
    let reports = Reports::new(client.publisher());

    let (status, answer) = post(&report_service::routes(reports.clone()), EVENT).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer["code"], 503);
    assert!(
        answer["msg"].as_str().unwrap().contains("127.0.0.1:1"),
        "{answer}"
    );

    let report = PostReportRequest {
        report_type: "user".to_owned(),
        event_name: "login".to_owned(),
        ..PostReportRequest::default()
    };
    let status = reports
        .post_report(tonic::Request::new(report))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_wrong_report_is_an_invalid_argument_over_grpc() {
    let reports = Reports::new(rocketmq::Client::embedded().publisher());
    let report = PostReportRequest {
        report_type: "x".to_owned(),
        ..Default::default()
    };
    let status = reports
        .post_report(tonic::Request::new(report))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The whole App on a paused clock: HTTP, gRPC and messages.
#[tokio::test(start_paused = true)]
async fn what_is_posted_over_http_and_grpc_is_published_and_consumed() {
    async fn ignore(_: Bytes) {}
    let client = rocketmq::testing::embedded();
    let reports = Reports::new(client.publisher());
    let routes = report_service::routes(reports.clone());
    let any = ([127, 0, 0, 1], 0).into();
    let http_config = web::Config {
        addr: any,
        ..web::Config::default()
    };
    let grpc_config = grpc::Config {
        addr: any,
        ..grpc::Config::default()
    };
    let consumer = rocketmq::Server::new(client.clone())
        .subscribe(TOPIC_EVENT, "saver", ignore)
        .subscribe(TOPIC_USER, "saver", ignore);
    let app = App::new()
        .resource(client.clone())
        .server(web::Server::new(http_config, routes.clone()))
        .server(
            grpc::Server::new(grpc_config).add_service(report_service::service(reports.clone())),
        )
        .server(consumer);
    let app = TestApp::start(&client, app).await;

    // Not through the sockets: a paused clock does not wait for them.
    assert_eq!(post(&routes, EVENT).await.0, StatusCode::OK);
    let user = PostReportRequest {
        report_type: "user".to_owned(),
        event_name: "login".to_owned(),
        ..PostReportRequest::default()
    };
    reports
        .post_report(tonic::Request::new(user))
        .await
        .unwrap();
    app.settle().await;

    let published = (app.published(TOPIC_EVENT), app.published(TOPIC_USER));
    assert_eq!((published.0.len(), published.1.len()), (1, 1));
    let event: Value = serde_json::from_slice(published.0[0].body()).unwrap();
    assert!(event.to_string().contains("login"), "{event}");
    assert_eq!(app.consumed("saver").len(), 2);
    app.stop().await.unwrap();
}
