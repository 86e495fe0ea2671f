//! A service's configuration: defaults, one TOML file, the environment.
//!
//! The application composes one struct of the `Config`s of its parts, and `load` fills it:
//!
//! ```no_run
//! #[derive(Debug, Default, serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config {
//!     app: kratos::Config,
//!     greeting: String,
//! }
//!
//! # fn main() -> kratos::Result<()> {
//! let config: Config = kratos::config::load("hello-service")?;
//! # Ok(()) }
//! ```
//!
//! **The file** is `--config FILE` (or `--config=FILE`) of the command line, else what
//! `KRATOS_CONFIG` names, else `./<name>.toml` if there is one, else none. A file that is named
//! must exist.
//!
//! **The environment** wins over the file. `KRATOS_HTTP__ADDR` is the key `addr` of the section
//! `http`: the prefix `KRATOS_`, then the key's path in any case, levels parted by two underscores.
//! The field's type decides how a value is read, so `123` is a fine value for a string. A list is
//! `a,b` or a TOML array. An empty value leaves an optional key unset; `KRATOS_CONFIG` is no key.
//! In places without a type (`untagged`, `flatten`) numbers and booleans are guessed, unless
//! the value is in double quotes.
//!
//! **Unknown keys are errors**, in the file (by serde's `deny_unknown_fields`) and in the
//! environment: a variable with the prefix that names no key stops the start. A Kubernetes Service
//! whose name begins with `kratos` makes such variables (`KRATOS_PORT`): set
//! `enableServiceLinks: false` on the pod. All errors are reported at once, each with the key, where
//! the value came from, and what is accepted.

mod app;
pub mod duration;
#[cfg(feature = "config")]
mod loaded;
#[cfg(feature = "config")]
mod loader;

pub use self::app::Config;
#[cfg(all(feature = "config", feature = "admin"))]
pub(crate) use self::loaded::loaded;
#[cfg(feature = "config")]
pub use self::loader::{Loader, load};
