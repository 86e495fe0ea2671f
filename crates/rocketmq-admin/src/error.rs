//! The one error of this crate: opaque, with questions instead of variants.

use std::{error::Error as StdError, fmt, sync::Arc};

use crate::code;

/// Result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn StdError + Send + Sync>;

/// Says what was to be done, where it failed, why, and what to do about it; cheap to clone.
///
/// Display is one line about this level, `source()` has the causes. To react to a failure, ask the
/// predicates; the codes and the remark are for reports.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: String,
    operation: String,
    place: Place,
    remark: Option<String>,
    /// Brokers that had done their part when this one failed.
    done: Vec<String>,
    source: Option<Source>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An argument that can never be right, found before anything was sent.
    Invalid,
    /// No connection, so the request did not leave.
    Unreachable,
    /// The connection was lost with the request under way.
    Disconnected,
    Timeout,
    /// An answer that makes no sense.
    Protocol,
    /// What was asked for is not there, by an answer that is no error for the server.
    NotFound,
    /// The name servers know no master broker to ask.
    NoBroker,
    /// A code that the server answered with.
    Refused(i32),
}

/// Who was asked, and for what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) broker: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) request_code: Option<i32>,
}

// === impl Error ===

impl Error {
    /// True if an argument can never be right: a name, a number, an attribute.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(
            self.inner.kind,
            Kind::Invalid | Kind::Refused(code::ILLEGAL | code::INVALID_PARAMETER)
        )
    }

    /// True if the topic or the group does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.inner.kind,
            Kind::NotFound | Kind::Refused(code::NO_TOPIC | code::NO_GROUP)
        )
    }

    /// True if no answer came in time. The server may have done what was asked.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.inner.kind == Kind::Timeout
    }

    /// True if the server could not be reached, or was lost while it worked on the request.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self.inner.kind, Kind::Unreachable | Kind::Disconnected)
    }

    /// True if the server wants a permission that this client has not.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        match self.inner.kind {
            Kind::Refused(code::NO_PERMISSION) => true,
            // Brokers before 5.3 have no code for it.
            Kind::Refused(code::SYSTEM_ERROR) => {
                self.remark().is_some_and(|it| it.contains("AclException"))
            }
            _ => false,
        }
    }

    /// True if the server is too old to know the request.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.inner.kind == Kind::Refused(code::NOT_SUPPORTED)
    }

    /// True if the same call may succeed later without any change.
    ///
    /// Every call of this crate may be repeated: doing it twice leaves what doing it once does.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.inner.kind,
            Kind::Unreachable
                | Kind::Disconnected
                | Kind::Timeout
                | Kind::NoBroker
                | Kind::Refused(code::BUSY | code::NOT_AVAILABLE | code::GO_AWAY)
        )
    }

    /// What was to be done, such as `create topic orders`.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.inner.operation
    }

    /// Name of the broker that failed; none if a name server did.
    #[must_use]
    pub fn broker(&self) -> Option<&str> {
        self.inner.place.broker.as_deref()
    }

    /// Address of the server that failed.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.inner.place.address.as_deref()
    }

    /// Code of the request in the remoting protocol.
    #[must_use]
    pub fn request_code(&self) -> Option<i32> {
        self.inner.place.request_code
    }

    /// Code that the server answered with, if it did.
    #[must_use]
    pub fn response_code(&self) -> Option<i32> {
        match self.inner.kind {
            Kind::Refused(code) => Some(code),
            _ => None,
        }
    }

    /// What the server said about it.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        self.inner.remark.as_deref()
    }

    /// Brokers that did their part of a change although this one failed.
    #[must_use]
    pub fn done(&self) -> &[String] {
        &self.inner.done
    }

    pub(crate) fn new(kind: Kind, operation: &str, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                operation: operation.to_owned(),
                place: Place::default(),
                remark: None,
                done: Vec::new(),
                source: None,
            }),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, "", message)
    }

    pub(crate) fn not_found(operation: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, operation, message)
    }

    pub(crate) fn protocol(operation: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Protocol, operation, message)
    }

    pub(crate) fn refused(operation: &str, code: i32, remark: Option<String>) -> Self {
        let text = remark.as_deref().map_or("no remark", first_line);
        let message = format!("refused with code {code}: {text}");
        let mut error = Self::new(Kind::Refused(code), operation, message);
        error.edit().remark = remark;
        error
    }

    pub(crate) fn at(mut self, place: Place) -> Self {
        self.edit().place = place;
        self
    }

    pub(crate) fn within(mut self, operation: &str) -> Self {
        operation.clone_into(&mut self.edit().operation);
        self
    }

    pub(crate) fn with_done(mut self, done: Vec<String>) -> Self {
        self.edit().done = done;
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.edit().source = Some(Arc::new(source));
        self
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.inner)
    }

    /// What to do about it, where there is one thing to do.
    fn hint(&self) -> Option<&'static str> {
        match self.inner.kind {
            Kind::Unreachable if self.broker().is_none() => {
                Some("is this the address of a name server, and does it run?")
            }
            Kind::Disconnected if self.broker().is_none() => {
                Some("is this the address of a name server?")
            }
            Kind::Refused(code::NO_TOPIC) if self.broker().is_none() => {
                Some("there is no such topic, or no broker has told of it yet")
            }
            _ if self.is_unsupported() && self.broker().is_none() => {
                Some("is this the address of a name server, or is it too old for it?")
            }
            Kind::Timeout => Some("it may have been done nevertheless, repeating it is safe"),
            Kind::NoBroker => Some("is a broker running, and registered at this name server?"),
            _ if self.is_permission_denied() => {
                Some("this client does not sign requests, use mqadmin with an account")
            }
            _ if self.is_unsupported() => Some("the server is too old for it"),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        if !inner.operation.is_empty() {
            write!(f, "{}: ", inner.operation)?;
        }
        match (&inner.place.broker, &inner.place.address) {
            (Some(broker), Some(address)) => write!(f, "broker {broker} at {address}: ")?,
            (Some(name), None) => write!(f, "broker {name}: ")?,
            (None, Some(address)) => write!(f, "name server {address}: ")?,
            (None, None) => {}
        }
        f.write_str(&inner.message)?;
        if let Some(hint) = self.hint() {
            write!(f, " ({hint})")?;
        }
        if !inner.done.is_empty() {
            write!(f, "; done at {}", inner.done.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.to_string())
            .field("place", &self.inner.place)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.inner.source.as_deref()?;
        Some(source)
    }
}

/// Remarks carry stack traces and links after the first line.
fn first_line(remark: &str) -> &str {
    remark.trim().lines().next().unwrap_or_default()
}
