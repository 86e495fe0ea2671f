//! W3C trace context and baggage as properties of messages.
//!
//! Written by hand: the propagators of OpenTelemetry are a part of its SDK, which is the
//! application's, and the one that is installed may speak something else than receivers read.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use opentelemetry::{
    Context,
    baggage::BaggageExt as _,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId},
};
use tracing::warn;

use crate::Message;

pub(super) const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// Bytes of the header of the first version.
const LENGTH: usize = 55;

/// The span that properties name.
pub(super) fn extract<'p>(get: impl Fn(&str) -> Option<&'p str>) -> Option<SpanContext> {
    let (trace_id, span_id, flags) = parse(get(TRACEPARENT)?)?;
    let state = get(TRACESTATE).and_then(|state| state.parse().ok());
    let state = state.unwrap_or_default();
    Some(SpanContext::new(trace_id, span_id, flags, true, state))
}

/// Has a message carry the span and the baggage of a context, unless it has some of its own, and as
/// far as it has room.
pub(super) fn inject(context: &Context, message: &mut Message) {
    let span = context.span().span_context().clone();
    if span.is_valid() && message.property_value(TRACEPARENT).is_none() {
        let (trace_id, span_id) = (span.trace_id(), span.span_id());
        let flags = span.trace_flags().to_u8();
        set(
            message,
            TRACEPARENT,
            format!("00-{trace_id}-{span_id}-{flags:02x}"),
        );
        let state = span.trace_state().header();
        if !state.is_empty() {
            set(message, TRACESTATE, state);
        }
    }
    let baggage = context.baggage();
    if !baggage.is_empty() && message.property_value(BAGGAGE).is_none() {
        set(message, BAGGAGE, baggage.to_string());
    }
}

/// A message is worth more than what is said of it: without room for that it goes without.
fn set(message: &mut Message, name: &'static str, value: String) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if message.has_room_for(name, &value) {
        message.set_property(name, value);
    } else if !TOLD.swap(true, Relaxed) {
        warn!(
            topic = message.topic(),
            property = name,
            bytes = value.len(),
            "a message has no room for this property and is sent without it; told once"
        );
    }
}

fn parse(header: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let header = header.trim_matches([' ', '\t']);
    let (fixed, rest) = header.split_at_checked(LENGTH)?;
    let mut fields = fixed.split('-');
    let [version, trace_id, span_id, flags] = [(); 4].map(|()| fields.next().unwrap_or_default());
    let lengths = [version, trace_id, span_id, flags].map(str::len);
    let lower = |it: u8| matches!(it, b'0'..=b'9' | b'a'..=b'f' | b'-');
    if lengths != [2, 32, 16, 2] || !fixed.bytes().all(lower) || version == "ff" {
        return None;
    }
    // What a later version adds is behind another dash.
    if !rest.is_empty() && (version == "00" || !rest.starts_with('-')) {
        return None;
    }
    let trace_id = TraceId::from_hex(trace_id).ok()?;
    let span_id = SpanId::from_hex(span_id).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let valid = trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
    // Of the flags those that are defined: sampled, and random.
    valid.then(|| (trace_id, span_id, TraceFlags::new(flags & 0b11)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_what_is_well_formed() {
        let (trace_id, span_id, flags) = parse(GOOD).unwrap();
        assert_eq!(trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span_id.to_string(), "00f067aa0ba902b7");
        assert!(flags.is_sampled());
        let later = GOOD.replace("00-4b", "cc-4b");
        for header in [
            format!(" {GOOD}\t"),
            GOOD.replace("-01", "-00"),
            format!("{later}-more"),
        ] {
            assert!(parse(&header).is_some(), "{header}");
        }
    }

    #[test]
    fn refuses_everything_else_and_never_panics() {
        let zeroes = GOOD.replace("00f067aa0ba902b7", "0000000000000000");
        for header in [
            "",
            "-",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &zeroes,
            &"é".repeat(40),
            &"-".repeat(55),
            &GOOD.replace("-01", "-0g"),
        ] {
            assert!(parse(header).is_none(), "{header:?}");
        }
    }
}
