//! Puts the parts together.

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::Arc,
};

use opentelemetry::{InstrumentationScope, global, trace::TracerProvider};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_prometheus::PrometheusExporter;
use opentelemetry_sdk::{
    metrics::{PeriodicReader, SdkMeterProvider},
    propagation::TraceContextPropagator,
    trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, SpanExporter},
};
use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::{
    Layer, Registry,
    filter::{EnvFilter, filter_fn},
    fmt::{MakeWriter, writer::BoxMakeWriter},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use super::{
    Config, Telemetry,
    export::{self, Losses, Watched},
    identity,
    level::LogLevel,
    lines::Lines,
    prometheus,
};
use crate::{Error, Result, metrics};

/// The conventions that the names of our spans and attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// A set-up of telemetry with a writer or an exporter of the caller's.
///
/// ```
/// use kratos::telemetry::{Config, Telemetry};
///
/// let (telemetry, dispatch) = Telemetry::builder(&Config::default())?.writer(std::io::sink).build();
/// tracing::dispatcher::with_default(&dispatch, || {
///     let _entered = tracing::info_span!("work").entered();
///     assert!(kratos::trace::current_trace_id().is_some());
/// });
/// # drop(telemetry);
/// # Ok::<_, kratos::Error>(())
/// ```
pub struct Builder {
    config: Config,
    filter: EnvFilter,
    sample_ratio: f64,
    writer: BoxMakeWriter,
    colours: bool,
    processor: Option<BatchSpanProcessor>,
    metrics: Option<PeriodicReader<MetricExporter>>,
    registry: (PrometheusExporter, ::prometheus::Registry),
    losses: Arc<Losses>,
}

impl Builder {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let mut builder = Self {
            config: config.clone(),
            filter: config.filter()?,
            sample_ratio: config.sample_ratio()?,
            writer: BoxMakeWriter::new(io::stderr),
            colours: io::stderr().is_terminal(),
            processor: None,
            metrics: None,
            registry: prometheus::reader()?,
            losses: Arc::default(),
        };
        if let Some(endpoint) = config.otlp_endpoint()? {
            builder = builder.exporter(export::otlp(endpoint)?);
            if config.otlp_metrics {
                builder.metrics = Some(PeriodicReader::builder(export::metrics(endpoint)?).build());
            }
        }
        Ok(builder)
    }

    /// Writes lines to `writer`, without colours; to stderr by default.
    #[must_use]
    pub fn writer(mut self, writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) -> Self {
        self.writer = BoxMakeWriter::new(writer);
        self.colours = false;
        self
    }

    /// Exports spans by `exporter`, in batches, in place of the configured endpoint.
    #[must_use]
    pub fn exporter(mut self, exporter: impl SpanExporter + 'static) -> Self {
        let exporter = Watched::new(exporter, Arc::clone(&self.losses));
        self.processor = Some(BatchSpanProcessor::builder(exporter).build());
        self
    }

    /// Makes the subscriber and installs it nowhere: for tests, and for processes that choose a
    /// subscriber per thread.
    pub fn build(self) -> (Telemetry, Dispatch) {
        let (resource, service) = identity::detect(&self.config);
        let (reader, registry) = self.registry;
        let mut meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(reader);
        if let Some(metrics) = self.metrics {
            meters = meters.with_reader(metrics);
        }
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                self.sample_ratio,
            ))));
        if let Some(processor) = self.processor {
            provider = provider.with_span_processor(processor);
        }
        let provider = provider.build();
        let tracer = provider.tracer_with_scope(
            InstrumentationScope::builder("kratos")
                .with_version(env!("CARGO_PKG_VERSION"))
                .with_schema_url(SCHEMA_URL)
                .build(),
        );

        // Only what a span's author recorded: attributes of the code and the thread cost space in
        // every span and are in no convention.
        let spans = tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_tracer(tracer);
        let lines = Lines::new(
            self.config.format,
            self.writer,
            self.colours,
            service,
            self.config.service_version.clone(),
        );
        let (filter, reload) = reload::Layer::new(self.filter);
        let level = LogLevel::new(&self.config.log, reload);
        let subscriber = Registry::default()
            .with(spans.with_filter(filter_fn(is_traced)))
            .with(
                lines
                    .with_filter(filter_fn(is_not_reported_twice))
                    .with_filter(filter),
            );

        let losses = self.losses;
        let telemetry = Telemetry {
            provider,
            losses,
            level,
            meters: meters.build(),
            registry,
        };
        (telemetry, Dispatch::new(subscriber))
    }

    /// Makes the subscriber that of the whole process, and the tracer OpenTelemetry's global one.
    ///
    /// # Errors
    ///
    /// Another subscriber is installed already.
    pub fn install(self) -> Result<Telemetry> {
        let (telemetry, dispatch) = self.build();
        dispatch.try_init().map_err(|error| {
            Error::msg("telemetry is set up already: do it once per process").with_source(error)
        })?;
        telemetry.level.install();
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(telemetry.provider.clone());
        global::set_meter_provider(telemetry.meters.clone());
        prometheus::install(&telemetry.registry);
        metrics::enable();
        Ok(telemetry)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Whether a span is recorded, an event added to its span. Independent of the log's filter: a quiet
/// service is traced as well. Deeper levels are the transport's own, and the exporter's would trace
/// the export of traces.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && !metadata.target().starts_with("opentelemetry")
}

/// Whether an event may be logged: the SDK logs each failed batch, which [`Losses`] sums up.
fn is_not_reported_twice(metadata: &Metadata<'_>) -> bool {
    metadata.name() != "BatchSpanProcessor.ExportError"
}
