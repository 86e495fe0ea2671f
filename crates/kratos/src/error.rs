//! The App's error.

use std::{error, fmt};

/// A `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type BoxError = Box<dyn error::Error + Send + Sync>;

/// Why the App, one of its servers or resources failed.
///
/// `Display` says this level only; the chain is in [`source`](error::Error::source).
/// [`kratos::main`](crate::main) prints it whole.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    context: String,
    transient: bool,
    abandoned: Vec<String>,
    source: Option<BoxError>,
    /// The words are those of `source`: the chain goes on beneath it.
    transparent: bool,
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
                transparent: false,
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

    /// An error of any type: kept as it is if it is one of ours, else with its words and sources.
    pub fn from_any(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => Self {
                inner: Box::new(Inner {
                    context: other.to_string(),
                    transient: false,
                    abandoned: Vec::new(),
                    source: Some(other),
                    transparent: true,
                }),
            },
        }
    }

    /// Puts this error under one that says what was being done.
    ///
    /// Whether it is transient, and the ids of abandoned work, stay visible.
    #[must_use]
    pub fn context(self, doing: impl Into<String>) -> Self {
        let (transient, abandoned) = (self.inner.transient, self.inner.abandoned.clone());
        let mut outer = Self::msg(doing).with_source(self);
        outer.inner.transient = transient;
        outer.inner.abandoned = abandoned;
        outer
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self.inner.transparent = false;
        self
    }

    /// Marks the fault as one that may pass: a start retries it.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.inner.transient = true;
        self
    }

    /// Marks the fault as permanent: trying again was given up.
    pub(crate) fn permanent(mut self) -> Self {
        self.inner.transient = false;
        self
    }

    /// Adds ids of abandoned work to those of this error.
    pub(crate) fn and_abandoned(mut self, ids: Vec<String>) -> Self {
        self.inner.abandoned.extend(ids);
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
        let source = self.inner.source.as_deref()?;
        if self.inner.transparent {
            source.source()
        } else {
            Some(source)
        }
    }
}
