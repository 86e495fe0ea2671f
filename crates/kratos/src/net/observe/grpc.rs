//! Spans of gRPC calls, after OpenTelemetry's conventions for RPC servers.

use std::{sync::OnceLock, time::Duration};

use ::http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use axum::body::Body;
use opentelemetry::KeyValue;
use tonic::{Code, Status};
use tracing::{Span, field::Empty, info_span};

use super::measured::Measured;
use crate::metrics::{self, Histogram};

pub(crate) const GRPC_STATUS: &str = "grpc-status";
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Probes come every few seconds and say nothing of the service's work: no span.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// A span named `pkg.Service/Method`; `_OTHER` if no service was added under that name.
pub(super) fn span(request: &Request<Body>, route: Option<&str>) -> Span {
    let path = request.uri().path();
    if path.starts_with(HEALTH) {
        return Span::none();
    }
    let method = if route.is_some() {
        path.trim_start_matches('/')
    } else {
        "_OTHER"
    };
    info_span!(
        "request",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = Empty,
        error.type = Empty,
    )
}

/// The duration of a call; `None` of a probe.
pub(super) fn measured(request: &Request<Body>, route: Option<&str>) -> Option<Measured> {
    static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
    let path = request.uri().path();
    if path.starts_with(HEALTH) {
        return None;
    }
    let histogram = DURATION.get_or_init(|| {
        let about = "How long gRPC calls take, to the end of their answer.";
        metrics::server_duration("rpc.server.call.duration", about)
    });
    // A service's methods are not routes of their own: one that it does not have is answered by it.
    let method = match route {
        Some(_) => path.trim_start_matches('/').to_owned(),
        None => "_OTHER".to_owned(),
    };
    let mut attributes = Vec::with_capacity(4);
    attributes.extend([
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", method),
    ]);
    Some(Measured::begin(histogram, attributes))
}

pub(super) fn answered(measured: &mut Measured, headers: &HeaderMap) {
    let Some(code) = headers.get(GRPC_STATUS) else {
        return;
    };
    let code = Code::from_bytes(code.as_bytes());
    let attributes = &mut measured.attributes;
    if code == Code::Unimplemented {
        // The client's choice.
        attributes.retain(|it| it.key.as_str() != "rpc.method");
        attributes.push(KeyValue::new("rpc.method", "_OTHER"));
    }
    attributes.push(KeyValue::new("rpc.response.status_code", name(code)));
    if is_servers_fault(code) {
        attributes.push(KeyValue::new("error.type", name(code)));
    }
}

/// Records the status, which comes in the trailers, or in the headers of an answer without a body.
pub(super) fn record(span: &Span, headers: &HeaderMap) {
    let Some(code) = headers.get(GRPC_STATUS) else {
        return;
    };
    let code = Code::from_bytes(code.as_bytes());
    let name = name(code);
    span.record("rpc.response.status_code", name);
    if is_servers_fault(code) {
        span.record("error.type", name);
        span.record("otel.status_code", "ERROR");
    }
}

/// How long the caller waits, which tonic reads only in a server of its own.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get(GRPC_TIMEOUT)?.to_str().ok()?)
}

pub(super) fn after_panic() -> Response<Body> {
    answer(&Status::internal("the handler panicked"))
}

pub(super) fn after_timeout() -> Response<Body> {
    answer(&Status::deadline_exceeded(
        "the caller's deadline has passed",
    ))
}

fn answer(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if status.add_header(headers).is_err() {
        headers.insert(GRPC_STATUS, HeaderValue::from_static("2"));
    }
    response
}

/// At most 8 digits and a unit: `100m` is 100 milliseconds.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_timeouts_and_refuses_garbage() {
        assert_eq!(parse_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(
            parse_timeout("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for garbage in ["", "m", "1", "1x", "-1S", "123456789S", "1é", "é"] {
            assert_eq!(parse_timeout(garbage), None, "{garbage}");
        }
    }
}
