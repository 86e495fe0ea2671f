//! A registry inside this process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Instance, Registrar};
use crate::Result;

/// Instances by id, in memory: for tests and for services in one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    instances: Arc<Mutex<BTreeMap<String, Instance>>>,
}

impl Memory {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The instances of the service `name`, ordered by id.
    #[must_use]
    pub fn instances(&self, name: &str) -> Vec<Instance> {
        self.lock()
            .values()
            .filter(|instance| instance.name == name)
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instance>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registrar for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn register(&self, instance: &Instance) -> Result<()> {
        self.lock().insert(instance.id.clone(), instance.clone());
        Ok(())
    }

    async fn deregister(&self, instance: &Instance) -> Result<()> {
        self.lock().remove(&instance.id);
        Ok(())
    }
}
