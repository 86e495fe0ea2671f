//! What a log line says, and that spans leave the process.

use std::{
    io::{self, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos::{
    Resource,
    telemetry::{Config, Format, Telemetry},
    trace,
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use tokio::time::Instant;
use tracing::{dispatcher, info, info_span, warn};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

/// What was exported.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Runs `work` with telemetry by `config` that logs to this.
    fn within(&self, config: &Config, work: impl FnOnce()) {
        let log = self.clone();
        let builder = Telemetry::builder(config).unwrap();
        let (_telemetry, dispatch) = builder.writer(move || log.clone()).build();
        dispatcher::with_default(&dispatch, work);
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn json() -> Config {
    Config {
        format: Format::Json,
        service_name: Some("saver".to_owned()),
        ..Config::default()
    }
}

#[test]
fn ends_a_text_line_with_the_ids_of_its_span() {
    let (log, mut span) = (Log::default(), None);
    log.within(&Config::default(), || {
        let _entered = info_span!("save", table = "users").entered();
        span = trace::current();
        info!(id = 3, "saved a row");
    });

    let (text, span) = (log.text(), span.unwrap());
    let (trace_id, span_id) = (span.trace_id(), span.span_id());
    let end =
        format!("  INFO it::telemetry: saved a row id=3 trace_id={trace_id} span_id={span_id}\n");
    assert!(text.ends_with(&end), "{text}");
    assert!(!text.contains('\x1b') && !text.contains("users"), "{text}");
}

#[test]
fn writes_one_json_object_per_line_with_the_ids_of_its_span() {
    let (log, mut span) = (Log::default(), None);
    log.within(&json(), || {
        let _entered = info_span!("save").entered();
        span = trace::current();
        let source = io::Error::from(io::ErrorKind::TimedOut);
        let error = kratos::Error::msg("no answer").with_source(source);
        let error: &(dyn std::error::Error + 'static) = &error;
        warn!(id = 3, ok = false, name = "a\nb", error, "did not \"save\"");
    });

    let span = span.unwrap();
    let mut line = log.json();
    let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
    assert!(timestamp.as_str().unwrap().ends_with('Z'));
    assert_eq!(log.text().lines().count(), 1);
    assert_eq!(
        line,
        serde_json::json!({
            "level": "WARN",
            "target": "it::telemetry",
            "message": "did not \"save\"",
            "fields": {"id": 3, "ok": false, "name": "a\nb", "error": "no answer: timed out"},
            "trace_id": span.trace_id().to_string(),
            "span_id": span.span_id().to_string(),
            "service": "saver",
        })
    );
}

#[test]
fn names_no_ids_outside_of_spans() {
    let (text, object) = (Log::default(), Log::default());
    text.within(&Config::default(), || info!("started"));
    object.within(&json(), || info!("started"));
    assert!(!text.text().contains("trace_id"), "{}", text.text());
    assert!(object.json().get("trace_id").is_none());
}

#[test]
fn gives_ids_that_are_not_zero_although_nothing_is_exported() {
    for sample_ratio in [1.0, 0.0] {
        let config = Config {
            sample_ratio,
            ..Config::default()
        };
        Log::default().within(&config, || {
            let _entered = info_span!("work").entered();
            let span = trace::current().unwrap();
            assert!(span.is_valid());
            assert_eq!(span.is_sampled(), sample_ratio > 0.0);
        });
    }
}

#[test]
fn names_the_ids_of_a_span_that_the_log_level_hides() {
    let log = Log::default();
    let config = Config {
        log: "off,it=warn".to_owned(),
        ..Config::default()
    };
    log.within(&config, || {
        let _entered = info_span!("work").entered();
        info!("hidden");
        warn!("shown");
    });
    let text = log.text();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("shown trace_id="), "{text}");
}

#[tokio::test]
async fn continues_the_trace_of_a_remote_parent() {
    let log = Log::default();
    let writer = log.clone();
    let builder = Telemetry::builder(&json()).unwrap();
    let (_telemetry, dispatch) = builder.writer(move || writer.clone()).build();
    let _installed = dispatcher::set_default(&dispatch);

    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let parent = trace::extract(|key| (key == trace::TRACEPARENT).then_some(header)).unwrap();
    trace::scope(info_span!("process"), Some(parent), async {
        tokio::task::yield_now().await;
        info!("handled");
    })
    .await;

    let line = log.json();
    assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_ne!(line["span_id"], "b7ad6b7169203331");
}

#[tokio::test]
async fn exports_what_is_recorded_when_it_closes() {
    let exported = Exported::default();
    let config = Config {
        log: "error".to_owned(),
        ..Config::default()
    };
    let builder = Telemetry::builder(&config).unwrap();
    let (telemetry, dispatch) = builder.writer(io::sink).exporter(exported.clone()).build();
    dispatcher::with_default(&dispatch, || {
        info_span!("outer", id = 1).in_scope(|| info_span!("inner").in_scope(|| warn!("late")));
        tracing::debug_span!("transport").in_scope(|| ());
    });

    telemetry
        .close(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();

    let spans = exported.0.lock().unwrap().clone();
    let [inner, outer] = spans.as_slice() else {
        panic!("{spans:?}");
    };
    assert_eq!(
        (inner.name.as_ref(), outer.name.as_ref()),
        ("inner", "outer")
    );
    assert_eq!(inner.parent_span_id, outer.span_context.span_id());
    assert_eq!(inner.events.len(), 1);
    // Nothing but what the author wrote.
    let keys: Vec<&str> = outer.attributes.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(keys, ["id"]);
}

#[tokio::test]
async fn exports_no_trace_that_is_not_sampled() {
    let exported = Exported::default();
    let config = Config {
        sample_ratio: 0.0,
        ..Config::default()
    };
    let builder = Telemetry::builder(&config).unwrap();
    let (telemetry, dispatch) = builder.writer(io::sink).exporter(exported.clone()).build();
    dispatcher::with_default(&dispatch, || info_span!("work").in_scope(|| ()));
    telemetry
        .close(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
    assert!(exported.0.lock().unwrap().is_empty());
}

/// Closes with one span to export, and says how long it took.
async fn close_within(endpoint: String, slice: Duration) -> Duration {
    let config = Config {
        otlp_endpoint: Some(endpoint),
        ..Config::default()
    };
    let (telemetry, dispatch) = Telemetry::builder(&config)
        .unwrap()
        .writer(io::sink)
        .build();
    dispatcher::with_default(&dispatch, || info_span!("work").in_scope(|| ()));
    let start = Instant::now();
    telemetry.close(start + slice).await.unwrap();
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_not_held_by_a_collector_that_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let slice = Duration::from_millis(300);
    let took = close_within(endpoint, slice).await;
    assert!(took >= slice, "it did not try: {took:?}");
    assert!(took < slice + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_not_held_by_a_collector_that_is_not_there() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let slice = Duration::from_secs(3);
    let took = close_within(endpoint, slice).await;
    assert!(took < slice + Duration::from_secs(1), "{took:?}");
}

#[test]
fn wants_a_runtime_only_for_an_endpoint() {
    let config = Config {
        otlp_endpoint: Some("http://127.0.0.1:4317".to_owned()),
        ..Config::default()
    };
    let error = Telemetry::builder(&config).unwrap_err();
    assert!(error.to_string().contains("needs a runtime"), "{error}");
    assert!(Telemetry::builder(&Config::default()).is_ok());
}

#[test]
fn is_an_error_the_second_time() {
    let install = || {
        Telemetry::builder(&Config::default())
            .unwrap()
            .writer(io::sink)
            .install()
    };
    let _first = install();
    let error = install().unwrap_err();
    assert!(error.to_string().contains("once per process"), "{error}");
}

#[cfg(feature = "config")]
#[test]
fn is_configured_like_every_section() {
    let config: Config = kratos::config::Loader::new("absent")
        .vars([
            ("KRATOS_FORMAT", "json"),
            ("KRATOS_SAMPLE_RATIO", "0.25"),
            ("KRATOS_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ])
        .load()
        .unwrap();
    assert_eq!(config.format, Format::Json);
    assert!((config.sample_ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(
        config.otlp_endpoint.as_deref(),
        Some("http://127.0.0.1:4317")
    );
}
