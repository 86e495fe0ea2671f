//! The App's error.

use std::{error, fmt};

/// A `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxError = Box<dyn error::Error + Send + Sync>;

/// Why the App, one of its servers or resources failed.
///
/// `Display` says this level only; the chain is in [`source`](error::Error::source).
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    context: String,
    transient: bool,
    abandoned: Vec<String>,
    source: Option<BoxError>,
}

impl Error {
    /// A permanent error in the words of `message`.
    pub fn msg(message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                context: message.into(),
                transient: false,
                abandoned: Vec::new(),
                source: None,
            }),
        }
    }

    /// Work that was cut off at the deadline, by the ids a person can look up.
    pub fn abandoned(ids: impl IntoIterator<Item = String>) -> Self {
        let ids: Vec<String> = ids.into_iter().collect();
        let mut error = Self::msg(format!("abandoned at the deadline: {}", ids.join(", ")));
        error.inner.abandoned = ids;
        error
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Marks the fault as one that may pass: a start retries it.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.inner.transient = true;
        self
    }

    /// Whether the fault may pass by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.inner.transient
    }

    /// The ids of the work that was cut off; empty for other errors.
    #[must_use]
    pub fn abandoned_ids(&self) -> &[String] {
        &self.inner.abandoned
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("context", &self.inner.context)
            .field("transient", &self.inner.transient)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.inner.source.as_deref().map(|e| e as _)
    }
}
