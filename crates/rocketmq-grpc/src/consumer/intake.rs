//! The intake of one topic: its receive loops, and the pool that they fill.

use std::sync::{Arc, atomic::AtomicUsize};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::pool::Pool;
use crate::Filter;

#[derive(Debug)]
pub(super) struct Intake {
    pub(super) topic: Arc<str>,
    pub(super) filter: Filter,
    pub(super) pool: Arc<Pool>,
    /// Brokers that it is received from.
    pub(super) brokers: AtomicUsize,
    /// Cancelled when nothing more is to be asked for.
    pub(super) stopping: CancellationToken,
    /// The receive loops.
    pub(super) loops: TaskTracker,
}

impl Intake {
    pub(super) fn new(topic: &str, filter: Filter, pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            topic: topic.into(),
            filter,
            pool,
            brokers: AtomicUsize::new(0),
            stopping: CancellationToken::new(),
            loops: TaskTracker::new(),
        })
    }

    /// Asks for no more of this topic.
    pub(super) fn end(&self) {
        self.stopping.cancel();
        self.loops.close();
    }

    /// Asks for no more; callers get what is left, of all topics of the pool.
    pub(super) fn begin_stop(&self) {
        self.pool.stop();
        self.end();
    }

    /// Returns when the answers that have begun are read.
    pub(super) async fn ended(&self) {
        self.end();
        self.loops.wait().await;
    }
}
