//! What the tests share: a server on a memory broker, on a paused clock.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos_broker::{
    AnyError, Backoff, Delivery, Message, Policy, Publisher, Router, Server, Subscription,
    memory::Broker,
};

/// An hour of paused clock: what would hang fails instead.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn subscription() -> Subscription {
    Subscription::new("t", "g").policy(Policy::new().backoff(Backoff::fixed(secs(1))))
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn server<L>(broker: &Broker, router: Router<(), L>) -> Server<Broker> {
    Server::new(broker.clone()).routes(router)
}

pub(crate) async fn publish(broker: &Broker, message: Message) -> String {
    Publisher::new(broker.clone())
        .publish(message)
        .await
        .unwrap()
        .id
        .to_string()
}

pub(crate) async fn publish_numbers(broker: &Broker, count: usize) {
    for n in 0..count {
        publish(broker, Message::new("t", n.to_string())).await;
    }
}

/// Waits on the paused clock until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    kratos_broker::testing::eventually(what, LONG, condition).await;
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body().to_vec()).unwrap()
}

pub(crate) fn failed() -> Result<(), AnyError> {
    Err(AnyError::msg("on purpose"))
}

/// A list that handlers write to.
#[derive(Debug)]
pub(crate) struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Log<T> {
    pub(crate) fn add(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
