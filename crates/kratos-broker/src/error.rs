//! What goes wrong between us and a broker.

use std::{error, fmt};

/// A `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxError = Box<dyn error::Error + Send + Sync>;

/// A failure of a broker, of a driver, or of a message that neither takes.
///
/// `Display` says this level only; the chain is in [`source`](error::Error::source).
pub struct Error {
    inner: Box<Inner>,
}

/// What kind of failure it is. Drivers choose it, callers ask [`Error::kind`] or the predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It may pass by itself: connection lost, broker busy, no answer in time.
    Transient,
    /// The message is leased no longer: another consumer may have it.
    LeaseLost,
    /// The broker has no such topic.
    UnknownTopic,
    /// The broker has no such consumer group.
    UnknownGroup,
    /// The topic is not of the type that the message needs (ordered, delayed, transactional).
    WrongTopicType,
    /// The driver or the broker cannot do what was asked, and does not pretend to.
    Unsupported,
    /// The message or a name is not acceptable: too large, empty, a control character.
    Invalid,
    /// The broker does not allow it to these credentials.
    Denied,
    /// The driver, its client or its consumer is closed.
    Closed,
    /// Anything else, for good.
    Other,
}

impl ErrorKind {
    /// The value of `error.type` in telemetry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::LeaseLost => "lease_lost",
            Self::UnknownTopic => "unknown_topic",
            Self::UnknownGroup => "unknown_group",
            Self::WrongTopicType => "wrong_topic_type",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }
}

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
    /// What the driver said; by the kind if it said nothing.
    stored: Option<bool>,
}

// === impl Error ===

impl Error {
    /// An error of this kind. `message` says what failed, where, and what to do; lower case.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                source: None,
                stored: None,
            }),
        }
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Says whether a message may be stored whose publishing failed with this: for drivers that
    /// know.
    #[must_use]
    pub fn stored(mut self, perhaps: bool) -> Self {
        self.inner.stored = Some(perhaps);
        self
    }

    /// Whether the broker may have the message whose publishing failed with this. If not, sending it
    /// again cannot store it twice.
    ///
    /// Where the driver does not say, a [transient](Error::is_transient) failure may have stored it.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        self.inner.stored.unwrap_or_else(|| self.is_transient())
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether trying again may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.inner.kind == ErrorKind::Transient
    }

    /// Whether the lease is gone: nothing may be settled with it.
    #[must_use]
    pub fn is_lease_lost(&self) -> bool {
        self.inner.kind == ErrorKind::LeaseLost
    }

    /// Whether the broker has no such topic.
    #[must_use]
    pub fn is_unknown_topic(&self) -> bool {
        self.inner.kind == ErrorKind::UnknownTopic
    }

    /// Whether the broker has no such consumer group.
    #[must_use]
    pub fn is_unknown_group(&self) -> bool {
        self.inner.kind == ErrorKind::UnknownGroup
    }

    /// Whether the topic is not of the type that the message needs.
    #[must_use]
    pub fn is_wrong_topic_type(&self) -> bool {
        self.inner.kind == ErrorKind::WrongTopicType
    }

    /// Whether the driver or broker cannot do what was asked.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.inner.kind == ErrorKind::Unsupported
    }

    /// Whether the message or a name is not acceptable.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.inner.kind == ErrorKind::Invalid
    }

    /// Whether the driver or consumer is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.kind == ErrorKind::Closed
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.inner.source.as_deref().map(|e| e as _)
    }
}

/// Keeps message, chain and whether it may pass.
impl From<Error> for kratos::Error {
    fn from(error: Error) -> Self {
        let Inner {
            kind,
            message,
            source,
            ..
        } = *error.inner;
        let mut out = Self::msg(message);
        if let Some(source) = source {
            out = out.with_source(source);
        }
        if kind == ErrorKind::Transient {
            out.transient()
        } else {
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_says_about_storing_counts_more_than_the_kind() {
        let transient = || Error::new(ErrorKind::Transient, "no answer");
        assert!(transient().may_be_stored());
        assert!(!transient().stored(false).may_be_stored());
        assert!(!Error::new(ErrorKind::Invalid, "too large").may_be_stored());
        assert!(
            Error::new(ErrorKind::Closed, "closed meanwhile")
                .stored(true)
                .may_be_stored()
        );
    }
}
