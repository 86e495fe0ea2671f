//! What a client is told before it connects.

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "tls")]
use crate::Tls;
use crate::{
    CredentialsProvider, Interceptor, credentials::Provider, interceptor::Interceptors,
    message::INVISIBLE_MIN,
};

/// Where the servers are, and how long to wait for them.
///
/// ```
/// use std::time::Duration;
/// use rocketmq_grpc::Config;
///
/// let config = Config::new("127.0.0.1:8081").request_timeout(Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Config {
    pub(crate) endpoints: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) route_refresh_interval: Duration,
    pub(crate) invisible_min: Duration,
    pub(crate) credentials: Option<Provider>,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) interceptors: Interceptors,
    pub(crate) traced: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// What becomes of the addresses in routes.
#[derive(Clone)]
pub(crate) struct Rewrite(pub(crate) Arc<RewriteFn>);

type RewriteFn = dyn Fn(&str, u16) -> (String, u16) + Send + Sync;

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rewrite")
    }
}

impl Config {
    /// Of a proxy, `host:port`; several addresses of one cluster are separated by `;`. They are not
    /// balanced over: the client stays with the one that it reached until that one is lost.
    pub fn new(endpoints: impl Into<String>) -> Self {
        Self {
            endpoints: endpoints.into(),
            namespace: String::new(),
            name: "rocketmq-grpc".to_owned(),
            request_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            heartbeat_interval: Duration::from_secs(10),
            route_refresh_interval: Duration::from_secs(30),
            invisible_min: INVISIBLE_MIN,
            credentials: None,
            rewrite: None,
            interceptors: Interceptors::default(),
            traced: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Namespace of all topics and groups; none by default.
    ///
    /// It goes with every request, for services that know namespaces. The Apache server takes no
    /// notice of it (5.5.0): there, the same name in two namespaces is one topic.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// First part of the client id, which the server's tools and logs show; a host or a service
    /// name is a good one.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Deadline of every request, 3 s by default; a receive has its long poll in addition.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long to wait for a connection to one address, 3 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Time between heartbeats, 10 s by default. Two in a row without an answer mean that the
    /// connection is dead, although nobody said so: it is made anew.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// Shortest lease that the server grants, 10 s by default. For servers that are set up otherwise
    /// (`minInvisibleTimeMillsForRecv`), and for tests: a consumer that asks for less than the
    /// server grants receives nothing.
    pub fn invisible_min(mut self, min: Duration) -> Self {
        self.invisible_min = min;
        self
    }

    /// Time between refreshes of the routes in use, 30 s by default.
    pub fn route_refresh_interval(mut self, interval: Duration) -> Self {
        self.route_refresh_interval = interval;
        self
    }

    /// Signs every request; unsigned by default. [`Credentials`](crate::Credentials) are a provider
    /// themselves.
    pub fn credentials(mut self, provider: impl CredentialsProvider) -> Self {
        self.credentials = Some(Provider::new(provider));
        self
    }

    /// Secures all connections; plaintext by default.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Adds code of yours around sends, receives and settlements.
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// Records spans by OpenTelemetry's global tracer provider: `send {topic}`, `receive {topic}`,
    /// `ack {topic}` and the like for each request that settles messages, and `process {topic}`
    /// around the handlers of a [`PushConsumer`](crate::PushConsumer). Their names and attributes
    /// are those of OpenTelemetry's conventions for messaging, 1.44.
    ///
    /// A message carries the span that it is sent in, and the baggage, in its properties
    /// `traceparent`, `tracestate` and `baggage`, unless it has a trace of its own: then the send is
    /// linked to that. What there is no room for among its properties it goes without. Receivers
    /// are linked to it, and handlers are its children: in a loop of your own, make them so with
    /// [`MessageView::span_context`](crate::MessageView::span_context).
    #[cfg(feature = "opentelemetry")]
    pub fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    /// Replaces the addresses of brokers that routes name, for brokers behind mapped ports or under
    /// other names than they know of themselves. The configured endpoints stay as they are.
    ///
    /// ```
    /// use rocketmq_grpc::Config;
    ///
    /// // Port 8081 of each pod is mapped to a port of this machine.
    /// let config = Config::new("127.0.0.1:18081").rewrite_addresses(|host, port| {
    ///     match (host, port) {
    ///         ("10.0.0.7", 8081) => ("127.0.0.1".to_owned(), 18081),
    ///         (host, port) => (host.to_owned(), port),
    ///     }
    /// });
    /// ```
    pub fn rewrite_addresses(
        mut self,
        rewrite: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static,
    ) -> Self {
        self.rewrite = Some(Rewrite(Arc::new(rewrite)));
        self
    }
}
