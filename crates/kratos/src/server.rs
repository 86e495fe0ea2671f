//! What the App runs: a server is bound, then served.
//!
//! [`Server`] is a value that can be bound once, [`BoundServer`] one that can be served once.
//! Both take `self`, so serving an unbound server, or serving twice, does not compile.

use std::future::Future;

use tokio::sync::watch;

use crate::{Description, Endpoint, Health, Result, Shutdown, StartContext};

/// A server that has not started yet.
///
/// # Laws
///
/// * Everything that can fail at start fails in [`bind`](Server::bind): sockets, routes, topics.
///   After every server of the App is bound, all are served.
/// * `bind` may be dropped at any await; nothing may leak then.
/// * Constructors do no I/O.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a server that an App can run",
    label = "not a server",
    note = "a message server whose handlers take State<T> is one after `.with_state(state)`"
)]
pub trait Server: Send + 'static {
    /// The server once it is bound.
    type Bound: BoundServer;

    /// The name in logs and errors; unique within one App.
    fn name(&self) -> &str;

    /// What the server will serve, and how it can be seen while it runs. Does no I/O.
    fn describe(&self) -> Description {
        Description::default()
    }

    /// Acquires everything the server needs, and checks it.
    ///
    /// # Errors
    ///
    /// Whatever keeps the server from serving; the App adds the server's name.
    fn bind(self, cx: StartContext) -> impl Future<Output = Result<Self::Bound>> + Send;
}

/// A server that is ready to serve.
pub trait BoundServer: Send + 'static {
    /// The addresses that clients can reach; none for a consumer.
    fn endpoints(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    /// The server's own view of its health, while it serves.
    fn health(&self) -> watch::Receiver<Health> {
        Health::always()
    }

    /// Serves until [`Shutdown::requested`], then drains and returns by [`Shutdown::deadline`].
    ///
    /// At [`Shutdown::now`] handlers that still run must be cancelled. The future owns its tasks:
    /// dropping it ends them.
    ///
    /// # Errors
    ///
    /// A failure while serving, or [`Error::abandoned`](crate::Error::abandoned) with the ids of
    /// the work that was cut off. A server that returns before it was asked to stops the App.
    fn serve(self, shutdown: Shutdown) -> impl Future<Output = Result<()>> + Send;
}
