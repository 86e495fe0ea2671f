//! Why a message does not fit its handler.

use std::{error, fmt};

use crate::{Disposition, Failure};

/// Why an extractor could not make its value, and what follows for the message.
#[derive(Debug)]
pub struct Rejection {
    failure: Failure,
}

impl Rejection {
    /// The message will never fit: it is dead-lettered now, at whatever attempt.
    pub fn poison(reason: impl Into<String>) -> Self {
        Self::new(Disposition::Poison, "rejected", reason)
    }

    /// It does not fit now: it is retried.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::new(Disposition::Retry, "rejected", reason)
    }

    pub(crate) fn new(
        disposition: Disposition,
        error_type: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            failure: Failure::typed(disposition, error_type, reason.into()),
        }
    }

    /// What follows.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.failure.disposition()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.failure, f)
    }
}

impl error::Error for Rejection {}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        rejection.failure
    }
}

/// So that a handler which looked at a rejection can return it.
impl crate::HandlerError for Rejection {
    fn disposition(&self) -> Disposition {
        self.failure.disposition()
    }
}
