//! The spans of HTTP and gRPC requests.

use axum::{Router, http::StatusCode, routing::get};
use kratos::trace;
use opentelemetry::{
    Value,
    trace::{SpanKind, Status, TracerProvider},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

use crate::{
    servers::{call, grpc_server, http_server, run},
    support::app,
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Recorded {
    exporter: InMemorySpanExporter,
    provider: SdkTracerProvider,
    _default: DefaultGuard,
}

/// Records the spans of this thread, which is that of the test's whole runtime.
fn record() -> Recorded {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let default = tracing::subscriber::set_default(subscriber);
    Recorded {
        exporter,
        provider,
        _default: default,
    }
}

impl Recorded {
    fn span(&self, name: &str) -> SpanData {
        self.provider.force_flush().unwrap();
        let spans = self.exporter.get_finished_spans().unwrap();
        let names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
        let found = spans.into_iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no span {name:?} in {names:?}"))
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes
        .iter()
        .find(|kv| kv.key.as_str() == key)
        .map(|kv| kv.value.clone())
}

fn routes() -> Router {
    let trace_id = || async { trace::current_trace_id().unwrap_or_default() };
    let broken = || async { StatusCode::BAD_GATEWAY };
    Router::new()
        .route("/users/{id}", get(trace_id))
        .route("/broken", get(broken))
}

#[tokio::test]
async fn an_http_span_has_the_route_and_the_senders_span_as_parent() {
    let recorded = record();
    let running = run(app().server(http_server(routes()))).await;
    let answer = running
        .get("/users/7", &format!("traceparent: {PARENT}\r\n"))
        .await;
    assert!(
        answer.ends_with("0af7651916cd43dd8448eb211c80319c"),
        "{answer}"
    );
    running.stop().await.unwrap();

    let span = recorded.span("GET /users/{id}");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(
        span.span_context.trace_id().to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(span.parent_span_is_remote);
    assert_eq!(attribute(&span, "http.request.method"), Some("GET".into()));
    assert_eq!(attribute(&span, "http.route"), Some("/users/{id}".into()));
    assert_eq!(
        attribute(&span, "http.response.status_code"),
        Some(200.into())
    );
    assert_eq!(attribute(&span, "error.type"), None);
}

/// T4.
#[tokio::test]
async fn a_bad_or_absent_traceparent_starts_a_new_root() {
    let recorded = record();
    let running = run(app().server(http_server(routes()))).await;
    let mut ids = std::collections::BTreeSet::new();
    for header in ["", "traceparent: garbage\r\n", "traceparent: \r\n"] {
        let answer = running.get("/users/7", header).await;
        let id = answer.lines().last().unwrap().to_owned();
        assert!(
            id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{answer}"
        );
        assert!(ids.insert(id));
    }
    running.stop().await.unwrap();
    let span = recorded.span("GET /users/{id}");
    assert_eq!(span.parent_span_id.to_string(), "0000000000000000");
}

/// T6, and the trace still passes through.
#[tokio::test]
async fn an_unsampled_parent_exports_nothing_and_its_trace_goes_on() {
    let recorded = record();
    let running = run(app().server(http_server(routes()))).await;
    let unsampled = PARENT.replace("-01", "-00");
    let answer = running
        .get("/users/7", &format!("traceparent: {unsampled}\r\n"))
        .await;
    assert!(
        answer.ends_with("0af7651916cd43dd8448eb211c80319c"),
        "{answer}"
    );
    running.stop().await.unwrap();
    assert!(recorded.exporter.get_finished_spans().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_tracer_the_trace_passes_through() {
    let running = run(app().server(http_server(routes()))).await;
    let answer = running
        .get("/users/7", &format!("traceparent: {PARENT}\r\n"))
        .await;
    assert!(
        answer.ends_with("0af7651916cd43dd8448eb211c80319c"),
        "{answer}"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_error_marks_the_span_and_a_404_has_no_path_in_its_name() {
    let recorded = record();
    let running = run(app().server(http_server(routes()))).await;
    assert!(running.get("/broken", "").await.starts_with("HTTP/1.1 502"));
    assert!(
        running
            .get("/nowhere", "")
            .await
            .starts_with("HTTP/1.1 404")
    );
    running.stop().await.unwrap();
    let broken = recorded.span("GET /broken");
    assert!(
        matches!(broken.status, Status::Error { .. }),
        "{:?}",
        broken.status
    );
    assert_eq!(attribute(&broken, "error.type"), Some("502".into()));
    let nowhere = recorded.span("GET");
    assert_eq!(
        attribute(&nowhere, "http.response.status_code"),
        Some(404.into())
    );
    assert_eq!(nowhere.status, Status::Unset);
}

#[tokio::test]
async fn a_grpc_span_is_named_by_its_method() {
    let recorded = record();
    let running = run(app().server(grpc_server())).await;
    let channel = running.channel().await;
    let answer = call(channel.clone(), "/test.Echo/Name").await.unwrap();
    let _panicked = call(channel, "/test.Echo/Panic").await.unwrap_err();
    running.stop().await.unwrap();

    let span = recorded.span("test.Echo/Name");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(answer, format!("echo {}", span.span_context.trace_id()));
    assert_eq!(attribute(&span, "rpc.system.name"), Some("grpc".into()));
    assert_eq!(
        attribute(&span, "rpc.method"),
        Some("test.Echo/Name".into())
    );
    assert_eq!(
        attribute(&span, "rpc.response.status_code"),
        Some("OK".into())
    );
    let panicked = recorded.span("test.Echo/Panic");
    assert_eq!(attribute(&panicked, "error.type"), Some("INTERNAL".into()));
}

#[test]
fn extract_and_inject_are_each_others_inverse() {
    let state = "vendor=value,other=1";
    let parent = trace::extract(|key| match key {
        "traceparent" => Some(PARENT),
        "tracestate" => Some(state),
        _ => None,
    });
    let mut headers = Vec::new();
    trace::inject(&parent.unwrap(), |key, value| headers.push((key, value)));
    let expected = [
        ("traceparent", PARENT.to_owned()),
        ("tracestate", state.to_owned()),
    ];
    assert_eq!(headers, expected);
}

#[test]
fn a_bad_tracestate_is_dropped_and_the_trace_kept() {
    let huge = "a=b,".repeat(10_000);
    for state in ["=", "no pairs", "🦀=1", &huge] {
        let parent = trace::extract(|key| Some(if key == "traceparent" { PARENT } else { state }));
        assert!(parent.unwrap().is_remote(), "{state:.20}");
    }
}
