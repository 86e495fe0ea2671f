//! W3C trace context: how a trace crosses a process border in headers.
//!
//! Read and written by hand, against the OpenTelemetry API alone: a library that carries a trace
//! through its messages needs no SDK, and an unsampled request costs a parse of 55 bytes.
//!
//! ```
//! use std::collections::HashMap;
//!
//! use kratos::trace;
//!
//! let mut headers: HashMap<&str, String> = HashMap::new();
//! headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
//!
//! let parent = trace::extract(|key| headers.get(key).map(String::as_str)).expect("it is well formed");
//! let mut onward = Vec::new();
//! trace::inject(&parent, |key, value| onward.push((key, value)));
//! assert_eq!(onward, [("traceparent", headers["traceparent"].clone())]);
//! ```

mod scoped;
mod traceparent;

use opentelemetry::{
    Context, KeyValue,
    trace::{TraceContextExt, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use self::scoped::Scoped;

/// The trace id, span id, flags and state that identify a span in any process.
pub use opentelemetry::trace::SpanContext;

/// The header with the trace id, the span id and the flags.
pub const TRACEPARENT: &str = "traceparent";

/// The header with what tracing systems add; carried, never looked into.
pub const TRACESTATE: &str = "tracestate";

/// Longest `tracestate` that is carried on, in bytes: the longest that the standard's 32 members
/// of 512 bytes can need. A longer one is dropped, the trace goes on without it.
const TRACESTATE_MAX: usize = 32 * 513;

/// Reads the sender's span from headers; `None` if there is none or it is malformed.
///
/// `get` looks up a header by its lower-case name. The flags are kept as sent: the children of an
/// unsampled span are unsampled.
pub fn extract<'h>(get: impl Fn(&'static str) -> Option<&'h str>) -> Option<SpanContext> {
    let parent = traceparent::parse(get(TRACEPARENT)?)?;
    let state = get(TRACESTATE).and_then(parse_state).unwrap_or_default();
    Some(SpanContext::new(
        parent.trace_id,
        parent.span_id,
        parent.flags,
        true,
        state,
    ))
}

/// Writes `context` into headers, by one call of `set` per header; an invalid one writes nothing.
pub fn inject(context: &SpanContext, mut set: impl FnMut(&'static str, String)) {
    let Some(value) = traceparent::format(context) else {
        return;
    };
    set(TRACEPARENT, value);
    let state = context.trace_state().header();
    if !state.is_empty() {
        set(TRACESTATE, state);
    }
}

/// The span that this code runs in; with none, the remote parent that [`scope`] carries.
#[must_use]
pub fn current() -> Option<SpanContext> {
    of(&Span::current()).or_else(|| {
        Context::map_current(|cx| {
            cx.has_active_span()
                .then(|| cx.span().span_context().clone())
                .filter(SpanContext::is_valid)
        })
    })
}

/// The identity of `span`; `None` if it is disabled or no tracer is installed.
#[must_use]
pub fn of(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

/// The trace id that this code runs in, as 32 hexadecimal digits.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    current().map(|context| context.trace_id().to_string())
}

/// Makes `span` a child of `parent`. Call it before `span` is entered: later it has no effect.
pub fn set_parent(span: &Span, parent: SpanContext) {
    // The error says that no tracer is installed, or that the span was started: both documented.
    let _no_tracer = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Links `span` to another, which is not its parent.
pub fn add_link(span: &Span, to: SpanContext) {
    span.add_link(to);
}

/// Links `span` to another, with attributes of the link: what is true of one of many, as one
/// message of a batch.
pub fn add_link_with(
    span: &Span,
    to: SpanContext,
    attributes: impl IntoIterator<Item = (&'static str, String)>,
) {
    let attributes = attributes.into_iter();
    let attributes = attributes.map(|(key, value)| KeyValue::new(key, value));
    span.add_link_with_attributes(to, attributes.collect());
}

/// Runs `future` in `span`, as a child of `parent`.
///
/// With no tracer installed, or in a span that is disabled, the parent is still carried:
/// [`current`] answers it inside, so that a trace passes through a process that does not record it.
/// `None` starts a new root.
pub fn scope<F: Future>(span: Span, parent: Option<SpanContext>, future: F) -> Scoped<F> {
    let carried = match parent {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => Context::new(),
    };
    if !span.is_disabled() {
        let _no_tracer = span.set_parent(carried.clone());
    }
    Scoped::new(span, carried, future)
}

fn parse_state(state: &str) -> Option<TraceState> {
    if state.len() > TRACESTATE_MAX {
        return None;
    }
    state.parse().ok()
}
