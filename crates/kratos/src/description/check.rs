//! Questions that can be asked before the App runs: is the broker there, do the topics exist.

use std::{fmt, future::Future, sync::Arc};

use futures_util::future::BoxFuture;

type Ask = dyn Fn() -> BoxFuture<'static, Result<String, Finding>> + Send + Sync;

/// A named question about what a server or resource needs. It changes nothing, wherever it asks.
///
/// ```
/// use kratos::{Check, Finding};
///
/// let check = Check::new("database", || async {
///     // store.ping().await
///     Err(Finding::new("no such database", "create it: createdb reports"))
/// });
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(check.ask().await.unwrap_err().remedy, "create it: createdb reports");
/// # });
/// ```
#[derive(Clone)]
pub struct Check {
    name: String,
    ask: Arc<Ask>,
}

/// What a [`Check`] found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub wrong: String,
    /// What to do about it.
    pub remedy: String,
}

// === impl Check ===

impl Check {
    /// A question; it answers what it saw, or what is wrong. Whoever asks bounds the time.
    #[must_use]
    pub fn new<F, Fut>(name: impl Into<String>, ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, Finding>> + Send + 'static,
    {
        Self {
            name: name.into(),
            ask: Arc::new(move || Box::pin(ask())),
        }
    }

    /// What is asked about.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// What is wrong and what to do.
    pub async fn ask(&self) -> Result<String, Finding> {
        (self.ask)().await
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

// === impl Finding ===

impl Finding {
    /// What is wrong, and what to do about it.
    #[must_use]
    pub fn new(wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            wrong: wrong.into(),
            remedy: remedy.into(),
        }
    }
}
