//! The consumer of one group: leases, settlements, and what the engine is told of both.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use kratos::trace::Attributes;
use kratos_broker::{
    Delivery, DeliveryParts, Error, ErrorKind, Group, Result, Topic,
    driver::{
        self, BatchPlace, Filter, GroupSpec, Leased, Member, Room, Settled, Settlement, Tap, Ticket,
    },
};
use rocketmq_grpc::{ConsumerConfig, Lease, LeaseId, MessageView};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{attributes, broadcast::OwnGroup, error::neutral, headers};
#[cfg(any(feature = "admin", feature = "embedded"))]
use crate::{broadcast::Site, lag::Lags};

/// How often a receive that brings nothing looks whether the broker is still there.
const CHECK_CONNECTED_EVERY: Duration = Duration::from_secs(1);

/// A receive that was refused works again if it is not refused for this long: longer than the
/// client waits between two tries.
const REFUSED_QUIET: Duration = Duration::from_secs(40);

/// How much of the time to close is kept for the removal of a group, at most.
const REMOVE_MAX: Duration = Duration::from_secs(2);

/// The members of a group in this process: the [`Consumer`](driver::Consumer) of this driver.
#[derive(Debug)]
pub struct Consumer {
    inner: rocketmq_grpc::Consumer,
    group: Group,
    namespace: String,
    /// Of a broadcast: removed at the end.
    own_group: Option<OwnGroup>,
    /// Which settlement is the engine's which.
    tickets: Mutex<HashMap<LeaseId, Ticket>>,
    /// What the engine was told last of each topic, and should hear when it is over.
    troubled: Mutex<HashMap<Topic, Trouble>>,
    /// A moving average: room in bytes is turned into messages by it.
    body_bytes: AtomicUsize,
    member: Member,
    /// How far the group is behind, where somebody can be asked.
    #[cfg(any(feature = "admin", feature = "embedded"))]
    lags: Option<Lags>,
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
    pub(crate) async fn join(
        client: &rocketmq_grpc::Client,
        group: &GroupSpec,
        own_group: Option<OwnGroup>,
        tap: &Tap,
    ) -> Result<Self> {
        let name = own_group.as_ref().map_or(&*group.group, |own| &own.name);
        let mut config = ConsumerConfig::new(name).invisible_duration(group.invisible);
        for spec in &group.topics {
            let filter = match &spec.filter {
                Filter::Sql(expression) => rocketmq_grpc::Filter::sql(expression),
                tags => rocketmq_grpc::Filter::tags(tags.to_string()),
            };
            config = config.subscribe(spec.topic.as_str(), filter);
        }
        let inner = client.consumer(config).await.map_err(neutral)?;
        agree_on_order(name, group.fifo, inner.settings().fifo)?;
        Ok(Self {
            inner,
            group: name.into(),
            namespace: client.namespace().to_owned(),
            own_group,
            tickets: Mutex::default(),
            troubled: Mutex::default(),
            body_bytes: AtomicUsize::new(0),
            member: tap.member(group),
            #[cfg(any(feature = "admin", feature = "embedded"))]
            lags: None,
        })
    }

    /// The same, asking a site how far its group is behind.
    #[cfg(any(feature = "admin", feature = "embedded"))]
    pub(crate) fn watched(mut self, site: Site, every: Duration, topics: Vec<Topic>) -> Self {
        self.lags = Lags::watch(site, every, self.group.clone(), topics);
        self
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
        let place = lease.batch().map(|place| BatchPlace {
            batch: place.batch.number(),
            // The server gives out 32 messages at once.
            index: u32::try_from(place.position).unwrap_or(u32::MAX),
        });
        let limit = place.is_none().then_some(attempts_limit);
        let delivery = delivery_of(topic, message, limit);
        self.member.received(lease.id().number(), &delivery);
        Leased {
            delivery,
            expires_at: lease.deadline(),
            lease,
            place,
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
        let orderly = orderly(self.inner.settings().fifo);
        Some(format!(
            "raise the group's: rocketmq-admin group create {group}{orderly}:retry={retries} \
             --namesrv <namesrv>"
        ))
    }

    /// All members share the queues of the brokers that are in the topic's route.
    fn is_assigned(&self, topic: &Topic) -> Option<bool> {
        let brokers = self.inner.brokers_of(topic)?;
        self.inner.is_connected().then_some(brokers > 0)
    }

    #[cfg(any(feature = "admin", feature = "embedded"))]
    fn lag(&self, topic: &Topic) -> Option<u64> {
        self.lags.as_ref()?.of(topic)
    }

    fn describe(&self, delivery: Option<&Delivery>, to: &mut Attributes) {
        attributes::client(&self.namespace, Some(self.inner.client_id()), to);
        attributes::consumer(self.own_group.is_some(), to);
        if let Some(delivery) = delivery {
            attributes::received(delivery, to);
        }
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
        let how = self.member.settle(lease.id().number(), ticket, how);
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
            let mut settled = Settled {
                ticket,
                result: settled.result.map_err(neutral),
            };
            self.member.settled(&mut settled);
            Some(settled)
        });
        answered.collect()
    }

    async fn extend(&self, lease: &mut Lease, by: Duration) -> Result<Instant> {
        self.member.extend(lease.id().number())?;
        self.inner.extend(lease, by).await.map_err(neutral)
    }

    async fn stop_receiving(&self) {
        self.inner.stop_receiving().await;
    }

    async fn close(self, by: Instant) -> Result<()> {
        let Some(own_group) = self.own_group else {
            return self.inner.close(by).await.map_err(neutral);
        };
        let left = by.saturating_duration_since(Instant::now());
        let left_by = by - (left / 3).min(REMOVE_MAX);
        let closed = self.inner.close(left_by).await.map_err(neutral);
        let removed = timeout_at(by, own_group.remove()).await;
        let late = |_| {
            Err(Error::new(
                ErrorKind::Transient,
                "no time to remove its group",
            ))
        };
        closed.and(removed.unwrap_or_else(late))
    }
}

/// The group must be of the kind that the subscriptions want: everything else is done in the wrong
/// order, or waits for what it need not.
fn agree_on_order(group: &str, wanted: bool, is: bool) -> Result<()> {
    let change = |to: bool| {
        let orderly = orderly(to);
        format!("rocketmq-admin group create {group}{orderly} --namesrv <namesrv>")
    };
    let what = match (wanted, is) {
        (true, false) => format!(
            "group {group} does not consume in order, as a fifo() subscription must: {}",
            change(true)
        ),
        (false, true) => format!(
            "group {group} consumes in order: subscribe with fifo(), or change the group: {}",
            change(false)
        ),
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Invalid, what))
}

/// In the admin command's description of a group.
fn orderly(is: bool) -> &'static str {
    if is { ":orderly" } else { "" }
}

/// A message, outside a consumer.
pub(crate) fn delivery(topic: &Topic, message: MessageView) -> Delivery {
    delivery_of(topic, message, None)
}

fn delivery_of(topic: &Topic, message: MessageView, attempts_limit: Option<u32>) -> Delivery {
    let mut parts = DeliveryParts::new(message.id, topic, message.body);
    parts.headers = headers::headers(message.properties);
    parts.keys = message.keys;
    parts.tag = message.tag;
    parts.group = message.group;
    parts.attempt = message.attempt;
    parts.attempts_limit = attempts_limit;
    parts.born = message.born_at;
    parts.partition = Some(message.queue_id.to_string());
    parts.into()
}
