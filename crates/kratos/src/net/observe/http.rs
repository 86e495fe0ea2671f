//! Spans of HTTP requests, after OpenTelemetry's conventions for HTTP servers.

use std::{sync::OnceLock, time::Duration};

use ::http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use axum::body::Body;
use opentelemetry::KeyValue;
use tracing::{Span, field::Empty, info_span};

use super::measured::Measured;
use crate::metrics::{self, Histogram};

/// A span named `METHOD /route`; without a route, which is what a 404 has, just `METHOD`: paths are
/// the client's choice, and as many.
pub(super) fn span(request: &Request<Body>, route: Option<&str>) -> Span {
    let (name, method) = match known(request.method()) {
        Some(method) => (method, method),
        None => ("HTTP", "_OTHER"),
    };
    let name = match route {
        Some(route) => format!("{name} {route}"),
        None => name.to_owned(),
    };
    let span = info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
        url.path = request.uri().path(),
        url.scheme = super::super::scheme(request.extensions()),
        network.protocol.version = version(request.version()),
        error.type = Empty,
    );
    if let Some(route) = route {
        span.record("http.route", route);
    }
    span
}

/// The duration of a request, by its route: paths are the client's choice.
pub(super) fn measured(request: &Request<Body>, route: Option<&str>) -> Measured {
    static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
    let histogram = DURATION.get_or_init(|| {
        let about = "How long HTTP requests take, to the end of their answer.";
        metrics::server_duration("http.server.request.duration", about)
    });
    let method = known(request.method()).unwrap_or("_OTHER");
    let scheme = super::super::scheme(request.extensions());
    let mut attributes = Vec::with_capacity(6);
    attributes.extend([
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.scheme", scheme),
        KeyValue::new("network.protocol.version", version(request.version())),
    ]);
    if let Some(route) = route {
        attributes.push(KeyValue::new("http.route", route.to_owned()));
    }
    Measured::begin(histogram, attributes)
}

pub(super) fn answered(measured: &mut Measured, status: StatusCode) {
    let code = i64::from(status.as_u16());
    let attributes = &mut measured.attributes;
    attributes.push(KeyValue::new("http.response.status_code", code));
    if status.is_server_error() {
        attributes.push(KeyValue::new("error.type", status.as_str().to_owned()));
    }
}

pub(super) fn record(span: &Span, status: StatusCode) {
    // Signed: tracing-opentelemetry would write an unsigned number as text.
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
}

/// HTTP has no header that says how long the caller waits.
pub(super) fn timeout(_headers: &HeaderMap) -> Option<Duration> {
    None
}

/// The conventions take nothing from trailers.
pub(super) fn trailers(_span: &Span, _trailers: &HeaderMap) {}

pub(super) fn after_panic() -> Response<Body> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, "internal server error\n")
}

pub(super) fn after_timeout() -> Response<Body> {
    plain(StatusCode::GATEWAY_TIMEOUT, "timed out\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

fn known(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        _ => return None,
    })
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
