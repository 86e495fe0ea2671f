//! The typed publishers of a driver, known as long as they live.

use std::{
    any::TypeId,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::SchemaOf;
use crate::Topic;

/// Typed publishers that are remembered at most; more than that are no part of a document.
const OUTLETS_MAX: usize = 10_000;

/// The typed publishers made on a driver: a field of the driver, shared by its clones. Holds no
/// publisher alive.
#[derive(Clone, Default)]
pub struct Outlets {
    all: Arc<Mutex<Vec<Weak<dyn Outlet>>>>,
}

/// A typed publisher, its type forgotten.
pub(crate) trait Outlet: Send + Sync {
    fn sending(&self) -> Sending;
}

/// What a typed publisher sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) topic: Topic,
    pub(crate) content_type: String,
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) tag: Option<Arc<str>>,
    pub(crate) keyed: bool,
    pub(crate) grouped: bool,
    pub(crate) schema: Option<SchemaOf>,
}

// === impl Outlets ===

impl Outlets {
    pub(crate) fn add(&self, outlet: Weak<dyn Outlet>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|outlet| outlet.strong_count() > 0);
        }
        if all.len() < OUTLETS_MAX {
            all.push(outlet);
        }
    }

    /// What is sent now, each once.
    pub(crate) fn alive(&self) -> Vec<Sending> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alive: Vec<Sending> = Vec::new();
        for outlet in all.iter().filter_map(Weak::upgrade) {
            let sending = outlet.sending();
            if !alive.contains(&sending) {
                alive.push(sending);
            }
        }
        alive
    }
}

impl fmt::Debug for Outlets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.alive()).finish()
    }
}
