//! Where services find each other.

mod memory;

use std::{collections::BTreeMap, future::Future};

use crate::{AppInfo, Endpoint, Result};

pub use self::memory::Memory;

/// Registers the App while it is ready.
///
/// # Laws
///
/// * `register` is called once, when every server serves; `deregister` once, when the App drains,
///   also after a `register` that failed or was cut off, so it must bear an unknown instance.
/// * Both are dropped at the end of their slice of the App's deadline.
pub trait Registrar: Send + Sync + 'static {
    /// The name in logs and errors.
    fn name(&self) -> &str;

    /// Makes the instance known.
    ///
    /// # Errors
    ///
    /// Stops the App, which returns the error.
    fn register(&self, instance: &Instance) -> impl Future<Output = Result<()>> + Send;

    /// Takes the instance away.
    ///
    /// # Errors
    ///
    /// Recorded; the stop goes on.
    fn deregister(&self, instance: &Instance) -> impl Future<Output = Result<()>> + Send;
}

/// One running App, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// Unique per process.
    pub id: String,
    /// The service's name.
    pub name: String,
    /// The service's version.
    pub version: String,
    /// What the user attached.
    pub metadata: BTreeMap<String, String>,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
}

impl From<&AppInfo> for Instance {
    fn from(info: &AppInfo) -> Self {
        Self {
            id: info.id().to_owned(),
            name: info.name().to_owned(),
            version: info.version().to_owned(),
            metadata: info.metadata().clone(),
            endpoints: info.endpoints().to_vec(),
        }
    }
}
