//! Handlers that note what they get, and publishers that know what they sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Harness, Started};
use crate::{
    Counters, Delivery, IntoRoute, Message, MessageId, Publisher, Server, State, Subscription,
};

/// What handlers have seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    inner: Arc<Mutex<Deliveries>>,
}

#[derive(Debug, Default)]
struct Deliveries {
    all: Vec<Delivery>,
    ids: BTreeMap<MessageId, usize>,
}

impl Seen {
    pub(super) fn add(&self, delivery: Delivery) {
        let mut inner = self.inner.lock().unwrap();
        *inner.ids.entry(delivery.id().clone()).or_default() += 1;
        inner.all.push(delivery);
    }

    pub(super) fn all(&self) -> Vec<Delivery> {
        self.inner.lock().unwrap().all.clone()
    }

    /// How often each id was delivered.
    pub(super) fn ids(&self) -> BTreeMap<MessageId, usize> {
        self.inner.lock().unwrap().ids.clone()
    }

    pub(super) fn count(&self) -> usize {
        self.inner.lock().unwrap().all.len()
    }

    pub(super) fn has_all(&self, ids: &BTreeSet<MessageId>) -> bool {
        let seen = &self.inner.lock().unwrap().ids;
        seen.len() >= ids.len() && ids.iter().all(|id| seen.contains_key(id))
    }
}

/// A handler that notes everything and succeeds.
pub(super) async fn see(State(seen): State<Seen>, delivery: Delivery) {
    seen.add(delivery);
}

/// Publishes from as many tasks as there are parts; answers the ids.
pub(super) async fn publish_all<H: Harness>(
    h: &H,
    parts: impl IntoIterator<Item = Vec<Message>>,
) -> BTreeSet<MessageId> {
    let publisher = Publisher::new(h.driver().await);
    let mut tasks = JoinSet::new();
    for part in parts {
        let publisher = publisher.clone();
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for message in part {
                ids.push(publisher.publish(message).await.expect("a publish").id);
            }
            ids
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Publishes one message; answers its id.
pub(super) async fn publish<H: Harness>(h: &H, message: Message) -> MessageId {
    Publisher::new(h.driver().await)
        .publish(message)
        .await
        .expect("a publish")
        .id
}

/// A server of one subscription, with connections of its own.
pub(super) async fn serve<H: Harness, T>(
    h: &H,
    subscription: Subscription,
    handler: impl IntoRoute<T, (), tower_layer::Identity>,
) -> (Started, Counters) {
    let server = Server::new(h.driver().await).subscribe_with(subscription, handler);
    let counters = server.counters();
    (Started::start(server).await, counters)
}

/// A server of one subscription that notes everything and succeeds.
pub(super) async fn serve_seen<H: Harness>(
    h: &H,
    subscription: Subscription,
    seen: &Seen,
) -> Started {
    let server = Server::new(h.driver().await)
        .subscribe_with(subscription, see)
        .with_state(seen.clone());
    Started::start(server).await
}

/// Stops a server that nothing keeps from stopping.
pub(super) async fn stop(server: Started) {
    server
        .stop(Duration::from_secs(20))
        .await
        .expect("a clean stop");
}

/// Notes at its drop whether the token had fired by then.
pub(super) struct OnDrop {
    pub(super) fired: Arc<Mutex<Vec<bool>>>,
    pub(super) token: CancellationToken,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.fired.lock().unwrap().push(self.token.is_cancelled());
    }
}
