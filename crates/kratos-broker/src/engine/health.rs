//! A server's health, from all its intakes and kill switches.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kratos::Health;
use tokio::sync::watch;

/// Degraded while any part is in trouble; not serving while one is that says so.
#[derive(Debug)]
pub(crate) struct HealthBoard {
    troubles: Mutex<BTreeMap<String, Trouble>>,
    health: watch::Sender<Health>,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    unready: bool,
}

impl HealthBoard {
    pub(crate) fn new() -> Self {
        Self {
            troubles: Mutex::default(),
            health: watch::channel(Health::Serving).0,
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A part of the server is in trouble, until it has [`recovered`](Self::recovered).
    pub(crate) fn troubled(&self, part: &str, reason: String, unready: bool) {
        self.change(|troubles| {
            troubles.insert(part.to_owned(), Trouble { reason, unready });
        });
    }

    pub(crate) fn recovered(&self, part: &str) {
        self.change(|troubles| {
            troubles.remove(part);
        });
    }

    /// What is wrong with a part, if anything is.
    pub(crate) fn reason(&self, part: &str) -> Option<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.get(part).map(|trouble| trouble.reason.clone())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Trouble>)) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut troubles);
        let unready = troubles.values().any(|trouble| trouble.unready);
        let worst = troubles
            .values()
            .filter(|trouble| trouble.unready == unready);
        let reasons: Vec<_> = worst.map(|trouble| trouble.reason.as_str()).collect();
        let health = match reasons.join("; ") {
            _ if reasons.is_empty() => Health::Serving,
            all if unready => Health::NotServing(all.into()),
            all => Health::Degraded(all.into()),
        };
        self.health.send_if_modified(|now| {
            let changed = *now != health;
            *now = health;
            changed
        });
    }
}
