//! What the receives of a consumer bring, and what its callers take.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::inbox::{Credit, Inbox, Taken};
use crate::{Error, Lease};

/// Of one topic, or of all topics of a simple consumer.
#[derive(Debug)]
pub(super) struct Pool {
    /// Brokers that are polled, of all topics.
    pub(super) sources: AtomicUsize,
    inbox: Mutex<Inbox<Lease>>,
    /// Length of the leases that are asked for.
    invisible: Mutex<Duration>,
    /// Something arrived, failed or stopped: for callers.
    arrived: Notify,
    /// Room was granted or given back, or a broker became busy: for receive loops.
    room: Notify,
    /// Calls take turns.
    turn: tokio::sync::Mutex<()>,
    /// So do receive loops that want credit, in the order in which they came: one that gives credit
    /// back must not take it again while others wait.
    asking: tokio::sync::Mutex<()>,
}

/// Ends the room of a call, also when the call is dropped.
struct Room<'a>(&'a Pool);

impl Pool {
    pub(super) fn new(inbox: Inbox<Lease>, invisible: Duration) -> Self {
        Self {
            sources: AtomicUsize::new(0),
            inbox: Mutex::new(inbox),
            invisible: Mutex::new(invisible),
            arrived: Notify::new(),
            room: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// At least one message and at most `max`; none when everything is stopped and handed over.
    pub(super) async fn take(
        &self,
        max: usize,
        invisible: Option<Duration>,
    ) -> Result<Vec<Lease>, Error> {
        let _turn = self.turn.lock().await;
        if let Some(invisible) = invisible {
            *self.lock_invisible() = invisible;
        }
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
        let mut turn = None;
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !(first || busy.load(Ordering::Relaxed)) {
                turn = None;
            } else {
                if turn.is_none() {
                    turn = Some(self.asking.lock().await);
                }
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
        let mut inbox = self.inbox();
        inbox.close(credit);
        let stopped = inbox.is_stopped();
        drop(inbox);
        self.room.notify_waiters();
        if stopped {
            self.arrived.notify_waiters();
        }
    }

    pub(super) fn fail(&self, error: Error) {
        self.inbox().fail(error);
        self.arrived.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.inbox().is_stopped()
    }

    /// From now on callers get what is left.
    pub(super) fn stop(&self) {
        self.inbox().stop();
        self.arrived.notify_waiters();
    }

    /// What arrived and was never taken.
    pub(super) fn drain(&self) -> Vec<Lease> {
        self.inbox().drain()
    }

    pub(super) fn invisible(&self) -> Duration {
        *self.lock_invisible()
    }

    fn lock_invisible(&self) -> MutexGuard<'_, Duration> {
        self.invisible
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
