//! Hooks: the user's own steps between ours.

use std::{fmt, future::Future};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Handle;
use crate::{AppInfo, Error, Result, error::BoxError};

/// Given to every hook.
#[derive(Clone, Debug)]
pub struct HookContext {
    pub(super) info: AppInfo,
    pub(super) deadline: Instant,
    pub(super) handle: Handle,
}

/// What a hook may return: nothing, or a `Result` with any error.
pub trait Outcome: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<()>;
}

#[derive(Default)]
pub(super) struct Hooks {
    pub(super) before_start: Vec<Hook>,
    pub(super) after_start: Vec<Hook>,
    pub(super) before_stop: Vec<Hook>,
    pub(super) after_stop: Vec<Hook>,
}

pub(super) struct Hook {
    pub(super) name: String,
    call: Box<dyn FnOnce(HookContext) -> BoxFuture<'static, Result<()>> + Send>,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
}

// === impl HookContext ===

impl HookContext {
    /// Who this process is; in after-start and stop hooks with its endpoints.
    #[must_use]
    pub fn info(&self) -> &AppInfo {
        &self.info
    }

    /// When this hook is given up.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The App's handle.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

// === impl Outcome ===

impl Outcome for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<BoxError>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<()> {
        self.map_err(Error::from_any)
    }
}

// === impl Hook ===

impl Hook {
    pub(super) fn new<F, Fut>(name: impl Into<String>, hook: F) -> Self
    where
        F: FnOnce(HookContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        let call = |cx| -> BoxFuture<'static, Result<()>> {
            Box::pin(async move { hook(cx).await.into_result() })
        };
        Self {
            name: name.into(),
            call: Box::new(call),
        }
    }

    pub(super) fn call(self, cx: HookContext) -> BoxFuture<'static, Result<()>> {
        (self.call)(cx)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hook").field(&self.name).finish()
    }
}
