//! Who this process is.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use uuid::Uuid;

use crate::Endpoint;

/// The identity of the running App: in hooks, HTTP, gRPC and message handlers, and in the registry.
///
/// Cheap to clone. HTTP handlers find it as an axum `Extension<AppInfo>`, gRPC handlers in the
/// request's extensions, message handlers by the `Extension<AppInfo>` extractor.
///
/// The App makes its own; one made by hand serves tests and servers that run without an App.
///
/// ```
/// let info = kratos::AppInfo::new("saver-service", "1.2.0").with_metadata("zone", "eu-1");
/// assert_eq!(info.metadata()["zone"], "eu-1");
/// ```
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
    /// Set once, when every server is bound. Shared with the clones that servers got at `bind`.
    endpoints: Arc<OnceLock<Vec<Endpoint>>>,
}

impl AppInfo {
    /// An identity with a random id.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                id: Uuid::new_v4().to_string(),
                name: name.into(),
                version: version.into(),
                metadata: BTreeMap::new(),
                endpoints: Arc::default(),
            }),
        }
    }

    /// Sets the instance's id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner).id = id.into();
        self
    }

    /// Sets the service's name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner).name = name.into();
        self
    }

    /// Sets the service's version.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner).version = version.into();
        self
    }

    /// Adds one entry of metadata; the last value of a key wins.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner)
            .metadata
            .insert(key.into(), value.into());
        self
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

    /// Where the App can be reached; empty until every server is bound.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        self.inner.endpoints.get().map_or(&[], Vec::as_slice)
    }

    /// Makes the endpoints visible in every clone; a second call changes nothing.
    pub(crate) fn set_endpoints(&self, endpoints: Vec<Endpoint>) {
        let _already_set = self.inner.endpoints.set(endpoints);
    }
}
