//! What records spans.

use std::{collections::BTreeMap, fmt, sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, SpanId,
    trace::{SpanKind, Status, TracerProvider as _},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use tokio::time::{Instant, sleep};
use tracing::{Dispatch, Level, dispatcher::DefaultGuard, subscriber::NoSubscriber};
use tracing_subscriber::{Layer, filter::filter_fn, layer::SubscriberExt};

use super::{RecordedLink, RecordedSpan, Spans, follow};

/// How often [`Recorder::wait_for`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Records the spans that end, of level info and above; spans below a parent that is not sampled
/// are not recorded, as in a service.
#[must_use = "it records until it is dropped"]
pub struct Recorder {
    exporter: InMemorySpanExporter,
    /// Of the thread that has made it; `None` of the whole process.
    guard: Option<DefaultGuard>,
}

// === impl Recorder ===

impl Recorder {
    /// Records what happens on this thread: all of a test whose runtime is `current_thread`.
    pub fn of_thread() -> Self {
        // With one subscriber in the process, tracing asks only the thread that comes to a span's
        // place in the code first whether it is recorded, for good: another test's would say no.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
        let (exporter, dispatch) = subscriber();
        let guard = tracing::dispatcher::set_default(&dispatch);
        Self {
            exporter,
            guard: Some(guard),
        }
    }

    /// Records what happens in this process; each call answers the same recorder.
    ///
    /// # Panics
    ///
    /// The process has another tracing subscriber already.
    pub fn of_process() -> Self {
        static SPANS: OnceLock<InMemorySpanExporter> = OnceLock::new();
        let install = || {
            let (exporter, dispatch) = subscriber();
            let installed = tracing::dispatcher::set_global_default(dispatch);
            assert!(
                installed.is_ok(),
                "this process has a tracing subscriber already: record on a thread instead"
            );
            exporter
        };
        Self {
            exporter: SPANS.get_or_init(install).clone(),
            guard: None,
        }
    }

    /// Waits until spans of these names are one below the other, and answers them.
    ///
    /// # Errors
    ///
    /// They are not within that time: the text that [`assert_trace!`](crate::assert_trace) panics
    /// with.
    pub async fn wait_for(
        &self,
        names: &[&str],
        within: Duration,
    ) -> Result<Vec<RecordedSpan>, String> {
        let until = Instant::now() + within;
        loop {
            let found = follow(&self.spans(), names);
            if found.is_ok() || Instant::now() >= until {
                return found;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Forgets what was recorded.
    pub fn clear(&self) {
        self.exporter.reset();
    }
}

impl Spans for Recorder {
    fn spans(&self) -> Vec<RecordedSpan> {
        let spans = self.exporter.get_finished_spans().unwrap_or_default();
        spans.into_iter().map(RecordedSpan::from).collect()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = match self.guard {
            None => "process",
            Some(_) => "thread",
        };
        f.debug_tuple("Recorder").field(&which).finish()
    }
}

fn subscriber() -> (InMemorySpanExporter, Dispatch) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .build();
    let spans = tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_tracer(provider.tracer("kratos"));
    let recorded = filter_fn(|metadata| *metadata.level() <= Level::INFO);
    let subscriber = tracing_subscriber::registry().with(spans.with_filter(recorded));
    (exporter, Dispatch::new(subscriber))
}

// === impl RecordedSpan ===

impl From<SpanData> for RecordedSpan {
    fn from(span: SpanData) -> Self {
        let parent = span.parent_span_id;
        Self {
            name: span.name.into_owned(),
            kind: match span.span_kind {
                SpanKind::Server => "SERVER",
                SpanKind::Client => "CLIENT",
                SpanKind::Producer => "PRODUCER",
                SpanKind::Consumer => "CONSUMER",
                SpanKind::Internal => "INTERNAL",
            },
            trace_id: span.span_context.trace_id().to_string(),
            span_id: span.span_context.span_id().to_string(),
            parent_id: (parent != SpanId::INVALID).then(|| parent.to_string()),
            start: span.start_time,
            end: span.end_time,
            attributes: texts(span.attributes),
            links: span
                .links
                .iter()
                .map(|link| RecordedLink {
                    trace_id: link.span_context.trace_id().to_string(),
                    span_id: link.span_context.span_id().to_string(),
                    attributes: texts(link.attributes.clone()),
                })
                .collect(),
            events: span
                .events
                .iter()
                .map(|event| event.name.to_string())
                .collect(),
            is_error: matches!(span.status, Status::Error { .. }),
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |kv: KeyValue| (kv.key.to_string(), kv.value.to_string());
    attributes.into_iter().map(text).collect()
}
