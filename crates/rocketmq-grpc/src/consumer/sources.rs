//! Which brokers a topic is received from, as its route changes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{ConsumerConfig, intake::Intake, receiver::Source, settler::Settler};
use crate::{instance::Instance, route::Broker};

/// Between looks at the route of a topic that has no broker.
const NO_BROKER_INTERVAL: Duration = Duration::from_secs(2);

/// The brokers of one topic, as its route changes.
pub(super) struct Sources {
    pub(super) instance: Arc<Instance>,
    pub(super) intake: Arc<Intake>,
    pub(super) settler: Arc<Settler>,
    pub(super) config: ConsumerConfig,
    pub(super) corrupted: Arc<AtomicU64>,
    pub(super) polled: HashMap<Broker, CancellationToken>,
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.intake.brokers.store(0, Ordering::Relaxed);
        self.intake
            .pool
            .sources
            .fetch_sub(self.polled.len(), Ordering::Relaxed);
    }
}

impl Sources {
    pub(super) async fn run(mut self, brokers: Vec<Broker>) {
        self.poll(&brokers);
        let interval = self.instance.shared.config.route_refresh_interval;
        let stopping = self.intake.stopping.clone();
        // A client that is closed polls no more, whatever its consumers do.
        let (stop, intake) = (self.instance.stop.clone(), self.intake.clone());
        self.intake.loops.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => intake.begin_stop(),
                () = intake.stopping.cancelled() => {}
            }
        });
        loop {
            // Without a broker everything stands still: ask more often.
            let wait = if self.polled.is_empty() {
                interval.min(NO_BROKER_INTERVAL)
            } else {
                interval
            };
            let waited = stopping.run_until_cancelled(tokio::time::sleep(wait));
            if waited.await.is_none() {
                return;
            }
            let route = stopping
                .run_until_cancelled(self.instance.route(&self.intake.topic))
                .await;
            match route {
                None => return,
                Some(Ok(route)) => {
                    let brokers: Vec<_> = route.readable().into_iter().cloned().collect();
                    self.poll(&brokers);
                }
                // The receives keep going on the old route and report what they are told.
                Some(Err(_)) => {}
            }
        }
    }

    fn poll(&mut self, brokers: &[Broker]) {
        let before = self.polled.len();
        self.polled.retain(|broker, gone| {
            let stays = brokers.contains(broker);
            if !stays {
                gone.cancel();
            }
            stays
        });
        for broker in brokers {
            if self.polled.contains_key(broker) {
                continue;
            }
            let gone = CancellationToken::new();
            let source = Arc::new(Source {
                instance: self.instance.clone(),
                intake: self.intake.clone(),
                settler: self.settler.clone(),
                group: self.config.group.clone(),
                broker: broker.clone(),
                long_poll: self.config.long_polling_timeout,
                busy: AtomicBool::new(false),
                last_message_at: Mutex::default(),
                gone: gone.clone(),
                corrupted: self.corrupted.clone(),
            });
            for n in 0..self.config.receives_max {
                self.intake.loops.spawn(source.clone().run(n == 0));
            }
            self.polled.insert(broker.clone(), gone);
        }
        let now = self.polled.len();
        self.intake.brokers.store(now, Ordering::Relaxed);
        let sources = &self.intake.pool.sources;
        sources.fetch_add(now, Ordering::Relaxed);
        sources.fetch_sub(before, Ordering::Relaxed);
    }
}
