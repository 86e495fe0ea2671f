//! What can go wrong when a broker is started.

use std::{borrow::Cow, fmt, io, net::SocketAddr};

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
    #[cfg_attr(
        not(any(feature = "tls", feature = "persist")),
        expect(dead_code, reason = "only what is optional fails so")
    )]
    Setup {
        /// What cannot be done.
        what: &'static str,
        reason: Cow<'static, str>,
        source: Option<Source>,
    },
}

/// What went wrong below.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

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

    #[cfg(any(feature = "tls", feature = "persist"))]
    pub(crate) fn setup(
        what: &'static str,
        reason: impl Into<Cow<'static, str>>,
        source: Option<Source>,
    ) -> Self {
        Self {
            kind: Kind::Setup {
                what,
                reason: reason.into(),
                source,
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
            Kind::Setup { what, reason, .. } => write!(f, "{what}: {reason}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Listen { source, .. } => Some(source),
            Kind::Declaration { .. } => None,
            Kind::Setup { source, .. } => source.as_ref().map(|source| &**source as _),
        }
    }
}
