//! Where a server can be reached.

use std::{fmt, net::SocketAddr};

/// An address with its scheme, such as `http://127.0.0.1:8000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: String,
    addr: SocketAddr,
}

impl Endpoint {
    /// An endpoint at a bound address.
    pub fn new(scheme: impl Into<String>, addr: SocketAddr) -> Self {
        Self {
            scheme: scheme.into(),
            addr,
        }
    }

    /// `http` or `grpc`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The address that was bound; the port is never 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.addr)
    }
}
