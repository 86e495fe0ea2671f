//! What a layer has done, in numbers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// What an [`IdempotentLayer`](super::IdempotentLayer) does, in numbers: live, clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    cells: Arc<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    handled: AtomicU64,
    duplicates: AtomicU64,
    in_flight: AtomicU64,
    expired: AtomicU64,
}

impl Stats {
    /// Messages that were handled, successfully.
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.cells.handled.load(Relaxed)
    }

    /// Messages that were done before, and were acknowledged without being handled.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.cells.duplicates.load(Relaxed)
    }

    /// How often a message was put off because another delivery of it was being handled.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.cells.in_flight.load(Relaxed)
    }

    /// Handlers that were dropped because their mark could not be extended.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.cells.expired.load(Relaxed)
    }

    pub(super) fn add_handled(&self) {
        self.cells.handled.fetch_add(1, Relaxed);
    }

    pub(super) fn add_duplicate(&self) {
        self.cells.duplicates.fetch_add(1, Relaxed);
    }

    pub(super) fn add_in_flight(&self) {
        self.cells.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn add_expired(&self) {
        self.cells.expired.fetch_add(1, Relaxed);
    }
}
