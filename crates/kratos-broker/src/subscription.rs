//! A subscription: topic, group, filter, and how its messages are handled.

use std::{
    any::Any,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
    time::Duration,
};

use crate::{
    AnyError, BatchSettings, BodyType, DeadLetter, Delivery, Disposition, Group, KillSwitch,
    Policy, RateLimit, Topic, driver::Filter,
};

/// Most lanes of a subscription.
pub(crate) const CONCURRENCY_MAX: usize = 4_096;

/// Most messages that a subscription may prefetch.
const PREFETCH_LIMIT: usize = 1_000_000;

type KeyOf = dyn Fn(&Delivery) -> Option<u64> + Send + Sync;

/// Messages that wait for a free lane: where handlers take their time, and where they do not.
const PREFETCH: usize = 32;
const PREFETCH_MAX: usize = 512;

type Classifier = Arc<dyn Fn(&dyn Any) -> Option<Disposition> + Send + Sync>;

/// A subscription and its settings, for [`Router::subscribe_with`](crate::Router::subscribe_with).
///
/// ```
/// use std::time::Duration;
/// use kratos_broker::{Policy, Subscription};
///
/// let subscription = Subscription::new("orders", "billing")
///     .tags(["paid", "refunded"])
///     .concurrency(32)
///     .handler_timeout(Duration::from_secs(5))
///     .policy(Policy::new().max_attempts(5));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Subscription {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) filter: Filter,
    pub(crate) order: Order,
    pub(crate) order_by: Option<OrderBy>,
    pub(crate) fifo: bool,
    pub(crate) broadcast: bool,
    pub(crate) concurrency: usize,
    pub(crate) prefetch: Option<usize>,
    pub(crate) prefetch_bytes: usize,
    pub(crate) policy: Policy,
    pub(crate) ordered_policy: Policy,
    pub(crate) dead_letter: DeadLetter,
    pub(crate) kill_switch: Option<KillSwitch>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) invisible: Duration,
    pub(crate) max_hold: Duration,
    pub(crate) handler_timeout: Option<Duration>,
    /// Most messages of a batch; 1 where there are none.
    batch: usize,
    pub(crate) is_batch: bool,
    classifiers: Vec<Classifier>,
    bodies: Vec<BodyType>,
    #[cfg(feature = "asyncapi")]
    pub(crate) schema: Option<crate::asyncapi::SchemaOf>,
}

/// Which messages of a subscription are handled one after another, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Messages of one message group; messages without a group go to any free lane. The default.
    #[default]
    ByGroup,
    /// Messages of one message group, else of one first key. Between processes such messages have
    /// no order: only message groups have, on topics that the broker keeps in order.
    ByKey,
    /// None: every message goes to any free lane.
    Unordered,
}

impl Subscription {
    /// Messages of `topic` for `group`: all tags, 16 at once.
    pub fn new(topic: impl Into<Topic>, group: impl Into<Group>) -> Self {
        Self {
            topic: topic.into(),
            group: group.into(),
            filter: Filter::All,
            order: Order::default(),
            order_by: None,
            fifo: false,
            broadcast: false,
            concurrency: 16,
            prefetch: None,
            prefetch_bytes: 64 * 1024 * 1024,
            policy: Policy::new(),
            ordered_policy: Policy::ordered(),
            dead_letter: DeadLetter::Native,
            kill_switch: None,
            rate_limit: None,
            invisible: Duration::from_secs(30),
            max_hold: Duration::from_secs(3600),
            handler_timeout: None,
            batch: 1,
            is_batch: false,
            classifiers: Vec::new(),
            bodies: Vec::new(),
            #[cfg(feature = "asyncapi")]
            schema: None,
        }
    }

    /// Takes only messages with one of these tags. Subscriptions of one topic and group with
    /// different tags share one filter on the broker; each gets its own messages.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.filter = Filter::tags(tags);
        self
    }

    /// Takes only messages whose headers satisfy an expression in the broker's SQL. A subscription
    /// with an expression is the only one of its topic in its group.
    pub fn sql(mut self, expression: impl Into<String>) -> Self {
        self.filter = Filter::Sql(expression.into());
        self
    }

    /// Sets how many messages, or batches, are handled at once: 16 by default, 1 to 4,096.
    pub fn concurrency(mut self, lanes: usize) -> Self {
        self.concurrency = lanes.clamp(1, CONCURRENCY_MAX);
        self
    }

    /// Sets how many messages may wait here for a free lane. Fewer spread better over the members of
    /// a group; more hide the broker's latency.
    ///
    /// By default it depends on how fast the handlers are: 32, or one batch, and up to 512 as long
    /// as that is what they do in 50 ms. Subscriptions of one topic and group, with other tags,
    /// share the sum of their room.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = Some(messages.min(PREFETCH_LIMIT));
        self
    }

    /// Sets how many bytes of bodies may be in this process at once: 64 MiB by default.
    /// Subscriptions of one topic and group share the sum.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes.max(1);
        self
    }

    /// Sets which messages are handled one after another.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Handles messages for which `key` answers the same one after another; those for which it
    /// answers `None` go to any free lane. In place of [`order`](Subscription::order), and like
    /// [`Order::ByKey`] inside this process only.
    ///
    /// It is called once per received message and should be cheap: what it is made of is best put
    /// into a header or the key by the sender.
    ///
    /// ```
    /// use kratos_broker::{Delivery, Subscription};
    ///
    /// fn customer(delivery: &Delivery) -> Option<String> {
    ///     delivery.headers().get("customer").map(str::to_owned)
    /// }
    ///
    /// let subscription = Subscription::new("orders", "billing").order_by(customer);
    /// ```
    pub fn order_by<K: Hash>(
        mut self,
        key: impl Fn(&Delivery) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        let hasher = RandomState::new();
        let key = move |delivery: &Delivery| key(delivery).map(|key| hasher.hash_one(key));
        self.order_by = Some(OrderBy(Arc::new(key)));
        self
    }

    /// Consumes in the order that the broker keeps: each message group
    /// ([`Message::group`](crate::Message::group)) one after another, also over drains, restarts
    /// and several members of the group. Message groups run in parallel, up to
    /// [`concurrency`](Subscription::concurrency); messages without a group keep the order of their
    /// partition.
    ///
    /// The group on the broker must be one that consumes in order, and all its subscriptions must
    /// say so: the start fails otherwise, and says what to do. (Without `fifo` the messages of a
    /// group keep their order inside this process only.)
    ///
    /// What the order costs: a failed message is tried again in this process, while all behind it
    /// in its message group wait ([`ordered_policy`](Subscription::ordered_policy), 3 attempts in
    /// less than a second by default); then it is dead-lettered, and the group goes on. Where the
    /// broker delivers a partition in batches that are one unit, its next batch comes when this one
    /// is settled to the last message.
    pub fn fifo(mut self) -> Self {
        self.fifo = true;
        self
    }

    /// Gives every instance of the service every message, from its start on: each joins with a
    /// group of its own, made at the start and removed at the stop. The name of the subscription's
    /// group is the first part of that group's name.
    ///
    /// What is published while an instance is down it does not get. What a crash leaves behind is
    /// told by the driver.
    pub fn broadcast(mut self) -> Self {
        self.broadcast = true;
        self
    }

    /// Sets what happens after failures of messages without a key, whose order is not kept. The
    /// broker delivers them again, after [as many retries in this
    /// process](Policy::in_process) as the policy says: none by default.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what happens after failures of messages with a key, whose order is kept: they are
    /// retried in this process while the ones behind them in their key wait, so keep it short
    /// ([`Policy::ordered`], 3 attempts in less than a second). Other keys go on.
    ///
    /// With fewer retries [in this process](Policy::in_process) than attempts the rest is the
    /// broker's: the message comes again behind those that it stood in front of. Not so with
    /// [`fifo`](Subscription::fifo), where all retries are made in this process.
    pub fn ordered_policy(mut self, policy: Policy) -> Self {
        self.ordered_policy = policy;
        self
    }

    /// Sets where messages go that are given up: [`DeadLetter::Native`] by default.
    pub fn dead_letter(mut self, dead_letter: DeadLetter) -> Self {
        self.dead_letter = dead_letter;
        self
    }

    /// Pauses the subscription while everything fails: see [`KillSwitch`]. None by default.
    pub fn kill_switch(mut self, switch: KillSwitch) -> Self {
        self.kill_switch = Some(switch);
        self
    }

    /// Limits how often handlers start: see [`RateLimit`]. None by default.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// Sets for how long the broker hides a received message from others: 30 s by default. It is
    /// extended while the message waits or its handler runs; after a crash the message comes back
    /// when it is over. The longest of a group's subscriptions applies to all of them.
    pub fn invisible_duration(mut self, invisible: Duration) -> Self {
        self.invisible = invisible;
        self
    }

    /// Sets for how long a message may be held before the lease is no longer extended: 1 h by
    /// default. A handler that runs longer is cancelled when the last lease has run out, at most
    /// [`invisible_duration`](Subscription::invisible_duration) later, and the message comes again.
    /// So does one that only waits, for a pause or a rate limit, which costs an attempt. Of
    /// subscriptions of one topic and group the longest applies to all.
    pub fn max_hold(mut self, hold: Duration) -> Self {
        self.max_hold = hold;
        self
    }

    /// Sets how long one attempt may take; none by default. A handler that takes longer is
    /// cancelled, which is a failure.
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.handler_timeout = Some(timeout);
        self
    }

    /// Decides what an error of type `E` means, in place of its
    /// [`disposition`](crate::HandlerError::disposition). Also finds an `E` inside [`AnyError`].
    /// Several are asked in order; the first of the right type answers.
    pub fn classify<E: 'static>(
        mut self,
        classify: impl Fn(&E) -> Disposition + Send + Sync + 'static,
    ) -> Self {
        self.classifiers.push(Arc::new(move |error: &dyn Any| {
            let inside = || {
                error
                    .downcast_ref::<AnyError>()?
                    .downcast_any()
                    .downcast_ref::<E>()
            };
            error.downcast_ref::<E>().or_else(inside).map(&classify)
        }));
        self
    }

    /// Documents the messages with the JSON Schema of `T`: the type that the handler takes.
    ///
    /// The start fails if it takes another one. Of a handler that decodes bodies itself (it takes
    /// [`Bytes`](crate::Bytes) or a [`Delivery`]) nobody can know, and `T` is believed. Schemas are
    /// of the JSON that is read, whatever the encoding.
    ///
    /// ```
    /// use kratos_broker::{Json, Router, Subscription};
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Order { id: String }
    ///
    /// async fn bill(Json(order): Json<Order>) {}
    ///
    /// let subscription = Subscription::new("orders", "billing").schema::<Order>();
    /// let router: Router = Router::new().subscribe_with(subscription, bill);
    /// ```
    #[cfg(feature = "asyncapi")]
    pub fn schema<T: schemars::JsonSchema + 'static>(mut self) -> Self {
        self.schema = Some(crate::asyncapi::SchemaOf::of::<T>());
        self
    }

    /// What the handler makes of a body, as far as its extractors say; known of a subscription that
    /// is in a [`Router`](crate::Router).
    #[must_use]
    pub fn bodies(&self) -> &[BodyType] {
        &self.bodies
    }

    /// Waiting and running messages together.
    pub(crate) fn capacity(&self) -> usize {
        self.room(PREFETCH)
    }

    /// The same while handlers keep up with what comes.
    pub(crate) fn capacity_max(&self) -> usize {
        self.room(PREFETCH_MAX)
    }

    fn room(&self, prefetch: usize) -> usize {
        let all = self.concurrency * self.batch + self.prefetch.unwrap_or(prefetch.max(self.batch));
        // More would lose their leases unseen.
        let in_time = |limit: RateLimit| limit.starts_in(self.max_hold / 2);
        let starts = self.rate_limit.map_or(usize::MAX, in_time);
        all.min(starts.saturating_mul(self.batch))
    }

    /// The handler takes batches.
    pub(crate) fn batches(mut self, settings: &BatchSettings) -> Self {
        (self.batch, self.is_batch) = (settings.max_messages, true);
        self
    }

    /// The handler makes this of bodies.
    pub(crate) fn takes(mut self, bodies: Vec<BodyType>) -> Self {
        self.bodies = bodies;
        self
    }

    pub(crate) fn classifiers(&self) -> Classifiers {
        let some = !self.classifiers.is_empty();
        Classifiers(some.then(|| self.classifiers.as_slice().into()))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("filter", &self.filter)
            .field("order", &self.order)
            .field("concurrency", &self.concurrency)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// `topic orders, group billing, tags a || b`: how errors and the log name it.
impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            group,
            filter,
            ..
        } = self;
        write!(f, "topic {topic}, group {group}, filter {filter}")
    }
}

/// The key of a message, hashed; from [`Subscription::order_by`].
#[derive(Clone)]
pub(crate) struct OrderBy(Arc<KeyOf>);

impl OrderBy {
    pub(crate) fn key(&self, delivery: &Delivery) -> Option<u64> {
        (self.0)(delivery)
    }
}

impl fmt::Debug for OrderBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrderBy")
    }
}

/// What a lane asks about an error. None are cheaper to clone, and each call of a handler does.
#[derive(Clone)]
pub(crate) struct Classifiers(Option<Arc<[Classifier]>>);

impl Classifiers {
    pub(crate) fn ask(&self, error: &dyn Any) -> Option<Disposition> {
        self.0
            .iter()
            .flat_map(|all| all.iter())
            .find_map(|classify| classify(error))
    }
}
