//! Calls of other gRPC services: one span per call, and the trace goes with it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use axum::body::Bytes;
use http_body::Body as HttpBody;
use opentelemetry::KeyValue;
use tokio::time::Instant;
use tonic::{Code, body::Body};
use tower::{BoxError, Layer, Service};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    metrics::{self, Histogram},
    net::{Accompanied, Companion, GRPC_STATUS, code_name},
    trace,
};

/// Wraps a channel of tonic's so that each call has a CLIENT span, `pkg.Service/Method`, and takes
/// trace and baggage with it.
///
/// ```
/// use kratos::grpc;
///
/// # async fn calls() {
/// let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:9000").connect_lazy();
/// let channel = grpc::Traced::new(channel).server("127.0.0.1", 9000);
/// // GreeterClient::new(channel), of the code that tonic generated
/// # }
/// ```
///
/// A call below a span that is not sampled has no span; its trace goes on all the same. The span
/// ends with the answer's last frame. How long calls take is the metric `rpc.client.call.duration`.
#[derive(Clone, Debug)]
pub struct Traced<S> {
    inner: S,
    layer: TraceLayer,
}

/// The [`Layer`] that makes [`Traced`].
#[derive(Clone, Debug, Default)]
pub struct TraceLayer {
    server: Option<(Arc<str>, u16)>,
}

/// The span of a call, until its answer is read.
struct Call {
    span: Span,
    /// Known already: from the headers of an answer without a body.
    answered: bool,
    /// While metrics are recorded.
    measured: Option<(Instant, Vec<KeyValue>)>,
}

// === impl TraceLayer ===

impl TraceLayer {
    /// A layer that does not say where the calls go.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says where the calls go: `server.address` and `server.port` of the spans.
    #[must_use]
    pub fn server(mut self, address: impl Into<Arc<str>>, port: u16) -> Self {
        self.server = Some((address.into(), port));
        self
    }

    /// What the duration of a call is told by.
    fn measured(&self, path: &str) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(6);
        attributes.extend([
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", path.trim_start_matches('/').to_owned()),
        ]);
        if let Some((address, port)) = &self.server {
            attributes.extend([
                KeyValue::new("server.address", address.clone()),
                KeyValue::new("server.port", i64::from(*port)),
            ]);
        }
        attributes
    }

    fn span(&self, path: &str) -> Span {
        if trace::is_unsampled() {
            return Span::none();
        }
        let method = path.trim_start_matches('/');
        let (address, port) = match &self.server {
            Some((address, port)) => (Some(&**address), Some(i64::from(*port))),
            None => (None, None),
        };
        info_span!(
            "call",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            server.address = address,
            server.port = port,
            rpc.response.status_code = Empty,
            error.type = Empty,
        )
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced {
            inner,
            layer: self.clone(),
        }
    }
}

// === impl Traced ===

impl<S> Traced<S> {
    /// Traces the calls on a channel.
    pub fn new(channel: S) -> Self {
        TraceLayer::new().layer(channel)
    }

    /// Says where the calls go: `server.address` and `server.port` of the spans.
    #[must_use]
    pub fn server(mut self, address: impl Into<Arc<str>>, port: u16) -> Self {
        self.layer = self.layer.server(address, port);
        self
    }
}

impl<S, B, R> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let span = self.layer.span(request.uri().path());
        let measured = metrics::is_enabled().then(|| self.layer.measured(request.uri().path()));
        inject(&span, request.headers_mut());
        let measured = measured.map(|attributes| (Instant::now(), attributes));
        let answer = self.inner.call(request);
        if span.is_disabled() && measured.is_none() {
            return Box::pin(async move { Ok(answer.await?.map(Body::new)) });
        }
        Box::pin(async move {
            let mut call = Call::new(span, measured);
            let response = match answer.instrument(call.span.clone()).await {
                Ok(response) => response,
                Err(error) => {
                    call.ended(Code::Unavailable);
                    return Err(error);
                }
            };
            call.status(response.headers());
            Ok(response.map(|body| Body::new(Accompanied::new(body, call))))
        })
    }
}

/// Writes trace and baggage into the headers of a call, unless the caller has written its own.
fn inject(span: &Span, headers: &mut HeaderMap) {
    let mut set = |name: &'static str, value: String| {
        if let (false, Ok(value)) = (headers.contains_key(name), HeaderValue::try_from(value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(context) = trace::of(span).or_else(trace::current) {
        trace::inject(&context, &mut set);
    }
    trace::inject_baggage(set);
}

// === impl Call ===

impl Call {
    fn new(span: Span, measured: Option<(Instant, Vec<KeyValue>)>) -> Self {
        Self {
            span,
            answered: false,
            measured,
        }
    }

    /// The status of an answer, if it is in these headers.
    fn status(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(GRPC_STATUS) {
            self.ended(Code::from_bytes(code.as_bytes()));
        }
    }

    fn ended(&mut self, code: Code) {
        self.answered = true;
        let name = code_name(code);
        self.span.record("rpc.response.status_code", name);
        if code != Code::Ok {
            self.span.record("error.type", name);
            self.span.record("otel.status_code", "ERROR");
        }
        let Some((begun, mut attributes)) = self.measured.take() else {
            return;
        };
        attributes.push(KeyValue::new("rpc.response.status_code", name));
        if code != Code::Ok {
            attributes.push(KeyValue::new("error.type", name));
        }
        duration().record(begun.elapsed().as_secs_f64(), &attributes);
    }
}

fn duration() -> &'static Histogram<f64> {
    static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
    DURATION.get_or_init(|| {
        let about = "How long calls of other services by gRPC take, to the end of their answer.";
        metrics::server_duration("rpc.client.call.duration", about)
    })
}

impl Companion for Call {
    fn trailers(&mut self, trailers: &HeaderMap) {
        self.status(trailers);
    }

    fn failed(&mut self) {
        self.ended(Code::Unavailable);
    }
}

impl Drop for Call {
    /// Nobody waited for the answer.
    fn drop(&mut self) {
        if !self.answered {
            self.ended(Code::Cancelled);
        }
    }
}
