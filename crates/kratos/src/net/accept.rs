//! The accept loop.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{rt::TokioTimer, server::conn::auto::Builder};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
#[cfg(feature = "tls")]
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    Bound, Limits, WhenFull,
    connection::{self, Activity, Connections},
    executor::Executor,
    in_flight::InFlight,
};
use crate::{Error, Result, Shutdown};

/// After an error of `accept`: the process may be out of file descriptors, and connections must end
/// before it goes on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How often a full server looks for a connection that asks nothing.
const ROOM_EVERY: Duration = Duration::from_millis(100);

/// Connections taken from the kernel's queue when the listener closes, at most.
const LAST_ACCEPTS_MAX: usize = 1024;

struct Server {
    connections: Connections,
    tasks: JoinSet<()>,
    slots: Arc<Semaphore>,
    when_full: WhenFull,
    /// The connections, the oldest first, where one may be cut for room.
    held: VecDeque<(AbortHandle, Arc<Activity>)>,
    shutdown: Shutdown,
}

/// Serves until the shutdown is requested, then drains until it says `now`.
pub(super) async fn serve(bound: Bound, shutdown: Shutdown) -> Result<()> {
    let Bound {
        listener,
        router,
        limits,
        #[cfg(feature = "tls")]
        tls,
        ..
    } = bound;
    let cut = CancellationToken::new();
    let _cut_streams = cut.clone().drop_guard();
    let connections = Connections {
        builder: builder(limits, &cut),
        router,
        in_flight: InFlight::default(),
        silence_max: limits.header_read_timeout,
        #[cfg(feature = "tls")]
        tls: tls.as_ref().map(|(tls, _)| tls.clone()),
    };
    let mut server = Server::new(connections, limits, shutdown.clone());
    // Ends when it is dropped, at the latest with this future.
    #[cfg(feature = "tls")]
    let _reload = tls.map(|(_, reload)| AbortOnDropHandle::new(tokio::spawn(reload.run())));
    server.accept(&listener).await;
    server.accept_last(listener);
    server.drain().await;

    let abandoned = server.connections.in_flight.names();
    cut.cancel();
    server.tasks.shutdown().await;
    if abandoned.is_empty() {
        Ok(())
    } else {
        Err(Error::abandoned(abandoned))
    }
}

// === impl Server ===

impl Server {
    fn new(connections: Connections, limits: Limits, shutdown: Shutdown) -> Self {
        Self {
            connections,
            tasks: JoinSet::new(),
            slots: Arc::new(Semaphore::new(limits.connections_max)),
            when_full: limits.when_full,
            held: VecDeque::new(),
            shutdown,
        }
    }

    async fn accept(&mut self, listener: &TcpListener) {
        loop {
            tokio::select! {
                () = self.shutdown.requested() => return,
                Some(ended) = self.tasks.join_next() => log_panic(ended),
                () = sleep(ROOM_EVERY), if self.is_crowded() => self.make_room(),
                accepted = accept_one(listener, &self.slots) => match accepted {
                    Ok((stream, peer, slot)) => self.spawn(stream, peer, Some(slot)),
                    Err(error) if concerns_one_connection(&error) => {
                        debug!(%error, "a connection was gone before it was accepted");
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept connections, trying again");
                        tokio::select! {
                            () = sleep(ACCEPT_PAUSE) => {}
                            () = self.shutdown.requested() => return,
                        }
                    }
                },
            }
        }
    }

    /// Accepts what waits in the kernel's queue, which would be reset with the listener.
    fn accept_last(&mut self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        for _ in 0..LAST_ACCEPTS_MAX {
            let Ok((stream, peer)) = listener.accept() else {
                return;
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if let Ok(stream) = TcpStream::from_std(stream) {
                self.spawn(stream, peer, None);
            }
        }
    }

    fn spawn(&mut self, stream: TcpStream, peer: SocketAddr, slot: Option<OwnedSemaphorePermit>) {
        let (connections, shutdown) = (self.connections.clone(), self.shutdown.clone());
        let activity = Arc::<Activity>::default();
        let seen = activity.clone();
        let task = self.tasks.spawn(async move {
            connection::serve(connections, stream, peer, activity, shutdown).await;
            drop(slot);
        });
        if self.when_full != WhenFull::Wait {
            self.held.retain(|(task, _)| !task.is_finished());
            self.make_room();
            self.held.push_back((task, seen));
        }
    }

    /// Whether the next connection would have to wait, and need not.
    fn is_crowded(&self) -> bool {
        self.when_full != WhenFull::Wait && self.slots.available_permits() == 0
    }

    /// Cuts the oldest connection that asks nothing, if there is room for none.
    fn make_room(&mut self) {
        if !self.is_crowded() {
            return;
        }
        let idle = |(_, activity): &(AbortHandle, Arc<Activity>)| activity.is_idle();
        if let Some((task, _)) = self
            .held
            .iter()
            .position(idle)
            .and_then(|at| self.held.remove(at))
        {
            debug!("cut a connection that asks nothing: there are too many");
            task.abort();
        }
    }

    /// Waits for the connections to end, or for the time to cut them.
    async fn drain(&mut self) {
        loop {
            tokio::select! {
                biased;
                ended = self.tasks.join_next() => match ended {
                    Some(ended) => log_panic(ended),
                    None => return,
                },
                () = self.shutdown.now() => return,
                // For a server without an App: that calls `now` before the deadline.
                () = deadline(&self.shutdown) => return,
            }
        }
    }
}

fn builder(limits: Limits, cut: &CancellationToken) -> Builder<Executor> {
    let mut builder = Builder::new(Executor::new(cut.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .http2()
        .timer(TokioTimer::new());
    builder
}

async fn accept_one(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn deadline(shutdown: &Shutdown) {
    match shutdown.deadline() {
        Some(by) => sleep_until(by).await,
        None => std::future::pending().await,
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        warn!(%error, "a connection's task panicked");
    }
}
