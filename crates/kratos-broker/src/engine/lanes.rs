//! How many lanes a subscription has, changed while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::{sync::Notify, task::JoinSet};

use super::{
    cell::LaneCell,
    lane::{Desk, Inbox, LaneSettings},
    queue::Queue,
};
use crate::{Subscription, extensions::Extensions, router::Lanes};

/// The lanes of one subscription, counted.
///
/// Those that are too many end when they are free; those that are missing are started by the
/// [nursery](Nursery), which has what they are made of.
pub(crate) struct LaneCount {
    subscription: Subscription,
    queue: Arc<Queue>,
    topic: usize,
    wanted: Mutex<Wanted>,
    grow: Arc<Notify>,
}

struct Wanted {
    lanes: usize,
    /// To be started.
    missing: usize,
}

/// Starts lanes while the server runs.
#[derive(Default)]
pub(crate) struct Nursery {
    grow: Arc<Notify>,
    /// None any more when the server stops: what leaves the group must be alone with its table.
    parents: Vec<Parent>,
}

/// What the lanes of one subscription are made of.
pub(crate) struct Parent {
    pub(crate) lanes: Box<dyn Lanes>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) desk: Weak<dyn Desk>,
    pub(crate) settings: Arc<LaneSettings>,
    pub(crate) extensions: Arc<Extensions>,
    pub(crate) count: Arc<LaneCount>,
}

// === impl LaneCount ===

impl LaneCount {
    pub(crate) fn new(
        subscription: Subscription,
        topic: usize,
        queue: Arc<Queue>,
        nursery: &Nursery,
    ) -> Self {
        let lanes = subscription.concurrency;
        Self {
            subscription,
            queue,
            topic,
            wanted: Mutex::new(Wanted { lanes, missing: 0 }),
            grow: nursery.grow.clone(),
        }
    }

    /// How many there are, or will be as soon as those that run are free.
    pub(crate) fn lanes(&self) -> usize {
        self.lock().lanes
    }

    /// Sets how many there are.
    pub(crate) fn set(&self, lanes: usize, desk: &dyn Desk) {
        let mut wanted = self.lock();
        let before = std::mem::replace(&mut wanted.lanes, lanes);
        let room = |lanes| {
            let sized = self.subscription.clone().concurrency(lanes);
            (sized.capacity(), sized.capacity_max())
        };
        desk.resize(self.topic, room(before), room(lanes));
        let more = lanes.saturating_sub(before);
        wanted.missing += more - self.queue.keep_lanes(more);
        let fewer = before.saturating_sub(lanes);
        let unborn = fewer.min(wanted.missing);
        wanted.missing -= unborn;
        self.queue.end_lanes(fewer - unborn);
        drop(wanted);
        self.grow.notify_one();
    }

    fn take_missing(&self) -> usize {
        std::mem::take(&mut self.lock().missing)
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Nursery ===

impl Nursery {
    /// Takes over what the lanes of a subscription are made of.
    pub(crate) fn add(&mut self, parent: Parent) {
        self.parents.push(parent);
    }

    /// Completes when lanes are missing.
    pub(crate) fn awaited(&self) -> impl Future<Output = ()> + use<> {
        let grow = self.grow.clone();
        async move { grow.notified().await }
    }

    /// Starts the lanes that are missing.
    pub(crate) fn grow(&self, into: &mut JoinSet<()>) {
        for parent in &self.parents {
            for _ in 0..parent.count.take_missing() {
                parent.lane(into);
            }
        }
    }

    /// No lane starts any more.
    pub(crate) fn close(&mut self) {
        self.parents.clear();
    }
}

// === impl Parent ===

impl Parent {
    pub(crate) fn lane(&self, into: &mut JoinSet<()>) {
        if let Some(desk) = self.desk.upgrade() {
            into.spawn(self.lanes.lane(Inbox {
                queue: self.queue.clone(),
                desk,
                settings: self.settings.clone(),
                cell: Arc::new(LaneCell::new(self.extensions.clone())),
            }));
        }
    }
}
