//! gRPC calls of other services.

use axum::{Router, routing::get};
use kratos::{
    assert_trace, grpc,
    testing::{Recorder, Spans},
    trace,
};
use tonic::transport::Channel;

use crate::{
    servers::{Running, call, grpc_server, http_server, run},
    support::app,
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An HTTP server whose route `/{method}` calls that method of the gRPC server.
async fn front(back: &Running) -> Running {
    let port = back.addr.port();
    let channel = back.channel().await;
    let channel = grpc::Traced::new(channel).server("127.0.0.1", port);
    let route = |channel: grpc::Traced<Channel>, method| async move {
        match call(channel, method).await {
            Ok(answer) => answer,
            Err(status) => format!("{:?}", status.code()),
        }
    };
    let mut router = Router::new();
    for (path, method) in [
        ("/name", "/test.Echo/Name"),
        ("/baggage", "/test.Echo/Baggage"),
        ("/panic", "/test.Echo/Panic"),
    ] {
        let channel = channel.clone();
        router = router.route(path, get(move || route(channel, method)));
    }
    run(app().server(http_server(router))).await
}

#[tokio::test]
async fn a_call_is_a_client_span_between_its_caller_and_its_server() {
    let recorder = Recorder::of_thread();
    let back = run(app().server(grpc_server())).await;
    let front = front(&back).await;
    let port = back.addr.port().to_string();
    let answer = front.get("/name", "").await;
    front.get("/panic", "").await;
    front.stop().await.unwrap();
    back.stop().await.unwrap();

    let [http, client, server] = &*assert_trace!(
        recorder, "GET /name" => "test.Echo/Name" => "test.Echo/Name"
    ) else {
        unreachable!("a span for each name")
    };
    assert!(answer.ends_with(&http.trace_id), "{answer}");
    assert_eq!((client.kind, server.kind), ("CLIENT", "SERVER"));
    let expected = [
        ("rpc.method", "test.Echo/Name"),
        ("rpc.response.status_code", "OK"),
        ("rpc.system.name", "grpc"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
    ];
    assert_eq!(
        client.attributes,
        expected
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    );
    let failed = assert_trace!(recorder, "GET /panic" => "test.Echo/Panic");
    assert!(failed[1].is_error);
    assert_eq!(failed[1].attribute("error.type"), Some("INTERNAL"));
}

#[tokio::test]
async fn a_call_nobody_answers_ends_its_span_with_an_error() {
    let recorder = Recorder::of_thread();
    let refused = Channel::from_static("http://127.0.0.1:1").connect_lazy();
    call(grpc::Traced::new(refused), "/test.Echo/Name")
        .await
        .unwrap_err();
    let span = &assert_trace!(recorder, "test.Echo/Name")[0];
    assert_eq!(span.attribute("error.type"), Some("UNAVAILABLE"));
}

/// T10, and T6 of calls.
#[tokio::test]
async fn baggage_and_an_unsampled_trace_pass_through_http_and_grpc() {
    let recorder = Recorder::of_thread();
    let back = run(app().server(grpc_server())).await;
    let front = front(&back).await;
    let unsampled = PARENT.replace("-01", "-00");
    for parent in [PARENT, &unsampled] {
        let headers = format!("traceparent: {parent}\r\nbaggage: tenant=a%20b\r\n");
        let answer = front.get("/baggage", &headers).await;
        assert!(answer.ends_with("\r\n\r\ntenant=a%20b"), "{answer}");
        let answer = front.get("/name", &headers).await;
        assert!(answer.ends_with(&PARENT[3..35]), "{answer}");
    }
    let answer = front.get("/baggage", "baggage: =garbage\r\n").await;
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    front.stop().await.unwrap();
    back.stop().await.unwrap();
    let calls = recorder.spans().into_iter();
    let calls = calls.filter(|span| span.name == "test.Echo/Name" && span.kind == "CLIENT");
    assert_eq!(calls.count(), 1, "of the sampled request alone");
}

#[tokio::test]
async fn baggage_can_be_set_for_a_part_of_the_work() {
    let back = run(app().server(grpc_server())).await;
    let channel = grpc::Traced::new(back.channel().await);
    let mut baggage = trace::Baggage::new();
    baggage.insert("tenant", "ä");
    let answer = call(channel.clone(), "/test.Echo/Baggage");
    let answer = trace::with_baggage(baggage, answer).await.unwrap();
    assert_eq!(answer, "tenant=%C3%A4");
    assert_eq!(call(channel, "/test.Echo/Baggage").await.unwrap(), "");
    back.stop().await.unwrap();
}
