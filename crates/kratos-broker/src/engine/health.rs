//! A server's health, from all its intakes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kratos::Health;
use tokio::sync::watch;

use crate::Topic;

/// Degraded while any topic cannot be received.
#[derive(Debug)]
pub(crate) struct HealthBoard {
    failing: Mutex<BTreeMap<Topic, String>>,
    health: watch::Sender<Health>,
}

impl HealthBoard {
    pub(crate) fn new() -> Self {
        Self {
            failing: Mutex::default(),
            health: watch::channel(Health::Serving).0,
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(crate) fn degraded(&self, topic: &Topic, reason: String) {
        self.change(|failing| {
            failing.insert(topic.clone(), reason);
        });
    }

    pub(crate) fn recovered(&self, topic: &Topic) {
        self.change(|failing| {
            failing.remove(topic);
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Topic, String>)) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut failing);
        let health = match failing.values().next() {
            Some(reason) => Health::Degraded(reason.as_str().into()),
            None => Health::Serving,
        };
        self.health.send_if_modified(|now| {
            let changed = *now != health;
            *now = health;
            changed
        });
    }
}
