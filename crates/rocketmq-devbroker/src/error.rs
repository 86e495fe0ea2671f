//! What can go wrong when a broker is started.

use std::{fmt, io, net::SocketAddr};

use crate::state::Refusal;

/// A broker that could not be started.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Listen {
        addr: SocketAddr,
        source: io::Error,
    },
    Declaration {
        what: &'static str,
        name: String,
        reason: String,
    },
}

impl Error {
    pub(crate) fn listen(addr: SocketAddr, source: io::Error) -> Self {
        Self {
            kind: Kind::Listen { addr, source },
        }
    }

    pub(crate) fn declaration(what: &'static str, name: &str, refusal: Refusal) -> Self {
        let Refusal {
            message: reason, ..
        } = refusal;
        Self {
            kind: Kind::Declaration {
                what,
                name: name.to_owned(),
                reason,
            },
        }
    }

    /// Whether another process listens on the address.
    #[must_use]
    pub fn is_address_in_use(&self) -> bool {
        matches!(&self.kind, Kind::Listen { source, .. }
            if source.kind() == io::ErrorKind::AddrInUse)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Listen { addr, .. } if self.is_address_in_use() => {
                write!(
                    f,
                    "cannot listen on {addr}: choose another port, or 0 for any free one"
                )
            }
            Kind::Listen { addr, .. } => write!(f, "cannot listen on {addr}"),
            Kind::Declaration { what, name, reason } => {
                write!(f, "cannot create {what} {name:?}: {reason}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Listen { source, .. } => Some(source),
            Kind::Declaration { .. } => None,
        }
    }
}
