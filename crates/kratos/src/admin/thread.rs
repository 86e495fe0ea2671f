//! The thread of the admin server, with a runtime that nobody else uses.

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use tokio::{
    runtime::Builder,
    sync::oneshot,
    time::{Instant, timeout},
};

use super::look::LOOKS_MAX;
use crate::{
    BoundServer, Error, Result, Shutdown, ShutdownTrigger, error_chain,
    net::{Bound, Hint, Limits, Protocol, WhenFull, listen},
};

const HINT: Hint = Hint {
    key: "admin.addr",
    variable: "KRATOS_ADMIN__ADDR",
};

/// Connections at once; a page holds one or two. The oldest idle one makes room for the next.
const CONNECTIONS_MAX: usize = 64;

/// How long the head of a request may take.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long answers that are under way may take at the end.
const DRAIN: Duration = Duration::from_millis(100);

/// How long the thread may take to end, after that.
const END: Duration = Duration::from_millis(150);

/// A running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Thread {
    addr: SocketAddr,
    stop: ShutdownTrigger,
    ended: oneshot::Receiver<Result<()>>,
}

// === impl Thread ===

impl Thread {
    /// Listens, and answers from then on.
    pub(super) async fn start(addr: SocketAddr, router: Router) -> Result<Self> {
        let (stop, shutdown) = Shutdown::channel();
        let (bound_tx, bound) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel();
        let run = move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(LOOKS_MAX)
                .thread_name("kratos-admin-look")
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _gone = bound_tx.send(Err(cannot_start(error)));
                    return;
                }
            };
            let served = runtime.block_on(serve(addr, router, shutdown, bound_tx));
            // A look may hang for ever.
            runtime.shutdown_background();
            let _gone = ended_tx.send(served);
        };
        std::thread::Builder::new()
            .name("kratos-admin".to_owned())
            .spawn(run)
            .map_err(cannot_start)?;
        let addr = bound
            .await
            .unwrap_or_else(|_| Err(Error::msg("the thread of the admin server panicked")))?;
        Ok(Self { addr, stop, ended })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Completes when the thread ends, which it does not before it is told to.
    pub(super) async fn ended(&mut self) -> Result<()> {
        let panicked = || Err(Error::msg("the thread of the admin server panicked"));
        (&mut self.ended).await.unwrap_or_else(|_| panicked())
    }

    /// Stops listening, and waits for the thread: not long. What is cut off was a question.
    pub(super) async fn stop(&mut self) {
        self.stop.request(Instant::now() + DRAIN);
        match timeout(DRAIN + END, &mut self.ended).await {
            Ok(Ok(Err(error))) => {
                let error = error_chain(&error);
                tracing::debug!(%error, "answers of the admin server were cut");
            }
            Ok(_) => {}
            Err(_) => tracing::debug!("the admin server's thread ends later"),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.force();
    }
}

async fn serve(
    addr: SocketAddr,
    router: Router,
    shutdown: Shutdown,
    bound: oneshot::Sender<Result<SocketAddr>>,
) -> Result<()> {
    let socket = match listen(addr, HINT) {
        Ok(socket) => socket,
        Err(error) => {
            let _gone = bound.send(Err(error));
            return Ok(());
        }
    };
    if bound.send(Ok(socket.1)).is_err() {
        return Ok(());
    }
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        when_full: WhenFull::CutIdle,
        header_read_timeout: HEADER_READ_TIMEOUT,
    };
    Bound::new(socket, router, limits, Protocol::Http)
        .serve(shutdown)
        .await
}

fn cannot_start(error: io::Error) -> Error {
    Error::msg("cannot start the thread of the admin server").with_source(error)
}
