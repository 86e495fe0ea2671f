//! How a handler fails, and what follows.

use std::{any::Any, borrow::Cow, error, fmt, time::Duration};

use crate::Rejection;

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// Try again after the policy's back-off; dead-letter when the attempts are used up.
    Retry,
    /// Try again after this time; counts as an attempt like any other.
    RetryAfter(Duration),
    /// Dead-letter now: no attempt can succeed. What a body that cannot be decoded is.
    Poison,
    /// Stop the App: the process cannot work. The message is handed back.
    Fatal,
}

/// An error that a handler may return.
///
/// ```
/// use kratos_broker::{Disposition, HandlerError};
///
/// #[derive(Debug)]
/// enum SaveError { Locked, Malformed }
///
/// impl std::fmt::Display for SaveError {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "{self:?}")
///     }
/// }
///
/// impl HandlerError for SaveError {
///     fn disposition(&self) -> Disposition {
///         match self {
///             Self::Locked => Disposition::Retry,
///             Self::Malformed => Disposition::Poison,
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "nothing says what follows when a handler fails with `{Self}`",
    label = "an error without a policy",
    note = "for an error type of your own: `impl HandlerError for {Self} {{}}` retries it",
    note = "for any other: return Result<(), AnyError>; `?` makes one of every error, AnyError::msg of text"
)]
pub trait HandlerError: fmt::Display + Send + 'static {
    /// What follows: [`Disposition::Retry`] unless overridden.
    fn disposition(&self) -> Disposition {
        Disposition::Retry
    }

    /// `Some(self)`, where it is an [`Error`](error::Error): its [sources](error::Error::source) are
    /// told then too, in the log, in dead letters and on the operations page. None unless overridden:
    /// its own words (`{:#}`) are all that is told.
    fn as_error(&self) -> Option<&(dyn error::Error + 'static)> {
        None
    }
}

/// Any error, for `?` in handlers that do not tell errors apart: every one is retried, unless
/// [`Subscription::classify`](crate::Subscription::classify) says otherwise.
///
/// `{:#}` prints the chain.
pub struct AnyError {
    inner: Box<dyn AnyErrorInner>,
}

trait AnyErrorInner: error::Error + Any + Send + Sync {
    fn as_any(&self) -> &dyn Any;
}

impl<E: error::Error + Send + Sync + 'static> AnyErrorInner for E {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A failed attempt: the error type of the services that layers wrap.
///
/// A layer with an error of its own, boxed as tower's are, becomes one that is retried.
pub struct Failure {
    inner: Box<Inner>,
}

struct Inner {
    disposition: Disposition,
    /// Nobody has failed: the handler did not run.
    put_off: bool,
    error_type: &'static str,
    message: Cow<'static, str>,
}

// === impl AnyError ===

impl AnyError {
    /// An error of these words.
    pub fn msg(message: impl Into<String>) -> Self {
        Message(message.into()).into()
    }

    /// The error inside, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: 'static>(&self) -> Option<&E> {
        self.downcast_any().downcast_ref()
    }

    pub(crate) fn downcast_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}

// `AnyError` is no `Error` itself: that is what lets `?` convert every other error.
impl<E: error::Error + Send + Sync + 'static> From<E> for AnyError {
    fn from(error: E) -> Self {
        Self {
            inner: Box::new(error),
        }
    }
}

impl HandlerError for AnyError {
    fn disposition(&self) -> Disposition {
        // A rejection that was passed on with `?` keeps its meaning.
        let rejection = self.downcast_ref::<Rejection>();
        rejection.map_or(Disposition::Retry, Rejection::disposition)
    }

    fn as_error(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.inner)
    }
}

impl fmt::Display for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return kratos::error_chain(&*self.inner).fmt(f);
        }
        fmt::Display::fmt(&self.inner, f)
    }
}

impl fmt::Debug for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

#[derive(Debug)]
struct Message(String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Message {}

// === impl Failure ===

impl Failure {
    /// A failure with what follows it: for layers.
    pub fn new(disposition: Disposition, message: impl Into<Cow<'static, str>>) -> Self {
        Self::typed(disposition, "failure", message)
    }

    /// A failure of the given low-cardinality `error.type`.
    pub(crate) fn typed(
        disposition: Disposition,
        error_type: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            inner: Box::new(Inner {
                disposition,
                put_off: false,
                error_type,
                message: message.into(),
            }),
        }
    }

    /// Not a failure of anybody: the handler is not to run before `wait` is over.
    pub(crate) fn put_off(wait: Duration, error_type: &'static str, message: String) -> Self {
        let mut failure = Self::typed(Disposition::RetryAfter(wait), error_type, message);
        failure.inner.put_off = true;
        failure
    }

    /// Whether the handler did not run, for no fault of the message or of what handlers need.
    pub(crate) fn is_put_off(&self) -> bool {
        self.inner.put_off
    }

    pub(crate) fn of<E: HandlerError>(error: &E, classified: Option<Disposition>) -> Self {
        let disposition = classified.unwrap_or_else(|| error.disposition());
        let message = match error.as_error() {
            Some(error) => kratos::error_chain(error).to_string(),
            None => format!("{error:#}"),
        };
        Self::typed(disposition, std::any::type_name::<E>(), message)
    }

    /// What follows.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.inner.disposition
    }

    /// The `error.type` of telemetry: the name of the error's type, `panic`, `timeout`, `decode`.
    #[must_use]
    pub fn error_type(&self) -> &str {
        self.inner.error_type
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("disposition", &self.inner.disposition)
            .field("error_type", &self.inner.error_type)
            .field("message", &self.inner.message)
            .finish()
    }
}

impl error::Error for Failure {}

/// What tower's own layers answer: a [`Failure`] inside is taken out again, anything else is the
/// layer's own error, and retried.
impl From<Box<dyn error::Error + Send + Sync>> for Failure {
    fn from(error: Box<dyn error::Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => *failure,
            Err(error) => {
                let chain = kratos::error_chain(&*error).to_string();
                Self::typed(Disposition::Retry, "layer", chain)
            }
        }
    }
}

impl From<std::convert::Infallible> for Failure {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_an_error_is_told_once() {
        #[derive(Debug)]
        struct Own(kratos::Error);
        impl fmt::Display for Own {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cannot store")
            }
        }
        impl error::Error for Own {
            fn source(&self) -> Option<&(dyn error::Error + 'static)> {
                Some(&self.0)
            }
        }
        impl HandlerError for Own {
            fn as_error(&self) -> Option<&(dyn error::Error + 'static)> {
                Some(self)
            }
        }
        let own =
            || Own(kratos::Error::msg("commit: locked").with_source(kratos::Error::msg("locked")));
        let told = "cannot store: commit: locked";
        assert_eq!(Failure::of(&own(), None).to_string(), told);
        assert_eq!(Failure::of(&AnyError::from(own()), None).to_string(), told);
        assert_eq!(format!("{:#}", AnyError::from(own())), told);
        let boxed: Box<dyn error::Error + Send + Sync> = Box::new(own());
        assert_eq!(Failure::from(boxed).to_string(), told);
    }

    #[test]
    fn a_failure_survives_being_boxed_by_a_layer() {
        let boxed: Box<dyn error::Error + Send + Sync> =
            Box::new(Failure::new(Disposition::Poison, "no"));
        assert_eq!(Failure::from(boxed).disposition(), Disposition::Poison);
        let foreign: Box<dyn error::Error + Send + Sync> = "elapsed".into();
        assert_eq!(Failure::from(foreign).disposition(), Disposition::Retry);
    }

    #[test]
    fn any_error_prints_its_level_and_on_demand_the_chain() {
        let parse = "x".parse::<u8>().unwrap_err();
        let error = AnyError::from(std::io::Error::other(parse.clone()));
        assert!(error.downcast_ref::<std::io::Error>().is_some());
        assert_eq!(
            Failure::of(&AnyError::from(parse), None).disposition(),
            Disposition::Retry
        );
    }
}
