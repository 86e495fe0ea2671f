//! The state machine behind its lock, with a clock and wake-ups for whoever waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rocketmq_proto::v2::Endpoints;
use tokio::{sync::Notify, time};

use crate::{
    clock::Clock,
    serving::Access,
    state::{State, Timestamp},
};

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Core {
    clock: Clock,
    guarded: Mutex<Guarded>,
    /// Receives that wait, by topic.
    waiters: Mutex<HashMap<Arc<str>, Arc<Notify>>>,
    /// Tells the timer task that an earlier event has come up.
    rescheduled: Notify,
    /// What routes point at.
    endpoints: Mutex<Endpoints>,
    access: Access,
}

#[derive(Debug)]
struct Guarded {
    state: State,
    /// What the timer task sleeps for.
    armed: Option<Timestamp>,
}

impl Core {
    pub(crate) fn new(state: State, endpoints: Endpoints, access: Access) -> Self {
        Self {
            clock: Clock::start(),
            guarded: Mutex::new(Guarded { state, armed: None }),
            waiters: Mutex::default(),
            rescheduled: Notify::new(),
            endpoints: Mutex::new(endpoints),
            access,
        }
    }

    /// Runs one operation at the present time and wakes whom it concerns.
    pub(crate) fn with<R>(&self, operation: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        let mut guarded = lock(&self.guarded);
        // Read under the lock: time never runs backwards for the state machine.
        let now = self.clock.now();
        guarded.state.advance(now);
        let result = operation(&mut guarded.state, now);
        let ready = guarded.state.take_ready();
        let next = guarded.state.next_event();
        let sooner = next.is_some_and(|next| guarded.armed.is_none_or(|armed| next < armed));
        drop(guarded);
        if sooner {
            self.rescheduled.notify_one();
        }
        if !ready.is_empty() {
            let waiters = lock(&self.waiters);
            for topic in ready {
                if let Some(waiter) = waiters.get(&topic) {
                    waiter.notify_waiters();
                }
            }
        }
        result
    }

    /// Notified whenever the topic has something new for consumers.
    pub(crate) fn waiter(&self, topic: &Arc<str>) -> Arc<Notify> {
        Arc::clone(lock(&self.waiters).entry(Arc::clone(topic)).or_default())
    }

    /// Lets the state machine act when its time comes. Runs until it is dropped.
    pub(crate) async fn drive(&self) {
        loop {
            let next = {
                let mut guarded = lock(&self.guarded);
                guarded.armed = guarded.state.next_event();
                guarded.armed
            };
            let due = async {
                match next {
                    Some(at) => time::sleep_until(self.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.with(|_, _| ()),
                () = self.rescheduled.notified() => {}
            }
        }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        lock(&self.endpoints).clone()
    }

    pub(crate) fn set_endpoints(&self, endpoints: Endpoints) {
        *lock(&self.endpoints) = endpoints;
    }
}

/// A panic while the lock was held leaves the state as it was between two operations.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
