//! The way of spans out of the process.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry_otlp::{MetricExporter, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use tokio::{runtime::Handle, time::Instant};

use crate::{Error, Result};

/// Shortest time between two reports of lost spans. A dead collector fails an export every 5 s.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// An exporter whose failures are counted, and reported now and then.
#[derive(Debug)]
pub(super) struct Watched<E> {
    exporter: E,
    losses: Arc<Losses>,
}

/// What could not be exported.
#[derive(Debug, Default)]
pub(super) struct Losses {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spans: usize,
    last_error: String,
    reported_at: Option<Instant>,
}

/// An exporter to a collector. It connects when it has something to send.
pub(super) fn otlp(endpoint: &str) -> Result<OtlpExporter> {
    if Handle::try_current().is_err() {
        return Err(Error::msg(
            "telemetry.otlp_endpoint needs a runtime: set telemetry up within kratos::main",
        ));
    }
    OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| {
            let message = format!("telemetry.otlp_endpoint: cannot export to {endpoint:?}");
            Error::msg(message).with_source(error)
        })
}

/// The same for metrics.
pub(super) fn metrics(endpoint: &str) -> Result<MetricExporter> {
    MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| {
            let message = format!("telemetry.otlp_endpoint: cannot export to {endpoint:?}");
            Error::msg(message).with_source(error)
        })
}

// === impl Watched ===

impl<E> Watched<E> {
    pub(super) fn new(exporter: E, losses: Arc<Losses>) -> Self {
        Self { exporter, losses }
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported {
            self.losses.add(spans, error.to_string());
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

// === impl Losses ===

impl Losses {
    fn add(&self, spans: usize, error: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.spans += spans;
        state.last_error = error;
        let due = state
            .reported_at
            .is_none_or(|at| at.elapsed() >= REPORT_INTERVAL);
        drop(state);
        if due {
            self.report();
        }
    }

    /// Logs what was lost since the last report, if anything.
    pub(super) fn report(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.spans == 0 {
            return;
        }
        let lost = std::mem::take(&mut state.spans);
        let error = std::mem::take(&mut state.last_error);
        state.reported_at = Some(Instant::now());
        drop(state);
        tracing::warn!(lost, error, "spans were not exported");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::telemetry::{Config, Telemetry};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn reports_many_failures_in_one_line() {
        let (log, losses) = (Log::default(), Losses::default());
        let writer = log.clone();
        let builder = Telemetry::builder(&Config::default()).unwrap();
        let (_telemetry, dispatch) = builder.writer(move || writer.clone()).build();

        tracing::dispatcher::with_default(&dispatch, || {
            for _ in 0..1000 {
                losses.add(3, "refused".to_owned());
            }
            losses.report();
            losses.report();
        });

        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains("spans were not exported lost=3 error=\"refused\""),
            "{text}"
        );
        assert!(lines[1].contains("lost=2997"), "{text}");
    }
}
