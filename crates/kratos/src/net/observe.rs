//! Around every route: one span per request, the App's identity, and an answer after a panic.

#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "http")]
mod http;
mod measured;

#[cfg(feature = "grpc")]
pub(crate) use self::grpc::{GRPC_STATUS, name as code_name};

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    mem,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{HeaderMap, Request, Response};
use axum::{Router, body::Body, extract::MatchedPath};
use futures_util::FutureExt;
use tokio::time::timeout;
use tower::{Layer, Service};
use tracing::{Span, error};

use self::measured::Measured;
use super::body::{Accompanied, Companion};
use crate::{AppInfo, metrics, trace};

/// Which conventions a server's spans and answers follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    #[cfg(feature = "http")]
    Http,
    #[cfg(feature = "grpc")]
    Grpc,
}

/// Adds what this module does to every route of `router`.
pub(crate) fn observed(router: Router, protocol: Protocol, info: &AppInfo) -> Router {
    router.layer(ObserveLayer {
        protocol,
        info: info.clone(),
    })
}

#[derive(Clone, Debug)]
struct ObserveLayer {
    protocol: Protocol,
    info: AppInfo,
}

#[derive(Clone, Debug)]
struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

/// Keeps a request's span open until its response was sent.
struct OpenSpan {
    span: Span,
    protocol: Protocol,
    /// Where metrics are recorded.
    measured: Option<Measured>,
}

// === impl Protocol ===

impl Protocol {
    pub(crate) fn scheme(self, secure: bool) -> &'static str {
        match (self, secure) {
            #[cfg(feature = "http")]
            (Self::Http, false) => "http",
            #[cfg(feature = "http")]
            (Self::Http, true) => "https",
            #[cfg(feature = "grpc")]
            (Self::Grpc, false) => "grpc",
            #[cfg(feature = "grpc")]
            (Self::Grpc, true) => "grpcs",
        }
    }

    /// What is offered to clients while keys are agreed on, the best first.
    #[cfg(feature = "tls")]
    pub(crate) fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            #[cfg(feature = "http")]
            Self::Http => &[b"h2", b"http/1.1"],
            #[cfg(feature = "grpc")]
            Self::Grpc => &[b"h2"],
        }
    }

    fn span(self, request: &Request<Body>) -> Span {
        let route = request
            .extensions()
            .get::<MatchedPath>()
            .map(MatchedPath::as_str);
        match self {
            #[cfg(feature = "http")]
            Self::Http => http::span(request, route),
            #[cfg(feature = "grpc")]
            Self::Grpc => grpc::span(request, route),
        }
    }

    fn measured(self, request: &Request<Body>) -> Option<Measured> {
        if !metrics::is_enabled() {
            return None;
        }
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map(MatchedPath::as_str);
        match self {
            #[cfg(feature = "http")]
            Self::Http => Some(http::measured(request, route)),
            #[cfg(feature = "grpc")]
            Self::Grpc => grpc::measured(request, route),
        }
    }

    fn record(self, span: &Span, response: &Response<Body>) {
        match self {
            #[cfg(feature = "http")]
            Self::Http => http::record(span, response.status()),
            #[cfg(feature = "grpc")]
            Self::Grpc => grpc::record(span, response.headers()),
        }
    }

    /// How long the caller waits.
    fn timeout(self, headers: &HeaderMap) -> Option<Duration> {
        match self {
            #[cfg(feature = "http")]
            Self::Http => http::timeout(headers),
            #[cfg(feature = "grpc")]
            Self::Grpc => grpc::timeout(headers),
        }
    }

    fn after_timeout(self) -> Response<Body> {
        match self {
            #[cfg(feature = "http")]
            Self::Http => http::after_timeout(),
            #[cfg(feature = "grpc")]
            Self::Grpc => grpc::after_timeout(),
        }
    }

    fn after_panic(self) -> Response<Body> {
        match self {
            #[cfg(feature = "http")]
            Self::Http => http::after_panic(),
            #[cfg(feature = "grpc")]
            Self::Grpc => grpc::after_panic(),
        }
    }
}

// === impl ObserveLayer ===

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            layer: self.clone(),
        }
    }
}

// === impl Observe ===

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that is ready answers; its clone waits for the next request.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let protocol = self.layer.protocol;
        let span = protocol.span(&request);
        let header = |key| request.headers().get(key)?.to_str().ok();
        let baggage = header(trace::BAGGAGE).and_then(trace::parse_baggage);
        let parent = trace::Parent::new(trace::extract(header), baggage);
        request.extensions_mut().insert(self.layer.info.clone());
        let mut open = OpenSpan {
            measured: protocol.measured(&request),
            span: span.clone(),
            protocol,
        };
        Box::pin(trace::scope_with(span, parent, async move {
            let within = protocol.timeout(request.headers());
            let answer = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
            let response = match limited(within, answer).await {
                Some(Ok(Ok(response))) => response,
                Some(Err(payload)) => {
                    error!(panic = words(&*payload), "a handler panicked");
                    protocol.after_panic()
                }
                None => protocol.after_timeout(),
            };
            protocol.record(&open.span, &response);
            open.answered(&response);
            Ok(response.map(|body| Body::new(Accompanied::new(body, open))))
        }))
    }
}

/// `None` if the answer took longer than its caller waits.
async fn limited<F: Future>(within: Option<Duration>, answer: F) -> Option<F::Output> {
    match within {
        Some(within) => timeout(within, answer).await.ok(),
        None => Some(answer.await),
    }
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

// === impl OpenSpan ===

impl OpenSpan {
    fn answered(&mut self, response: &Response<Body>) {
        let Some(measured) = &mut self.measured else {
            return;
        };
        match self.protocol {
            #[cfg(feature = "http")]
            Protocol::Http => http::answered(measured, response.status()),
            #[cfg(feature = "grpc")]
            Protocol::Grpc => grpc::answered(measured, response.headers()),
        }
    }
}

impl Companion for OpenSpan {
    fn poll<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        self.span.in_scope(poll)
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        match self.protocol {
            #[cfg(feature = "http")]
            Protocol::Http => http::trailers(&self.span, trailers),
            #[cfg(feature = "grpc")]
            Protocol::Grpc => {
                grpc::record(&self.span, trailers);
                if let Some(measured) = &mut self.measured {
                    grpc::answered(measured, trailers);
                }
            }
        }
    }

    fn failed(&mut self) {
        self.span.record("otel.status_code", "ERROR");
    }
}
