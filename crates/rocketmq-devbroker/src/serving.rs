//! The serving side: connections, and the tasks that they are made of.
//!
//! The tasks are ours, so that the broker can go away at a moment's notice: a connection that is
//! cut takes every stream on it along.

use std::{
    convert::Infallible, error::Error, future::Future, net::SocketAddr, sync::Arc, time::Duration,
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rocketmq_proto::v2::messaging_service_server::MessagingServiceServer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

use crate::{
    access::Users,
    core::Core,
    frost::Freezable,
    service::{Fault, Peer, Service},
    tls::Tls,
};

/// Streams on one connection; every waiting receive is one.
const MAX_STREAMS: u32 = 10_000;
/// Calls that a client may give up in one go: hyper's default of 20 would cut the connection of a
/// consumer that cancels all its receives.
const MAX_PENDING_RESETS: usize = 10_000;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// What the real server takes in one message.
const MAX_MESSAGE_BYTES: usize = 130 << 20;
/// How long the listener rests after it could not accept, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who may connect, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) users: Users,
    pub(crate) tls: Option<Tls>,
}

/// A connection, whatever it is made of.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> Io for I {}

/// Connections that live and die together.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    core: Arc<Core>,
    tasks: Tasks,
}

/// Tasks that end when the serving side stops. It is the executor of every connection, too.
#[derive(Clone, Debug, Default)]
struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.spawn(async move {
            future.await;
        });
    }
}

impl Serving {
    /// Begins to let time pass for the state machine. Must run on a tokio runtime.
    pub(crate) fn start(core: Arc<Core>) -> Self {
        let serving = Self {
            core: Arc::clone(&core),
            tasks: Tasks::default(),
        };
        serving.tasks.spawn(async move { core.drive().await });
        serving
    }

    /// Serves every connection that the listener accepts.
    pub(crate) fn accept(&self, listener: TcpListener) {
        let serving = self.clone();
        self.tasks.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%peer, %error, "connection lost at once");
                        }
                        serving.connection(stream, Some(peer));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }

    /// Serves one connection.
    pub(crate) fn connection<I>(&self, io: I, peer: Option<SocketAddr>)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = MessagingServiceServer::new(Service::new(Arc::clone(&self.core)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let core = Arc::clone(&self.core);
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            let signature = core.access().users.check(request.headers());
            request.extensions_mut().insert(signature);
            request.extensions_mut().insert(Peer(peer));
            let fault = Fault::of(&core, &mut request);
            let answer = service.clone().call(request);
            async move {
                let answer = answer.await.unwrap_or_else(|never| match never {});
                fault.strike().await;
                Ok::<_, Infallible>(answer)
            }
        });
        let mut http = http2::Builder::new(self.tasks.clone());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let tls = self.core.access().tls.clone();
        let frost = self.core.frost().clone();
        self.tasks.spawn(async move {
            let served = async {
                let io = Freezable::new(io, frost);
                let io: Box<dyn Io> = match tls {
                    Some(tls) => tls.accept(io).await?,
                    None => Box::new(io),
                };
                http.serve_connection(TokioIo::new(io), service).await?;
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            };
            if let Err(error) = served.await {
                tracing::debug!(?peer, error, "connection ended");
            }
        });
    }

    #[cfg(test)]
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.tracker.len()
    }

    /// Cuts every connection, now or as soon as its task is polled.
    pub(crate) fn cut(&self) {
        self.tasks.stop.cancel();
    }

    /// Cuts every connection and returns once nothing of it is left.
    pub(crate) async fn stop(self) {
        self.cut();
        self.tasks.tracker.close();
        self.tasks.tracker.wait().await;
        self.core.with(|state, _| state.forget_clients());
    }
}
