//! Log lines.
//!
//! A layer of our own rather than tracing-subscriber's `fmt`: that one renders and keeps the fields
//! of every span, which our lines do not show, and sees no span that the log's filter hides.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io::Write as _,
};

use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt},
};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        FormatFields, MakeWriter,
        format::{DefaultFields, Writer},
        time::{FormatTime, SystemTime},
        writer::BoxMakeWriter,
    },
    layer,
};

use super::Format;
use crate::trace;

/// The target of events that come from the crate `log`, and the field with the true one.
const LOG_TARGET: &str = "log";
const LOG_TARGET_FIELD: &str = "log.target";

/// Writes one line per event.
pub(super) struct Lines {
    format: Format,
    writer: BoxMakeWriter,
    colours: bool,
    service: String,
    version: Option<String>,
}

/// A line of JSON; the order of the fields is that of reading.
#[derive(Serialize)]
struct JsonLine<'e> {
    timestamp: &'e str,
    level: &'e str,
    target: &'e str,
    message: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
    /// The subscription and the message that it was written for.
    #[serde(flatten)]
    about: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    service: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'e str>,
}

/// The fields of an event as JSON.
#[derive(Default)]
struct JsonFields {
    message: String,
    fields: Map<String, Value>,
}

/// Looks for the target that the crate `log` was given.
#[derive(Default)]
struct LogTarget(Option<String>);

// === impl Lines ===

impl Lines {
    pub(super) fn new(
        format: Format,
        writer: BoxMakeWriter,
        colours: bool,
        service: String,
        version: Option<String>,
    ) -> Self {
        trace::want();
        Self {
            format,
            writer,
            colours,
            service,
            version,
        }
    }

    fn text(&self, event: &Event<'_>, line: &mut String) -> fmt::Result {
        SystemTime.format_time(&mut Writer::new(line))?;
        let level = event.metadata().level();
        if self.colours {
            write!(line, " {}{level:>5}\x1b[0m ", colour(*level))?;
        } else {
            write!(line, " {level:>5} ")?;
        }
        write!(line, "{}: ", target(event))?;
        DefaultFields::new().format_fields(Writer::new(line), event)?;
        let mut told = Ok(());
        trace::tell(&mut |name, value| {
            told = told.and_then(|()| write!(line, " {name}={value}"));
        });
        told?;
        if let Some(span) = current() {
            let (trace_id, span_id) = (span.trace_id(), span.span_id());
            write!(line, " trace_id={trace_id} span_id={span_id}")?;
        }
        Ok(())
    }

    fn json(&self, event: &Event<'_>, line: &mut String) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = JsonFields::default();
        event.record(&mut fields);
        let mut about = Map::new();
        trace::tell(&mut |name, value| {
            about.insert(name.to_owned(), value.into());
        });
        let span = current();
        let object = JsonLine {
            timestamp: &timestamp,
            level: event.metadata().level().as_str(),
            target: &target(event),
            message: fields.message,
            fields: fields.fields,
            about,
            trace_id: span.as_ref().map(|span| span.trace_id().to_string()),
            span_id: span.as_ref().map(|span| span.span_id().to_string()),
            service: &self.service,
            version: self.version.as_deref(),
        };
        line.push_str(&serde_json::to_string(&object).map_err(|_unwritable| fmt::Error)?);
        Ok(())
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _cx: layer::Context<'_, S>) {
        let mut line = String::with_capacity(256);
        let written = match self.format {
            Format::Text => self.text(event, &mut line),
            Format::Json => self.json(event, &mut line),
        };
        if written.is_err() {
            return;
        }
        line.push('\n');
        // One write per line, so that those of other threads stay whole. There is nobody to tell
        // that the log cannot be written.
        let _lost = self
            .writer
            .make_writer_for(event.metadata())
            .write_all(line.as_bytes());
    }
}

// === impl JsonFields ===

impl JsonFields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        if field.name().starts_with("log.") {
            return;
        }
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for JsonFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.set(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, crate::error_chain(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

// === impl LogTarget ===

impl Visit for LogTarget {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == LOG_TARGET_FIELD {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

fn target<'e>(event: &Event<'e>) -> Cow<'e, str> {
    let target = event.metadata().target();
    if target == LOG_TARGET {
        let mut found = LogTarget::default();
        event.record(&mut found);
        if let LogTarget(Some(target)) = found {
            return Cow::Owned(target);
        }
    }
    Cow::Borrowed(target)
}

/// The span that is current for OpenTelemetry: also one that the log's filter hides, and a remote
/// parent that is only carried.
fn current() -> Option<SpanContext> {
    Context::map_current(|cx| {
        let span = cx.span();
        let context = span.span_context();
        context.is_valid().then(|| context.clone())
    })
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}
