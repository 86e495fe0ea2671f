//! The consumer of one group: leases, settlements, and what the engine is told of both.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use kratos_broker::{
    Delivery, DeliveryParts, Error, ErrorKind, Group, Headers, Result, Topic,
    driver::{self, Filter, GroupSpec, Leased, Room, Settled, Settlement, Ticket},
};
use rocketmq_grpc::{ConsumerConfig, Lease, LeaseId, MessageView};
use tokio::time::{Instant, sleep};

use crate::error::neutral;

/// How often a receive that brings nothing looks whether the broker is still there.
const CHECK_CONNECTED_EVERY: Duration = Duration::from_secs(1);

/// A receive that was refused works again if it is not refused for this long: longer than the
/// client waits between two tries.
const REFUSED_QUIET: Duration = Duration::from_secs(40);

/// The members of a group in this process: the [`Consumer`](driver::Consumer) of this driver.
#[derive(Debug)]
pub struct Consumer {
    inner: rocketmq_grpc::Consumer,
    group: Group,
    /// Which settlement is the engine's which.
    tickets: Mutex<HashMap<LeaseId, Ticket>>,
    /// What the engine was told last of each topic, and should hear when it is over.
    troubled: Mutex<HashMap<Topic, Trouble>>,
    /// A moving average: room in bytes is turned into messages by it.
    body_bytes: AtomicUsize,
}

/// Why the engine thinks that a topic cannot be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The broker is away.
    Away,
    /// The broker refused a receive. The client goes on trying, and tells of each refusal.
    Refused,
}

// === impl Consumer ===

impl Consumer {
    pub(crate) async fn join(client: &rocketmq_grpc::Client, group: &GroupSpec) -> Result<Self> {
        let mut config =
            ConsumerConfig::new(group.group.as_str()).invisible_duration(group.invisible);
        for spec in &group.topics {
            if let Filter::Sql(_) = spec.filter {
                let refused = format!(
                    "topic {}: this driver does not filter by SQL yet",
                    spec.topic
                );
                return Err(Error::new(ErrorKind::Unsupported, refused));
            }
            let tags = rocketmq_grpc::Filter::tags(spec.filter.to_string());
            config = config.subscribe(spec.topic.as_str(), tags);
        }
        let inner = client.consumer(config).await.map_err(neutral)?;
        if inner.settings().fifo {
            // Its batches are settled as one unit, which the engine does not do yet: refused rather
            // than consumed in the wrong order.
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "group {0} consumes in order, which this driver cannot do yet; use a group \
                     without order: mqadmin updateSubGroup -n <namesrv> -c <cluster> -g {0} -o false",
                    group.group
                ),
            ));
        }
        Ok(Self {
            inner,
            group: group.group.clone(),
            tickets: Mutex::default(),
            troubled: Mutex::default(),
            body_bytes: AtomicUsize::new(0),
        })
    }

    fn tickets(&self) -> MutexGuard<'_, HashMap<LeaseId, Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages of the usual size fit.
    fn messages(&self, room: Room) -> usize {
        let fits = room.bytes / self.body_bytes.load(Relaxed).max(1);
        room.messages.min(fits).max(1)
    }

    fn leased(&self, topic: &Topic, attempts_limit: u32, mut lease: Lease) -> Leased<Lease> {
        let message = lease.take_message();
        let (average, bytes) = (self.body_bytes.load(Relaxed), message.body.len());
        self.body_bytes
            .store((average * 7 + bytes).div_ceil(8), Relaxed);
        Leased {
            delivery: delivery(topic, message, attempts_limit),
            expires_at: lease.deadline(),
            lease,
        }
    }

    fn troubled(&self) -> MutexGuard<'_, HashMap<Topic, Trouble>> {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the engine should hear that a topic cannot be received, or can be again: a
    /// receive itself only ends with messages.
    async fn news(&self, topic: &Topic) -> Result<()> {
        let quiet_since = Instant::now();
        loop {
            sleep(CHECK_CONNECTED_EVERY).await;
            let connected = self.inner.is_connected();
            let trouble = self.troubled().get(topic).copied();
            match trouble {
                None if !connected => {
                    self.troubled().insert(topic.clone(), Trouble::Away);
                    return Err(Error::new(
                        ErrorKind::Transient,
                        "not connected to the broker",
                    ));
                }
                Some(Trouble::Away) if connected => break,
                // It would have been refused again by now.
                Some(Trouble::Refused) if connected && quiet_since.elapsed() >= REFUSED_QUIET => {
                    break;
                }
                None | Some(_) => {}
            }
        }
        self.troubled().remove(topic);
        Ok(())
    }
}

impl driver::Consumer for Consumer {
    type Lease = Lease;

    fn attempts_limit(&self) -> Option<u32> {
        Some(self.inner.settings().max_attempts)
    }

    fn how_to_raise_attempts(&self, attempts: u32) -> Option<String> {
        let (group, retries) = (&self.group, attempts.saturating_sub(1));
        Some(format!(
            "raise the group's: mqadmin updateSubGroup -n <namesrv> -c <cluster> -g {group} \
             -r {retries}"
        ))
    }

    async fn receive(&self, topic: &Topic, room: Room) -> Result<Vec<Leased<Lease>>> {
        let received = tokio::select! {
            biased;
            received = self.inner.receive(topic, self.messages(room)) => received,
            news = self.news(topic) => return news.map(|()| Vec::new()),
        };
        let received = match received {
            Ok(received) => {
                self.troubled().remove(topic);
                received
            }
            Err(error) => {
                self.troubled().insert(topic.clone(), Trouble::Refused);
                return Err(neutral(error));
            }
        };
        let attempts_limit = self.inner.settings().max_attempts;
        let leased = received.into_iter();
        Ok(leased
            .map(|lease| self.leased(topic, attempts_limit, lease))
            .collect())
    }

    fn settle(&self, ticket: Ticket, lease: Lease, how: Settlement) {
        let how = match how {
            Settlement::Ack => rocketmq_grpc::Settlement::Ack,
            Settlement::RetryAfter(delay) => rocketmq_grpc::Settlement::RetryAfter(delay),
            Settlement::DeadLetter => rocketmq_grpc::Settlement::DeadLetter,
            // A settlement that this driver does not know yet must not lose the message.
            _ => rocketmq_grpc::Settlement::HandBack,
        };
        self.tickets().insert(lease.id(), ticket);
        self.inner.settle(lease, how);
    }

    async fn settled(&self) -> Vec<Settled> {
        let settled = self.inner.settled().await;
        let mut tickets = self.tickets();
        let answered = settled.into_iter().filter_map(|settled| {
            let ticket = tickets.remove(&settled.lease)?;
            Some(Settled {
                ticket,
                result: settled.result.map_err(neutral),
            })
        });
        answered.collect()
    }

    async fn extend(&self, lease: &mut Lease, by: Duration) -> Result<Instant> {
        self.inner.extend(lease, by).await.map_err(neutral)
    }

    async fn stop_receiving(&self) {
        self.inner.stop_receiving().await;
    }

    async fn close(self, by: Instant) -> Result<()> {
        self.inner.close(by).await.map_err(neutral)
    }
}

fn delivery(topic: &Topic, message: MessageView, attempts_limit: u32) -> Delivery {
    let mut parts = DeliveryParts::new(message.id, topic, message.body);
    parts.headers = message.properties.into_iter().collect::<Headers>();
    parts.keys = message.keys;
    parts.tag = message.tag;
    parts.group = message.group;
    parts.attempt = message.attempt;
    parts.attempts_limit = Some(attempts_limit);
    parts.born = message.born_at;
    parts.partition = Some(message.queue_id.to_string());
    parts.into()
}
