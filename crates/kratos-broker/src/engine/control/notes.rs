//! What lanes leave for who looks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kratos::{LastError, trace};
use tokio::time::Instant;
use tracing::Span;

use crate::{Failure, MessageId};

/// Most characters of an error that are kept.
const MESSAGE_MAX: usize = 4_096;

/// The last failure of a subscription.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    last_error: Mutex<Option<(Instant, LastError)>>,
}

impl Notes {
    pub(crate) fn failed(&self, failure: &Failure, id: &MessageId, attempt: u32, span: &Span) {
        let message: String = failure.to_string().chars().take(MESSAGE_MAX).collect();
        let mut error = LastError::new(failure.error_type(), message);
        error.message_id = id.to_string();
        error.attempt = attempt;
        error.trace_id = trace::of(span).map(|context| context.trace_id().to_string());
        *self.lock() = Some((Instant::now(), error));
    }

    pub(crate) fn last_error(&self) -> Option<LastError> {
        let (at, mut error) = self.lock().clone()?;
        error.ago = at.elapsed();
        Some(error)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, LastError)>> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
