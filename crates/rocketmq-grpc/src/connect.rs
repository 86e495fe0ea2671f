//! How connections are made: over TCP, or over whatever a [`Connector`] brings.

mod probe;

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};
use tower::{
    Service, ServiceExt as _,
    util::{BoxCloneSyncService, MapErr, MapResponse},
};

use self::probe::Probe;
pub(crate) use self::probe::{Diagnosis, Fault, Security};
use crate::endpoints::{Address, Endpoints};

/// An error of any kind, as connectors and providers of credentials give it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A byte stream to a server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type BoxStream = Box<dyn Stream>;

/// Makes byte streams to `http://host:port`; TCP by default.
///
/// Any tower service from [`Uri`] to something that reads and writes will do: an in-memory broker in
/// a test, a tunnel, a proxy. With [`Config::tls`](crate::Config::tls), TLS is spoken over its
/// streams.
#[derive(Clone)]
pub struct Connector {
    service: BoxCloneSyncService<Uri, BoxStream, BoxError>,
    security: Security,
}

/// Tries the addresses of one [`Endpoints`] in turn and remembers the one that answered.
#[derive(Debug, Clone)]
pub(crate) struct Sticky {
    connector: Connector,
    endpoints: Endpoints,
    current: Arc<AtomicUsize>,
    /// For each address.
    connect_timeout: Duration,
    /// Attempts so far.
    attempts: watch::Sender<u64>,
    diagnosis: Diagnosis,
}

/// None of the addresses accepted a connection.
#[derive(Debug)]
pub(crate) struct Unreachable {
    endpoints: Endpoints,
    source: BoxError,
}

// === impl Connector ===

impl Connector {
    /// Wraps a service.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Uri> + Clone + Send + Sync + 'static,
        S::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let service = MapResponse::new(service, |stream| Box::new(stream) as BoxStream);
        Self {
            service: BoxCloneSyncService::new(MapErr::new(service, Into::into)),
            security: Security::NONE,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn with_security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    #[cfg(feature = "tls")]
    pub(crate) fn into_service(self) -> BoxCloneSyncService<Uri, BoxStream, BoxError> {
        self.service
    }

    pub(crate) fn scheme(&self) -> &'static str {
        self.security.scheme
    }

    /// TCP with `TCP_NODELAY`.
    pub(crate) fn tcp() -> Self {
        Self::new(tower::service_fn(|uri: Uri| async move {
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(8081))).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        }))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

// === impl Sticky ===

impl Sticky {
    pub(crate) fn new(
        connector: Connector,
        endpoints: Endpoints,
        connect_timeout: Duration,
    ) -> Self {
        Self {
            connector,
            endpoints,
            current: Arc::new(AtomicUsize::new(0)),
            connect_timeout,
            attempts: watch::Sender::new(0),
            diagnosis: Diagnosis::default(),
        }
    }

    /// Why the last connection was of no use, if that is known.
    pub(crate) fn diagnosis(&self) -> Option<Fault> {
        self.diagnosis.last()
    }

    /// Changes when a connection is looked for: the last one takes no more requests, although its
    /// streams may go on for a while.
    pub(crate) fn attempts(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    async fn connect(self) -> Result<TokioIo<Probe>, Unreachable> {
        self.attempts.send_modify(|it| *it += 1);
        let addresses = self.endpoints.addresses();
        let first = self.current.load(Ordering::Relaxed);
        let mut last: Option<BoxError> = None;
        for n in 0..addresses.len() {
            let at = (first + n) % addresses.len();
            match self.connect_to(&addresses[at]).await {
                Ok(stream) => {
                    self.current.store(at, Ordering::Relaxed);
                    let security = self.connector.security;
                    let probe = Probe::new(stream, security, self.diagnosis);
                    return Ok(TokioIo::new(probe));
                }
                Err(error) => last = Some(error),
            }
        }
        let source = last.unwrap_or_else(|| "no address".into());
        Err(Unreachable {
            endpoints: self.endpoints,
            source,
        })
    }

    async fn connect_to(&self, address: &Address) -> Result<BoxStream, BoxError> {
        let uri: Uri = format!("http://{address}").parse()?;
        let connecting = self.connector.service.clone().oneshot(uri);
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(result) => result,
            Err(_) => Err(format!("no connection within {:?}", self.connect_timeout).into()),
        }
    }
}

impl Service<Uri> for Sticky {
    type Response = TokioIo<Probe>;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unreachable>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", self.endpoints)
    }
}

impl StdError for Unreachable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn stays_with_the_address_that_answered_and_moves_on_when_it_is_lost() {
        let down = Arc::new(Mutex::new(vec!["a"]));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connector = {
            let (down, seen) = (down.clone(), seen.clone());
            Connector::new(tower::service_fn(move |uri: Uri| {
                let host = uri.host().unwrap().to_owned();
                seen.lock().unwrap().push(host.clone());
                let up = !down.lock().unwrap().contains(&host.as_str());
                async move {
                    if up {
                        Ok(tokio::io::duplex(1).0)
                    } else {
                        Err("refused")
                    }
                }
            }))
        };
        let endpoints = "a:1;b:1;c:1".parse().unwrap();
        let sticky = Sticky::new(connector, endpoints, Duration::from_secs(1));

        sticky.clone().connect().await.unwrap();
        sticky.clone().connect().await.unwrap();
        *down.lock().unwrap() = vec!["b"];
        sticky.clone().connect().await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["a", "b", "b", "b", "c"]);

        *down.lock().unwrap() = vec!["a", "b", "c"];
        let error = sticky.connect().await.err().unwrap();
        assert_eq!(error.to_string(), "cannot connect to a:1;b:1;c:1");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_is_left_after_the_connect_timeout() {
        let connector = Connector::new(tower::service_fn(|uri: Uri| async move {
            if uri.host() == Some("a") {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(tokio::io::duplex(1).0)
        }));
        let endpoints = "a:1;b:1".parse().unwrap();
        let before = tokio::time::Instant::now();
        Sticky::new(connector, endpoints, Duration::from_secs(3))
            .connect()
            .await
            .unwrap();
        assert_eq!(before.elapsed(), Duration::from_secs(3));
    }
}
