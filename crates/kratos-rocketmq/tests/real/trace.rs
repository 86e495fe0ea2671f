//! T1 over OTLP: one report on the real server, as a collector sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use kratos::{
    App, assert_trace,
    telemetry::{self, Telemetry},
    testing::{RecordedLink, RecordedSpan, follow, tree},
};
use kratos_broker::testing::Harness;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use tokio::{net::TcpListener, time::sleep};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    AdminGroup, AdminTopic, Real, admin,
    reports::{CALL, Reports},
};

const TOPIC: &str = "report_events";
const GROUP: &str = "report-saver";

/// How long the test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a collector has got.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<RecordedSpan>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans).map(recorded);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the trace is for people")]
async fn t1_one_report_is_one_trace_in_a_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let incoming = TcpIncoming::from(listener);
    let serving = Server::builder().add_service(service);
    let serving = tokio::spawn(serving.serve_with_incoming(incoming));
    let config = telemetry::Config {
        otlp_endpoint: Some(endpoint),
        otlp_metrics: false,
        ..Default::default()
    };
    let builder = Telemetry::builder(&config).unwrap().writer(std::io::sink);
    let (telemetry, dispatch) = builder.build();
    let _default = tracing::dispatcher::set_default(&dispatch);

    admin().create_topic(&AdminTopic::new(TOPIC)).await.unwrap();
    admin().create_group(&AdminGroup::new(GROUP)).await.unwrap();
    let client = Real::default().driver().await;
    let app = App::new().resource(telemetry).resource(client.clone());
    let mut site = Reports::start(client, TOPIC, GROUP, app).await;
    site.post("baggage: tenant=acme\r\n").await;
    let baggage = tokio::time::timeout(PATIENCE, site.baggage.recv()).await;
    assert_eq!(baggage.unwrap().flatten().as_deref(), Some("tenant=acme"));
    // What is recorded goes out every few seconds, the rest at the stop.
    let (send, process) = (format!("send {TOPIC}"), format!("process {TOPIC}"));
    site.stop().await;

    let until = tokio::time::Instant::now() + PATIENCE;
    let way = ["POST /agent/v1/report", &send, &process, CALL, CALL];
    while follow(&collector.0.lock().unwrap(), &way).is_err() {
        assert!(
            tokio::time::Instant::now() < until,
            "{}",
            tree(&collector.0.lock().unwrap())
        );
        sleep(Duration::from_millis(50)).await;
    }
    let spans = collector.0.lock().unwrap().clone();
    println!("{}", tree(&spans));
    assert_trace!(spans, "POST /agent/v1/report" => send => process => "INSERT reports");
    assert_trace!(spans, "POST /agent/v1/report" => send => process => format!("ack {TOPIC}"));
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    let parents = spans.iter().filter_map(|span| span.parent_id.as_ref());
    for parent in parents {
        assert!(ids.contains(parent), "{}", tree(&spans));
    }
    let process = &assert_trace!(spans, process)[0];
    assert!(process.attribute("server.address").is_some());
    serving.abort();
}

fn recorded(span: Span) -> RecordedSpan {
    let time = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    RecordedSpan {
        kind: match span.kind() {
            SpanKind::Server => "SERVER",
            SpanKind::Client => "CLIENT",
            SpanKind::Producer => "PRODUCER",
            SpanKind::Consumer => "CONSUMER",
            SpanKind::Unspecified | SpanKind::Internal => "INTERNAL",
        },
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        start: time(span.start_time_unix_nano),
        end: time(span.end_time_unix_nano),
        attributes: texts(span.attributes),
        links: span
            .links
            .into_iter()
            .map(|link| RecordedLink {
                trace_id: hex(&link.trace_id),
                span_id: hex(&link.span_id),
                attributes: texts(link.attributes),
            })
            .collect(),
        events: span.events.into_iter().map(|event| event.name).collect(),
        is_error: span.status.is_some_and(|status| status.code == 2),
        name: span.name,
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| {
        let value = match attribute.value.and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            Some(other) => format!("{other:?}"),
            None => String::new(),
        };
        (attribute.key, value)
    };
    attributes.into_iter().map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
