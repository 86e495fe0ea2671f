//! A push consumer that remembers what it was given, and how consumers are read to the end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rocketmq_grpc::{ConsumerConfig, Filter, Lease, MessageView, PushConsumer, SimpleConsumer};
use tokio::time::{Instant, sleep};

use crate::site::{GLANCE, LEASE, PATIENCE, Site, in_time, soon};

pub(crate) struct Listener {
    push: PushConsumer,
    got: Arc<Mutex<Vec<MessageView>>>,
}

impl Site {
    /// Takes everything of `topic`.
    pub(crate) async fn listen(&self, topic: &str, group: &str) -> Listener {
        self.listen_for(topic, group, Filter::all()).await
    }

    pub(crate) async fn listen_for(&self, topic: &str, group: &str, filter: Filter) -> Listener {
        self.listen_and(topic, group, filter, |_, _| true).await
    }

    /// With a handler that succeeds if `handle` says so; it is told how often the handler was given
    /// this message, from 1.
    pub(crate) async fn listen_and(
        &self,
        topic: &str,
        group: &str,
        filter: Filter,
        handle: impl Fn(&MessageView, usize) -> bool + Clone + Send + Sync + 'static,
    ) -> Listener {
        let got = Arc::new(Mutex::new(Vec::<MessageView>::new()));
        let seen = got.clone();
        let handler = move |message: MessageView| {
            let times = {
                let mut seen = seen.lock().unwrap();
                seen.push(message.clone());
                seen.iter().filter(|it| it.id == message.id).count()
            };
            let handled = handle(&message, times);
            async move { handled.then_some(()).ok_or("fails on purpose") }
        };
        let config = ConsumerConfig::new(group).subscribe(topic, filter);
        let push = PushConsumer::start(&self.client, config, 8, handler).await;
        Listener {
            push: push.unwrap(),
            got,
        }
    }
}

impl Listener {
    pub(crate) fn got(&self) -> Vec<MessageView> {
        self.got.lock().unwrap().clone()
    }

    /// Waits for so many deliveries.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<MessageView> {
        self.wait_until(&format!("{count} deliveries"), |got| got.len() >= count)
            .await
    }

    pub(crate) async fn wait_until(
        &self,
        what: &str,
        reached: impl Fn(&[MessageView]) -> bool,
    ) -> Vec<MessageView> {
        let by = Instant::now() + PATIENCE;
        loop {
            let got = self.got();
            if reached(&got) {
                return got;
            }
            assert!(Instant::now() < by, "no {what}, but {}: {got:?}", got.len());
            sleep(GLANCE).await;
        }
    }

    /// Stops, with everything settled that was taken; all deliveries.
    pub(crate) async fn stop(self) -> Vec<MessageView> {
        self.push.stop(soon()).await.unwrap();
        let got = self.got.lock().unwrap();
        got.clone()
    }
}

/// Receives `count` messages and leaves them unsettled.
pub(crate) async fn take(consumer: &SimpleConsumer, count: usize) -> Vec<Lease> {
    take_for(consumer, count, LEASE).await
}

/// The same with a lease that no case outlasts.
pub(crate) async fn take_long(consumer: &SimpleConsumer, count: usize) -> Vec<Lease> {
    take_for(consumer, count, PATIENCE).await
}

async fn take_for(consumer: &SimpleConsumer, count: usize, lease: Duration) -> Vec<Lease> {
    let mut leases = Vec::new();
    let taking = async {
        while leases.len() < count {
            leases.extend(consumer.receive(count - leases.len(), lease).await.unwrap());
        }
    };
    in_time(&format!("{count} messages"), taking).await;
    leases
}

/// Receives one message and acknowledges it.
pub(crate) async fn take_one(consumer: &SimpleConsumer) -> MessageView {
    let lease = take_long(consumer, 1).await.remove(0);
    let message = lease.message().clone();
    consumer.ack(lease).await.unwrap();
    message
}

pub(crate) fn ids(got: &[MessageView]) -> Vec<String> {
    got.iter().map(|it| it.id.clone()).collect()
}

pub(crate) fn bodies(got: &[MessageView]) -> Vec<String> {
    let text = |it: &MessageView| String::from_utf8_lossy(&it.body).into_owned();
    got.iter().map(text).collect()
}

/// Each of `sent` was delivered once, in whatever order, and nothing else.
pub(crate) fn assert_each_once(got: &[MessageView], sent: &[String]) {
    let (mut got, mut sent) = (ids(got), sent.to_vec());
    got.sort();
    sent.sort();
    assert_eq!(got, sent);
}
