//! The `app` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use crate::{Error, Result};

/// The App's own section of a configuration file, commonly `[app]`.
///
/// ```toml
/// [app]
/// start_timeout = "30s"
/// stop_timeout = "25s"
/// close_reserve = "3s"
/// drain_delay = "5s"
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long the whole start may take; 30 s by default.
    #[serde(with = "duration")]
    pub start_timeout: Duration,
    /// How long the whole stop may take; 25 s by default.
    #[serde(with = "duration")]
    pub stop_timeout: Duration,
    /// The end of the stop that is kept for handing back, flushing and closing; 3 s by default. At
    /// most a fifth of `stop_timeout` is kept.
    #[serde(with = "duration")]
    pub close_reserve: Duration,
    /// How long to go on serving after deregistering; none by default, at most half of
    /// `stop_timeout`.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(25),
            close_reserve: Duration::from_secs(3),
            drain_delay: Duration::ZERO,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        if self.start_timeout.is_zero() || self.stop_timeout.is_zero() {
            return Err(Error::msg(
                "start_timeout and stop_timeout must be longer than nothing",
            ));
        }
        if self.drain_delay > self.stop_timeout / 2 {
            let (delay, timeout) = (self.drain_delay, self.stop_timeout);
            return Err(Error::msg(format!(
                "drain_delay of {delay:?} is more than half of stop_timeout ({timeout:?}): \
                 requests in flight would have no time left"
            )));
        }
        Ok(())
    }
}
