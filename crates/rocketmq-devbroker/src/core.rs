//! The state machine behind its lock, with a clock and wake-ups for whoever waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rocketmq_proto::v2::Endpoints;
use tokio::{
    sync::{Notify, mpsc},
    time,
};

use crate::{
    clock::Clock,
    frost::Frost,
    serving::Access,
    state::{Push, Refusal, State, Timestamp},
    store::Store,
};

#[cfg(test)]
pub(crate) use crate::state::Census;

/// Commands that wait for a client to read them. More are dropped: checks come again.
const MAX_PUSHES: usize = 1024;

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Core {
    clock: Clock,
    guarded: Mutex<Guarded>,
    /// Receives that wait, by topic.
    waiters: Mutex<HashMap<Arc<str>, Arc<Notify>>>,
    /// Telemetry streams by client; the newest of a client gets its commands.
    streams: Mutex<HashMap<Arc<str>, Vec<mpsc::Sender<Push>>>>,
    /// Tells the timer task that an earlier event has come up.
    rescheduled: Notify,
    /// What routes point at.
    endpoints: Mutex<Endpoints>,
    access: Access,
    /// What outlives the process.
    store: Option<Store>,
    frost: Frost,
}

#[derive(Debug)]
struct Guarded {
    state: State,
    /// What the timer task sleeps for.
    armed: Option<Timestamp>,
}

impl Core {
    pub(crate) fn new(
        state: State,
        endpoints: Endpoints,
        access: Access,
        store: Option<Store>,
    ) -> Self {
        Self {
            clock: Clock::start(),
            guarded: Mutex::new(Guarded { state, armed: None }),
            waiters: Mutex::default(),
            streams: Mutex::default(),
            rescheduled: Notify::new(),
            endpoints: Mutex::new(endpoints),
            access,
            store,
            frost: Frost::default(),
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
        let pushes = guarded.state.take_pushes();
        let facts = guarded.state.take_facts();
        if let Some(store) = self.store.as_ref().filter(|_| !facts.is_empty()) {
            // Still under the lock: facts are written in the order of the operations.
            store.push(facts);
        }
        let next = guarded.state.next_event();
        let sooner = next.is_some_and(|next| guarded.armed.is_none_or(|armed| next < armed));
        drop(guarded);
        if sooner {
            self.rescheduled.notify_one();
        }
        if !pushes.is_empty() {
            let streams = lock(&self.streams);
            for (client, push) in pushes {
                let stream = streams.get(&client).and_then(|streams| streams.last());
                if stream.is_some_and(|stream| stream.try_send(push).is_err()) {
                    tracing::debug!(%client, "a command is lost: the client reads none");
                }
            }
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

    /// Whether what is sent now can be kept.
    pub(crate) fn can_keep(&self) -> Result<(), Refusal> {
        self.store.as_ref().map_or(Ok(()), Store::check)
    }

    /// Waits until what was done is kept for good, where the broker has a folder for it.
    pub(crate) async fn confirm<T>(&self, done: Result<T, Refusal>) -> Result<T, Refusal> {
        if let (Some(store), Ok(_)) = (&self.store, &done) {
            store.durable().await?;
        }
        done
    }

    /// Writes the rest and gives the folder free.
    pub(crate) async fn close_store(&self) {
        if let Some(store) = &self.store {
            store.close().await;
        }
    }

    #[cfg(feature = "persist")]
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Notified whenever the topic has something new for consumers.
    pub(crate) fn waiter(&self, topic: &Arc<str>) -> Arc<Notify> {
        Arc::clone(lock(&self.waiters).entry(Arc::clone(topic)).or_default())
    }

    /// The commands for a client, from now on. They end when [`Core::end_streams`] is called.
    pub(crate) fn subscribe(&self, client: &str) -> mpsc::Receiver<Push> {
        let (sender, receiver) = mpsc::channel(MAX_PUSHES);
        let mut streams = lock(&self.streams);
        let senders = streams.entry(client.into()).or_default();
        senders.retain(|sender| !sender.is_closed());
        senders.push(sender);
        receiver
    }

    /// Forgets the subscriptions of a client that nobody reads any more.
    pub(crate) fn unsubscribe(&self, client: &str) {
        let mut streams = lock(&self.streams);
        if let Some(senders) = streams.get_mut(client) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                streams.remove(client);
            }
        }
    }

    /// Ends every telemetry stream.
    pub(crate) fn end_streams(&self) {
        lock(&self.streams).clear();
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

    #[cfg(test)]
    pub(crate) fn census(&self) -> Census {
        let census = self.with(|state, now| state.census(now));
        let waiters = lock(&self.waiters);
        Census {
            // Each holds on to what it waits for.
            receives: waiters.values().map(|it| Arc::strong_count(it) - 1).sum(),
            streams: lock(&self.streams).len(),
            ..census
        }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        lock(&self.endpoints).clone()
    }

    /// What messages name as the place where they are stored.
    pub(crate) fn store_host(&self) -> String {
        let addresses = self.endpoints().addresses;
        addresses.first().map_or_else(String::new, |address| {
            format!("{}:{}", address.host, address.port)
        })
    }

    /// Whether connections are silent.
    pub(crate) fn frost(&self) -> &Frost {
        &self.frost
    }

    pub(crate) fn set_endpoints(&self, endpoints: Endpoints) {
        *lock(&self.endpoints) = endpoints;
    }
}

/// A panic while the lock was held leaves the state as it was between two operations.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
