//! The intake of one topic: what its receives bring and what the caller takes.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::inbox::{Credit, Inbox, Taken};
use crate::{Error, Filter, Lease};

#[derive(Debug)]
pub(super) struct Intake {
    pub(super) topic: Arc<str>,
    pub(super) filter: Filter,
    /// Cancelled when nothing more is to be asked for.
    pub(super) stopping: CancellationToken,
    /// The receive loops.
    pub(super) loops: TaskTracker,
    /// Brokers that are polled.
    pub(super) sources: AtomicUsize,
    inbox: Mutex<Inbox<Lease>>,
    /// Something arrived, failed or stopped: for callers.
    arrived: Notify,
    /// Room was granted or given back, or a broker became busy: for receive loops.
    room: Notify,
    /// Calls on one topic take turns.
    turn: tokio::sync::Mutex<()>,
}

/// Ends the room of a call, also when the call is dropped.
struct Room<'a>(&'a Intake);

impl Intake {
    pub(super) fn new(topic: &str, filter: Filter) -> Arc<Self> {
        Arc::new(Self {
            topic: topic.into(),
            filter,
            stopping: CancellationToken::new(),
            loops: TaskTracker::new(),
            sources: AtomicUsize::new(0),
            inbox: Mutex::new(Inbox::new()),
            arrived: Notify::new(),
            room: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// At least one message and at most `max`; none when everything is stopped and handed over.
    pub(super) async fn take(&self, max: usize) -> Result<Vec<Lease>, Error> {
        let _turn = self.turn.lock().await;
        self.inbox().grant(max);
        let _room = Room(self);
        self.room.notify_waiters();
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let now = Instant::now();
            // One that ran out while nobody took it is on its way to somebody else.
            let taken = self.inbox().take(max, |lease| lease.deadline() > now);
            match taken {
                Taken::Some(leases) => return Ok(leases),
                Taken::Failed(error) => return Err(error),
                Taken::Stopped => return Ok(Vec::new()),
                Taken::Nothing => arrived.await,
            }
        }
    }

    /// Waits for credit. A loop that is not the `first` of its broker waits until that broker is
    /// `busy`: without a backlog one long poll is enough.
    pub(super) async fn credit(&self, most: usize, first: bool, busy: &AtomicBool) -> Credit {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if first || busy.load(Ordering::Relaxed) {
                let sources = self.sources.load(Ordering::Relaxed);
                if let Some(credit) = self.inbox().ask(most, sources) {
                    return credit;
                }
            }
            room.await;
        }
    }

    pub(super) fn put(&self, credit: &mut Credit, leases: impl IntoIterator<Item = Option<Lease>>) {
        let mut inbox = self.inbox();
        for lease in leases {
            match lease {
                Some(lease) => inbox.put(credit, lease),
                None => inbox.spend(credit),
            }
        }
        drop(inbox);
        self.arrived.notify_waiters();
    }

    pub(super) fn close_credit(&self, credit: Credit) {
        self.inbox().close(credit);
        self.room.notify_waiters();
        if self.stopping.is_cancelled() {
            self.arrived.notify_waiters();
        }
    }

    pub(super) fn fail(&self, error: Error) {
        self.inbox().fail(error);
        self.arrived.notify_waiters();
    }

    pub(super) fn begin_stop(&self) {
        self.inbox().stop();
        self.stopping.cancel();
        self.loops.close();
    }

    pub(super) async fn stop(&self) {
        self.begin_stop();
        self.loops.wait().await;
        self.arrived.notify_waiters();
    }

    /// What arrived and was never taken.
    pub(super) fn drain(&self) -> Vec<Lease> {
        self.inbox().drain()
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox<Lease>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.inbox().grant(0);
    }
}
