//! One connection: serving it, and ending it without losing a request.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::http::{Request, Response, Version};
use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto::Builder};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep},
};
use tower::ServiceExt;
use tracing::debug;

use super::{
    body::{Accompanied, Companion},
    executor::Executor,
    greeting::Greeted,
    in_flight::{Guard, InFlight},
};
use crate::{Shutdown, error_chain};

/// How long an HTTP/1 connection may send one more request once the stop has begun: its client may
/// be writing it.
const LINGER: Duration = Duration::from_millis(250);

/// How often a connection that was told to close is looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// A connection without a request for this long is cut if its client does not close it: it cannot
/// be reading a response any more.
const SILENT: Duration = Duration::from_secs(10);

/// What all connections of a server share.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) builder: Builder<Executor>,
    pub(super) router: Router,
    pub(super) in_flight: InFlight,
    /// How long a client may say nothing, before it says which HTTP it speaks.
    pub(super) silence_max: Duration,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::tls::Tls>,
}

/// What the requests of a connection know of it.
#[derive(Clone)]
struct Caller {
    addr: SocketAddr,
    /// The connection is secure; the certificates that the client showed.
    #[cfg(feature = "tls")]
    tls: Option<Option<crate::tls::ClientCertificates>>,
}

/// What a connection knows of its requests.
#[derive(Debug, Default)]
pub(super) struct Activity {
    began: Notify,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    is_http2: bool,
    running: usize,
    /// When the last request was answered; `None` if there was none.
    idle_since: Option<Instant>,
}

/// One request of a connection.
struct Running {
    activity: Arc<Activity>,
    _named: Guard,
}

pub(super) async fn serve(
    connections: Connections,
    stream: TcpStream,
    peer: SocketAddr,
    activity: Arc<Activity>,
    shutdown: Shutdown,
) {
    // Responses are small and whole: waiting for more to send only delays them.
    let _best_effort = stream.set_nodelay(true);
    #[cfg(feature = "tls")]
    if let Some(tls) = &connections.tls {
        match tls.accept(stream, &shutdown).await {
            Ok(stream) => {
                let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let caller = Caller {
                    addr: peer,
                    tls: Some(crate::tls::ClientCertificates::new(shown)),
                };
                serve_requests(connections, stream, caller, activity, shutdown).await;
            }
            Err(error) => debug!(%peer, error = %error_chain(&error), "a handshake failed"),
        }
        return;
    }
    let caller = Caller {
        addr: peer,
        #[cfg(feature = "tls")]
        tls: None,
    };
    serve_requests(connections, stream, caller, activity, shutdown).await;
}

async fn serve_requests<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    connections: Connections,
    stream: S,
    caller: Caller,
    activity: Arc<Activity>,
    shutdown: Shutdown,
) {
    let Connections {
        builder,
        router,
        in_flight,
        silence_max,
        ..
    } = connections;
    let peer = caller.addr;
    let (stream, said) = Greeted::new(stream);
    let seen = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let running = seen.begin(&request, &in_flight);
        answer(router.clone(), request, caller.clone(), running)
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return log(peer, ended),
        () = shutdown.requested() => {}
        () = said.nothing_for(silence_max) => {
            debug!(%peer, "cut a connection on which nothing was said");
            return;
        }
    }
    if activity.may_send_one_more() {
        tokio::select! {
            ended = connection.as_mut() => return log(peer, ended),
            () = activity.began.notified() => {}
            () = sleep(LINGER) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            ended = connection.as_mut() => return log(peer, ended),
            () = sleep(CHECK_EVERY) => {
                if activity.is_silent() {
                    debug!(%peer, "cut a connection that its client did not close");
                    return;
                }
            }
        }
    }
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    caller: Caller,
    running: Running,
) -> Result<Response<Accompanied<Body, Running>>, Infallible> {
    let extensions = request.extensions_mut();
    extensions.insert(ConnectInfo(caller.addr));
    #[cfg(feature = "tls")]
    if let Some(shown) = caller.tls {
        extensions.insert(super::tls::Secure);
        if let Some(shown) = shown {
            extensions.insert(shown);
        }
    }
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| Accompanied::new(body, running)))
}

fn log(peer: SocketAddr, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        debug!(%peer, error = %error_chain(&*error), "a connection broke");
    }
}

// === impl Activity ===

impl Activity {
    fn begin<B>(self: &Arc<Self>, request: &Request<B>, in_flight: &InFlight) -> Running {
        {
            let mut now = self.lock();
            now.is_http2 = request.version() == Version::HTTP_2;
            now.running += 1;
        }
        self.began.notify_one();
        let named = in_flight.begin(request.method().clone(), request.uri().clone());
        Running {
            activity: self.clone(),
            _named: named,
        }
    }

    /// Whether closing now might cross with a request on its way.
    fn may_send_one_more(&self) -> bool {
        let now = self.lock();
        let wait = !now.is_http2 && now.running == 0;
        if wait {
            // Forget the requests of before.
            let _began = futures_util::FutureExt::now_or_never(self.began.notified());
        }
        wait
    }

    /// Whether none of its requests is being answered.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().running == 0
    }

    fn is_silent(&self) -> bool {
        let now = self.lock();
        now.running == 0 && now.idle_since.is_none_or(|since| since.elapsed() >= SILENT)
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Running ===

impl Companion for Running {}

impl Drop for Running {
    fn drop(&mut self) {
        let mut now = self.activity.lock();
        now.running -= 1;
        now.idle_since = Some(Instant::now());
    }
}
