//! Who this process is.

use std::{collections::BTreeMap, sync::Arc};

use crate::Endpoint;

/// The identity of the running App: in hooks, HTTP, gRPC and message handlers, and in the registry.
///
/// Cheap to clone. HTTP handlers find it as an axum `Extension<AppInfo>`, gRPC handlers in the
/// request's extensions, message handlers by the `Extension<AppInfo>` extractor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppInfo {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    id: String,
    name: String,
    version: String,
    metadata: BTreeMap<String, String>,
    endpoints: Vec<Endpoint>,
}

impl AppInfo {
    pub(crate) fn new(
        id: String,
        name: String,
        version: String,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        Self { inner: Arc::new(Inner { id, name, version, metadata, endpoints: Vec::new() }) }
    }

    /// The instance: unique per process unless the user set it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The service's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// What the user attached.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.inner.metadata
    }
}
