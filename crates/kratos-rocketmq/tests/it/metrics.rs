//! Metrics over OTLP, as a collector sees them: the same that Prometheus reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos::{
    App, Resource, StartContext,
    telemetry::{self, Telemetry},
};
use kratos_broker::{AnyError, Backoff, Delivery, Disposition, Message, Policy, Subscription};
use kratos_rocketmq::{Client, Server};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        metric::Data, number_data_point,
    },
};
use tokio::{net::TcpListener, time::Instant};
use tonic::{
    Request, Response, Status,
    transport::{self, server::TcpIncoming},
};

use crate::site::{self, Running, eventually};

/// Values by name and labels, in Prometheus's spelling.
type Series = BTreeMap<(String, BTreeSet<String>), f64>;

/// What a collector has got, export by export.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Vec<ResourceMetrics>>>>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let metrics = request.into_inner().resource_metrics;
        self.0.lock().unwrap().push(metrics);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Looks at what Prometheus reads when all is done, right before telemetry is closed.
#[derive(Clone, Default)]
struct LastLook(Arc<Mutex<String>>);

impl Resource for LastLook {
    fn name(&self) -> &str {
        "last look"
    }

    async fn open(&mut self, _: StartContext) -> kratos::Result<()> {
        Ok(())
    }

    async fn close(self, _: Instant) -> kratos::Result<()> {
        *self.0.lock().unwrap() = telemetry::prometheus().unwrap();
        Ok(())
    }
}

/// Two are done at once, one at the second attempt, one never.
async fn handle(delivery: Delivery) -> Result<(), AnyError> {
    match (&delivery.body()[..], delivery.attempt()) {
        (b"never", _) => Err(Malformed.into()),
        (b"later", 1) => Err(AnyError::msg("on purpose")),
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed")
    }
}

impl std::error::Error for Malformed {}

/// M1. In a process of its own, because meters are the process's.
#[test]
fn m1_a_stop_exports_over_otlp_what_prometheus_reads() {
    site::alone(
        "metrics::m1_a_stop_exports_over_otlp_what_prometheus_reads",
        measure_and_compare,
    );
}

async fn measure_and_compare() {
    let (collector, endpoint) = collect().await;
    let config = telemetry::Config {
        otlp_endpoint: Some(endpoint),
        service_name: Some("saver".to_owned()),
        // The collector takes metrics alone.
        sample_ratio: 0.0,
        ..Default::default()
    };
    let builder = Telemetry::builder(&config).unwrap().writer(std::io::sink);
    let (telemetry, last) = (builder.install().unwrap(), LastLook::default());
    let client = Client::embedded();
    let subscription = Subscription::new("orders", "billing")
        .policy(Policy::new().backoff(Backoff::fixed(Duration::from_millis(100))))
        .classify(|_: &Malformed| Disposition::Poison);
    let server = Server::new(client.clone()).subscribe_with(subscription, handle);
    let counters = server.counters();
    let app = App::new()
        .resource(telemetry)
        .resource(last.clone())
        .resource(client.clone())
        .server(server);
    let app = Running::start(app);
    app.ready().await;
    let publisher = client.publisher();
    for body in ["at once", "later", "never", "at once"] {
        publisher
            .publish(Message::new("orders", body))
            .await
            .unwrap();
    }
    eventually("all are settled", || counters.stats().confirmed == 5).await;
    app.handle.stop();
    app.ended().await.0.unwrap();

    // What is measured goes out once a minute, and at the stop.
    let export = collector.0.lock().unwrap().pop();
    let export = export.expect("an export at the stop");
    let [export] = &export[..] else {
        panic!("not one resource: {export:?}")
    };
    let resource = export.resource.clone().unwrap_or_default();
    let names = labels(&resource.attributes);
    assert!(names.contains("service_name=\"saver\""), "{names:?}");
    let [scope] = &export.scope_metrics[..] else {
        panic!("not one scope: {export:?}")
    };
    assert_eq!(scope.scope.as_ref().unwrap().name, "kratos");
    assert!(
        scope
            .schema_url
            .starts_with("https://opentelemetry.io/schemas/")
    );

    assert_values(&scope.metrics);
    assert_same(&scope.metrics, &last.0.lock().unwrap());
}

/// A collector of metrics, and its endpoint.
async fn collect() -> (Collector, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    let service = MetricsServiceServer::new(collector.clone());
    let serving = transport::Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    (collector, endpoint)
}

/// Names and units are those of the conventions, and each message is counted once.
fn assert_values(metrics: &[Metric]) {
    for (name, unit, label, expected) in [
        ("messaging.client.sent.messages", "{message}", "", 4.0),
        ("messaging.client.consumed.messages", "{message}", "", 5.0),
        (
            "messaging.client.consumed.messages",
            "{message}",
            "error_type=\"",
            2.0,
        ),
        (
            "messaging.client.operation.duration",
            "s",
            "messaging_operation_name=\"send\"",
            4.0,
        ),
        (
            "messaging.client.operation.duration",
            "s",
            "messaging_operation_name=\"nack\"",
            1.0,
        ),
        (
            "messaging.client.operation.duration",
            "s",
            "messaging_operation_name=\"dead_letter\"",
            1.0,
        ),
        ("messaging.process.duration", "s", "", 5.0),
        ("messaging.process.duration", "s", "error_type=\"", 2.0),
        ("kratos.message.queue.duration", "s", "", 5.0),
        (
            "kratos.message.dead_lettered",
            "{message}",
            "reason=\"poison\"",
            1.0,
        ),
        ("kratos.subscription.received", "{message}", "", 5.0),
        ("kratos.subscription.handled", "{message}", "", 3.0),
        ("kratos.subscription.failed", "{message}", "", 2.0),
        ("kratos.subscription.retried", "{message}", "", 1.0),
        ("kratos.subscription.dead_lettered", "{message}", "", 1.0),
        ("kratos.subscription.handed_back", "{message}", "", 0.0),
        ("kratos.subscription.in_flight", "{message}", "", 0.0),
        ("kratos.subscription.leases.lost", "{lease}", "", 0.0),
        ("kratos.subscription.state", "", "state=\"stopped\"", 1.0),
        ("kratos.app.phase", "", "phase=\"draining\"", 1.0),
    ] {
        let metric = metrics.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("no {name} in {metrics:#?}"));
        assert_eq!(metric.unit, unit, "of {name}");
        assert!(!metric.description.is_empty(), "of {name}");
        let series = series(metric);
        let counted = series.iter().filter(|((series, labels), _)| {
            let found = labels.iter().any(|it| it.starts_with(label));
            !series.ends_with("_bucket") && !series.ends_with("_sum") && found
        });
        let sum: f64 = counted.map(|(_, value)| value).sum();
        assert_eq!(sum, expected, "of {name} {label} in {series:#?}");
    }
}

/// Each series that Prometheus reads went to the collector, and no other, with the same values.
fn assert_same(metrics: &[Metric], prometheus: &str) {
    let told: Series = metrics.iter().flat_map(series).collect();
    let lines = prometheus.lines().filter(|line| !line.starts_with('#'));
    let read: Series = lines
        .map(read_line)
        .filter(|((name, _), _)| name != "target_info")
        .collect();
    let names = |series: &Series| -> BTreeSet<_> { series.keys().cloned().collect() };
    let (told_names, read_names) = (names(&told), names(&read));
    let differ: Vec<_> = told_names.symmetric_difference(&read_names).collect();
    assert!(differ.is_empty(), "{differ:#?} in\n{prometheus}");
    for (series, value) in &told {
        let before = read[series];
        if series.0 == "kratos_app_uptime_seconds" {
            assert!(before > 0.0 && before <= *value, "{before} {value}");
        } else {
            assert_eq!(before, *value, "{series:?}");
        }
    }
}

// === impl Series ===

/// A metric as Prometheus spells it: <https://opentelemetry.io/docs/specs/otel/compatibility>.
fn series(metric: &Metric) -> Series {
    let unit = match metric.unit.as_str() {
        "s" => "_seconds",
        annotation => {
            assert!(
                annotation.is_empty() || annotation.starts_with('{'),
                "{metric:?}"
            );
            ""
        }
    };
    let name = format!("{}{unit}", metric.name.replace('.', "_"));
    let cumulative = AggregationTemporality::Cumulative as i32;
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => gauge
            .data_points
            .iter()
            .map(|it| point(&name, it))
            .collect(),
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == cumulative);
            let name = format!("{name}_total");
            sum.data_points.iter().map(|it| point(&name, it)).collect()
        }
        Data::Histogram(histogram) => {
            assert_eq!(histogram.aggregation_temporality, cumulative);
            let points = histogram.data_points.iter();
            points.flat_map(|it| buckets(&name, it)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn point(name: &str, point: &NumberDataPoint) -> ((String, BTreeSet<String>), f64) {
    let value = match point.value.unwrap() {
        number_data_point::Value::AsDouble(value) => value,
        number_data_point::Value::AsInt(value) => value as f64,
    };
    ((name.to_owned(), labels(&point.attributes)), value)
}

fn buckets(name: &str, point: &HistogramDataPoint) -> Series {
    let labels = labels(&point.attributes);
    let bounds = point.explicit_bounds.iter().map(ToString::to_string);
    let mut count = 0;
    let mut all: Series = bounds
        .chain(["+Inf".to_owned()])
        .zip(&point.bucket_counts)
        .map(|(bound, of_it)| {
            count += of_it;
            let mut labels = labels.clone();
            labels.insert(format!("le=\"{bound}\""));
            ((format!("{name}_bucket"), labels), count as f64)
        })
        .collect();
    assert_eq!(count, point.count);
    all.insert((format!("{name}_count"), labels.clone()), count as f64);
    all.insert((format!("{name}_sum"), labels), point.sum.unwrap());
    all
}

fn labels(attributes: &[KeyValue]) -> BTreeSet<String> {
    let label = |attribute: &KeyValue| {
        let value = match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
            any_value::Value::StringValue(text) => text.clone(),
            any_value::Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        format!("{}=\"{value}\"", attribute.key.replace('.', "_"))
    };
    attributes.iter().map(label).collect()
}

/// A line of Prometheus's text, without the labels that name the scope.
fn read_line(line: &str) -> ((String, BTreeSet<String>), f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap();
    let labels = labels
        .split_inclusive("\",")
        .map(|it| it.trim_end_matches(','));
    let labels = labels.filter(|label| !label.starts_with("otel_scope_"));
    let labels = labels.map(str::to_owned).collect();
    ((name.to_owned(), labels), value.parse().unwrap())
}
