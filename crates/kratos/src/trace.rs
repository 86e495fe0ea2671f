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

mod about;
mod attributes;
mod baggage;
mod scoped;
mod traceparent;

use opentelemetry::{
    Context,
    baggage::BaggageExt,
    trace::{SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

#[cfg(feature = "telemetry")]
pub(crate) use self::about::{tell, want};
pub use self::{
    about::{About, Subject, Told, about, is_told},
    attributes::Attributes,
    baggage::{BAGGAGE, Baggage, baggage, format_baggage, parse_baggage},
    scoped::Scoped,
};

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

/// Whether this code runs in a trace that is not sampled: a span for what it does would not be
/// recorded.
#[must_use]
pub fn is_unsampled() -> bool {
    current().is_some_and(|context| !context.is_sampled())
}

/// A span that is not sampled and of no trace: nothing below it is recorded.
#[must_use]
pub fn unsampled() -> SpanContext {
    let (trace, span) = (TraceId::from(1), SpanId::from(1));
    SpanContext::new(
        trace,
        span,
        TraceFlags::default(),
        true,
        TraceState::default(),
    )
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
pub fn add_link_with(span: &Span, to: SpanContext, attributes: Attributes) {
    span.add_link_with_attributes(to, attributes.into_vec());
}

/// Links `span` to others, each with attributes of the link.
pub fn add_links(span: &Span, links: impl IntoIterator<Item = (SpanContext, Attributes)>) {
    if span.is_disabled() {
        return;
    }
    let context = span.context();
    let span = context.span();
    for (to, attributes) in links {
        span.add_link(to, attributes.into_vec());
    }
}

/// Adds to `span` what `gather` knows, which is asked only if that is kept: see [`is_recorded`].
pub fn describe(span: &Span, gather: impl FnOnce(&mut Attributes)) {
    if span.is_disabled() {
        return;
    }
    let context = span.context();
    let span = context.span();
    if span.is_recording() {
        let mut attributes = Attributes::new();
        gather(&mut attributes);
        span.set_attributes(attributes.into_vec());
    }
}

/// Whether what is said of `span` is kept: it is enabled, and sampled. Asking starts it, so that its
/// parent must be [set](set_parent) before, and what sampling is to see.
#[must_use]
pub fn is_recorded(span: &Span) -> bool {
    !span.is_disabled() && span.context().span().is_recording()
}

/// Writes the baggage that this code runs with into headers: one call of `set`, or none.
pub fn inject_baggage(set: impl FnOnce(&'static str, String)) {
    if let Some(header) = baggage::current() {
        set(BAGGAGE, header);
    }
}

/// What a message or a request says of where it comes from: the sender's span, if it names one, and
/// the sender's baggage.
#[derive(Clone, Debug, Default)]
pub struct Parent(Context);

/// Makes `span` a child of `parent`, with its baggage. Call it before `span` is entered: later it has
/// no effect.
pub fn adopt(span: &Span, parent: &Parent) {
    if !span.is_disabled() {
        let _no_tracer = span.set_parent(parent.0.clone());
    }
}

/// Runs `future` in `span`, as a child of `parent`.
///
/// With no tracer installed, or in a span that is disabled, the parent is still carried:
/// [`current`] answers it inside, so that a trace passes through a process that does not record it.
/// `None` starts a new root.
pub fn scope<F: Future>(span: Span, parent: Option<SpanContext>, future: F) -> Scoped<F> {
    scope_with(span, Parent::new(parent, None), future)
}

/// Runs `future` in `span`, as [`scope`] does, and with the sender's baggage. A span that was
/// [adopted](adopt) and is started keeps its parent.
pub fn scope_with<F: Future>(span: Span, parent: Parent, future: F) -> Scoped<F> {
    adopt(&span, &parent);
    Scoped::new(span, parent.0, future)
}

/// Runs `future` with this baggage in place of what the code runs with. Messages and calls that it
/// sends have it; a span that is made within it hides it.
///
/// ```
/// use kratos::trace::{self, Baggage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut baggage = Baggage::new();
/// baggage.insert("tenant", "acme");
/// let tenant = async { trace::baggage().get("tenant").map(ToString::to_string) };
/// assert_eq!(trace::with_baggage(baggage, tenant).await.as_deref(), Some("acme"));
/// # }
/// ```
pub fn with_baggage<F: Future>(baggage: Baggage, future: F) -> Scoped<F> {
    let carried = Context::map_current(|cx| cx.with_baggage(baggage));
    Scoped::new(Span::none(), carried, future)
}

// === impl Parent ===

impl Parent {
    /// The sender's span, and its baggage.
    #[must_use]
    pub fn new(span: Option<SpanContext>, baggage: Option<Baggage>) -> Self {
        let context = match span {
            Some(span) => Context::new().with_remote_span_context(span),
            None => Context::new(),
        };
        Self(match baggage {
            Some(baggage) => context.with_baggage(baggage),
            None => context,
        })
    }
}

fn parse_state(state: &str) -> Option<TraceState> {
    if state.len() > TRACESTATE_MAX {
        return None;
    }
    state.parse().ok()
}
