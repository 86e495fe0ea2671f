//! The log's filter, changed while the process runs.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tracing_subscriber::{filter::EnvFilter, reload};

use super::Config;
use crate::{Error, Result};

static LEVEL: OnceLock<LogLevel> = OnceLock::new();

type Reload = dyn Fn(EnvFilter) -> Result<()> + Send + Sync;

/// What the log shows, and a hand to change it while the process runs. Clones are the same.
///
/// ```
/// use kratos::telemetry::{Config, Telemetry};
///
/// let (telemetry, _dispatch) = Telemetry::builder(&Config::default())?.writer(std::io::sink).build();
/// let level = telemetry.log_level();
/// level.set("info,my_service=debug")?;
/// assert!(level.set("loud").is_err());
/// assert_eq!(level.get(), "info,my_service=debug");
/// # Ok::<_, kratos::Error>(())
/// ```
#[derive(Clone)]
pub struct LogLevel {
    now: Arc<Mutex<String>>,
    reload: Arc<Reload>,
}

/// What the log of this process shows, if [`init`](super::init) has set it up.
#[must_use]
pub fn log_level() -> Option<LogLevel> {
    LEVEL.get().cloned()
}

// === impl LogLevel ===

impl LogLevel {
    pub(super) fn new<S: 'static>(log: &str, handle: reload::Handle<EnvFilter, S>) -> Self {
        let reload = move |filter| {
            handle.reload(filter).map_err(|error| {
                Error::msg("the log's filter cannot be changed").with_source(error)
            })
        };
        Self {
            now: Arc::new(Mutex::new(log.to_owned())),
            reload: Arc::new(reload),
        }
    }

    pub(super) fn install(&self) {
        let _installed_once = LEVEL.set(self.clone());
    }

    /// The directives, as they were set last.
    #[must_use]
    pub fn get(&self) -> String {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sets the directives, written as in [`Config::log`]: `info`, `warn,my_service=debug`.
    ///
    /// # Errors
    ///
    /// They cannot be read; the log stays as it is.
    pub fn set(&self, log: &str) -> Result<()> {
        let config = Config {
            log: log.to_owned(),
            ..Config::default()
        };
        (self.reload)(config.filter()?)?;
        log.clone_into(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.get()).finish()
    }
}
