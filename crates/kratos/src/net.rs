//! What HTTP and gRPC share: one accept loop, whose connections end when it says so.
//!
//! Ours, because `axum::serve` and tonic's server detach their connections: dropping them cuts
//! nothing, and a hung response would outlive every deadline. Here each connection and each HTTP/2
//! stream is a task that belongs to the server.
//!
//! A drain loses no request that was sent: connections that wait in the kernel's queue are accepted
//! before the listener closes; HTTP/2 is told by GOAWAY; a keep-alive connection of HTTP/1, which
//! has no such word, may send one more request for a moment and gets `connection: close` with its
//! answer.

mod accept;
mod body;
mod connection;
mod executor;
mod greeting;
mod in_flight;
mod listen;
mod observe;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

#[cfg(feature = "grpc")]
pub(crate) use self::{
    body::{Accompanied, Companion},
    observe::{GRPC_STATUS, code_name},
};
pub(crate) use self::{
    listen::{Hint, addr, listen},
    observe::{Protocol, observed},
};
use crate::{BoundServer, Endpoint, Result, Shutdown};

/// A server whose socket listens; it accepts when it serves.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
    router: Router,
    limits: Limits,
    protocol: Protocol,
    #[cfg(feature = "tls")]
    tls: Option<(tls::Tls, tls::Reload)>,
}

/// How a request came, for its span.
#[cfg(feature = "http")]
fn scheme(extensions: &::http::Extensions) -> &'static str {
    #[cfg(feature = "tls")]
    if extensions.get::<tls::Secure>().is_some() {
        return "https";
    }
    #[cfg(not(feature = "tls"))]
    let _ = extensions;
    "http"
}

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub(crate) connections_max: usize,
    /// What is done when there are so many.
    pub(crate) when_full: WhenFull,
    /// How long the head of an HTTP/1 request may take.
    pub(crate) header_read_timeout: std::time::Duration,
}

/// What is done when there are as many connections as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The next one waits until another ends.
    Wait,
    /// The oldest that asks nothing just then is cut: who asks shall be answered soon, whoever else
    /// holds connections open.
    #[cfg(feature = "admin")]
    CutIdle,
}

impl Bound {
    pub(crate) fn new(
        (listener, addr): (TcpListener, SocketAddr),
        router: Router,
        limits: Limits,
        protocol: Protocol,
    ) -> Self {
        Self {
            listener,
            addr,
            router,
            limits,
            protocol,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Reads the certificates, if there shall be any; `section` is where the settings are.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(
        mut self,
        config: Option<crate::tls::Config>,
        section: &'static str,
    ) -> Result<Self> {
        if let Some(config) = config {
            self.tls = Some(tls::open(config, section, self.protocol)?);
        }
        Ok(self)
    }

    #[cfg(feature = "tls")]
    fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "the same as with the feature")]
    fn is_secure(&self) -> bool {
        false
    }

    /// The address that the socket listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl BoundServer for Bound {
    fn endpoints(&self) -> Vec<Endpoint> {
        vec![Endpoint::new(
            self.protocol.scheme(self.is_secure()),
            self.addr,
        )]
    }

    async fn serve(self, shutdown: Shutdown) -> Result<()> {
        accept::serve(self, shutdown).await
    }
}
