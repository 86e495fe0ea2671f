//! The first reason to stop the App.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The first reason to stop the App, from any lane.
#[derive(Debug, Default)]
pub(crate) struct Fatal {
    error: Mutex<Option<kratos::Error>>,
    set: Notify,
}

// === impl Fatal ===

impl Fatal {
    /// Keeps the first error.
    pub(crate) fn set(&self, error: kratos::Error) {
        self.lock().get_or_insert(error);
        self.set.notify_one();
    }

    /// Completes when there is one.
    pub(crate) async fn happened(&self) {
        self.set.notified().await;
    }

    pub(crate) fn take(&self) -> Option<kratos::Error> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<kratos::Error>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
