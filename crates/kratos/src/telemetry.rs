//! Logs on stderr, traces and metrics over OTLP, set up once per process.
//!
//! ```no_run
//! # async fn run() -> kratos::Result<()> {
//! let config = kratos::telemetry::Config::default();
//! let telemetry = kratos::telemetry::init(&config)?;
//! kratos::App::new().resource(telemetry).run().await
//! # }
//! ```
//!
//! **Logs** are lines of text or JSON on stderr, chosen by [`Config::log`]. A line that is written
//! within a span ends with its `trace_id` and `span_id`; one that the handler of a message writes says
//! of which `subscription` and `message_id` it is, whether the message is traced or not.
//!
//! **Traces** do not depend on the log level: spans of level info and above are recorded, and events
//! within them. A tracer is installed even when nothing is exported, so that trace ids exist in logs
//! and travel on. What is not exported is reported once a minute at most.
//!
//! **Metrics** are recorded whether anybody reads them or not, once telemetry is installed:
//! [`prometheus`] answers them as text, which the admin server shows at `/metrics`, and once a minute
//! they go where the traces go.
//!
//! The service's name is [`Config::service_name`], else `OTEL_SERVICE_NAME`, else `service.name` in
//! `OTEL_RESOURCE_ATTRIBUTES`, else the executable's name. Further attributes of
//! `OTEL_RESOURCE_ATTRIBUTES` are kept, and the exporter heeds `OTEL_EXPORTER_OTLP_HEADERS` and
//! `OTEL_EXPORTER_OTLP_TIMEOUT`; the endpoint comes from the configuration alone, as does the log
//! level: `RUST_LOG` is not read.

mod builder;
mod config;
mod export;
mod identity;
mod level;
mod lines;
mod prometheus;

use std::sync::Arc;

use opentelemetry_sdk::{error::OTelSdkError, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use tokio::{
    task,
    time::{Instant, timeout_at},
};

use self::export::Losses;
use crate::{Resource, Result, StartContext};

pub use self::{
    builder::Builder,
    config::{Config, Format},
    level::{LogLevel, log_level},
    prometheus::prometheus,
};

/// Sets up logs and traces for the whole process.
///
/// Call it within the runtime, once. Give the result to the App: it flushes the spans last.
///
/// # Errors
///
/// A bad setting, named; another subscriber is installed already, by this function or another.
pub fn init(config: &Config) -> Result<Telemetry> {
    Telemetry::builder(config)?.install()
}

/// The tracer of this process; closing it flushes what is recorded.
#[derive(Debug)]
#[must_use = "add it to the App, which flushes the spans when it stops"]
pub struct Telemetry {
    provider: SdkTracerProvider,
    meters: SdkMeterProvider,
    registry: ::prometheus::Registry,
    losses: Arc<Losses>,
    level: LogLevel,
}

impl Telemetry {
    /// The metrics so far, in Prometheus's text format.
    #[must_use]
    pub fn prometheus(&self) -> String {
        prometheus::text(&self.registry)
    }

    /// What measures, for the instruments of the caller's own. Once telemetry is
    /// [installed](Builder::install) it is OpenTelemetry's global one.
    #[must_use]
    pub fn meter_provider(&self) -> SdkMeterProvider {
        self.meters.clone()
    }

    /// Starts a set-up with a writer or an exporter of the caller's.
    ///
    /// # Errors
    ///
    /// A bad setting, named.
    pub fn builder(config: &Config) -> Result<Builder> {
        Builder::new(config)
    }

    /// What the log shows, and a hand to change it.
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.level.clone()
    }
}

impl Resource for Telemetry {
    fn name(&self) -> &str {
        "telemetry"
    }

    /// Does nothing: an absent collector keeps no service from starting.
    async fn open(&mut self, _cx: StartContext) -> Result<()> {
        Ok(())
    }

    /// Exports what is recorded, until `by`. What is lost is logged and no error: traces are best
    /// effort, and an absent collector does not make a clean stop a failed one.
    async fn close(self, by: Instant) -> Result<()> {
        let Self {
            provider,
            meters,
            losses,
            ..
        } = self;
        let left = by.saturating_duration_since(Instant::now());
        // The SDK waits on a thread of its own and blocks its caller meanwhile.
        let flush = task::spawn_blocking(move || {
            let meters = std::thread::spawn(move || meters.shutdown_with_timeout(left));
            let flushed = provider.shutdown_with_timeout(left);
            // Metrics that are not exported are numbers of the last minute: no word is lost on them.
            let _at_the_same_time = meters.join();
            flushed
        });
        match timeout_at(by, flush).await {
            Ok(Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown))) => losses.report(),
            Err(_) | Ok(Ok(Err(OTelSdkError::Timeout(_)))) => {
                tracing::warn!(waited = ?left, "the last spans were not exported in time");
            }
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "the last spans were not exported");
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the last spans were not exported");
            }
        }
        Ok(())
    }
}
