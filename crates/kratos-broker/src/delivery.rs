//! A message that was received.

use std::{fmt, ops::Deref, sync::Arc, time::SystemTime};

use bytes::Bytes;
use kratos::trace::About;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Headers, MessageId, Topic,
    engine::{cell::LaneCell, ticket::Ticket},
    extensions::Extensions,
};

/// A message that was received, once per attempt. Cheap to clone.
///
/// It is the request that [tower] layers see, and an extractor of its own.
///
/// [tower]: https://docs.rs/tower
#[derive(Clone)]
pub struct Delivery {
    parts: Arc<DeliveryParts>,
    attempt: u32,
    run: Run,
}

/// A message as the engine keeps it: nothing of an attempt, and so the smallest thing to move.
#[derive(Clone, Debug)]
pub(crate) struct Received(Arc<DeliveryParts>);

/// What a driver knows of a message that it received; `Delivery::from` makes a [`Delivery`] of it.
///
/// ```
/// use kratos_broker::{Delivery, DeliveryParts};
///
/// let mut parts = DeliveryParts::new("id-1", "orders", "paid");
/// parts.tag = Some("eu".to_owned());
/// let delivery = Delivery::from(parts);
/// assert_eq!((delivery.attempt(), delivery.tag()), (1, Some("eu")));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeliveryParts {
    /// The broker's id; redeliveries have the same.
    pub id: MessageId,
    /// Where it was published.
    pub topic: Topic,
    /// What it says.
    pub body: Bytes,
    /// Its headers.
    pub headers: Headers,
    /// What people look it up by.
    pub keys: Vec<String>,
    /// What subscribers filter by.
    pub tag: Option<String>,
    /// Its message group: the key of order.
    pub group: Option<String>,
    /// Which attempt this is by the broker's count, 1 for the first.
    pub attempt: u32,
    /// After how many attempts the broker itself gives up, if the driver knows.
    pub attempts_limit: Option<u32>,
    /// When it was published, by the sender's wall clock, if that is known.
    pub born: Option<SystemTime>,
    /// The partition or queue it came from, if the broker has such.
    pub partition: Option<String>,
}

/// What the engine adds while a handler runs.
#[derive(Clone, Default)]
pub(crate) struct Run {
    pub(crate) deadline: Option<Instant>,
    /// A failure of this attempt would be the last.
    pub(crate) is_last: bool,
    pub(crate) cell: Option<Arc<LaneCell>>,
    pub(crate) ticket: Ticket,
    /// With what layers attached; the server's own are in the cell.
    pub(crate) extensions: Option<Arc<Extensions>>,
}

// === impl DeliveryParts ===

impl DeliveryParts {
    /// The first attempt of a message without headers, keys, tag or group.
    pub fn new(id: impl Into<MessageId>, topic: impl Into<Topic>, body: impl Into<Bytes>) -> Self {
        Self {
            id: id.into(),
            topic: topic.into(),
            body: body.into(),
            headers: Headers::new(),
            keys: Vec::new(),
            tag: None,
            group: None,
            attempt: 1,
            attempts_limit: None,
            born: None,
            partition: None,
        }
    }
}

impl About for DeliveryParts {
    fn tell(&self, field: &mut dyn FnMut(&'static str, &str)) {
        field("message_id", self.id.as_str());
    }
}

// === impl Delivery ===

impl From<DeliveryParts> for Delivery {
    fn from(parts: DeliveryParts) -> Self {
        Self {
            attempt: parts.attempt.max(1),
            parts: Arc::new(parts),
            run: Run::default(),
        }
    }
}

impl Delivery {
    /// What lines of the log say of it.
    pub(crate) fn about(&self) -> Arc<dyn About> {
        self.parts.clone()
    }

    /// The broker's id; redeliveries have the same.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.parts.id
    }

    /// Where it was published.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.parts.topic
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.parts.body
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.parts.headers
    }

    /// What people look it up by.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.parts.keys
    }

    /// What subscribers filter by.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.parts.tag.as_deref()
    }

    /// Its message group: messages of one group come in order.
    #[must_use]
    pub fn message_group(&self) -> Option<&str> {
        self.parts.group.as_deref()
    }

    /// Which attempt this is, 1 for the first: the broker's count, plus retries in this process. With
    /// a policy that makes [the first retries here](crate::Policy::in_process), those count for a
    /// message that comes again, also where nobody has made them.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// After how many attempts the broker itself gives up, if it says.
    #[must_use]
    pub fn attempts_limit(&self) -> Option<u32> {
        self.parts.attempts_limit
    }

    /// Whether this is the last attempt: if it fails, the message is dead-lettered. Known while a
    /// handler runs, `false` elsewhere.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.run.is_last
    }

    /// When it was published, by the sender's wall clock, if that is known.
    #[must_use]
    pub fn born(&self) -> Option<SystemTime> {
        self.parts.born
    }

    /// The partition or queue it came from.
    #[must_use]
    pub fn partition(&self) -> Option<&str> {
        self.parts.partition.as_deref()
    }

    /// Until when this attempt should end, if a handler runs it: its time limit, at which it is
    /// cancelled, or the end of lease renewal. After that it may run until its last lease is over, up
    /// to [`invisible_duration`](crate::Subscription::invisible_duration) later.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.run.deadline
    }

    /// A token that fires before the handler's future is dropped: lease lost, time limit passed,
    /// shutdown. For work that the handler spawned. It does not fire when the handler ends by itself,
    /// be it with an error or a panic.
    ///
    /// Ask for it while the handler runs: one that is asked for later, by what the handler has left
    /// behind, has fired. Outside the engine it never fires.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        match &self.run.cell {
            Some(cell) => cell.token(self.run.ticket),
            None => CancellationToken::new(),
        }
    }

    /// A value that the server or a layer attached, by its type.
    #[must_use]
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.extensions()?.get()
    }

    /// Attaches a value to this attempt: for layers.
    pub fn insert_extension<T: Send + Sync + 'static>(&mut self, value: T) {
        let mut extensions = self.extensions().cloned().unwrap_or_default();
        self.run.extensions = None;
        Arc::make_mut(&mut extensions).insert(value);
        self.run.extensions = Some(extensions);
    }

    pub(crate) fn extensions(&self) -> Option<&Arc<Extensions>> {
        let servers = self.run.cell.as_ref().map(|cell| cell.extensions());
        self.run.extensions.as_ref().or(servers)
    }

    pub(crate) fn set_extensions(&mut self, extensions: Arc<Extensions>) {
        self.run.extensions = Some(extensions);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", self.id())
            .field("topic", self.topic())
            .field("body_bytes", &self.body().len())
            .field("headers", self.headers())
            .field("keys", &self.keys())
            .field("tag", &self.tag())
            .field("message_group", &self.message_group())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

// === impl Received ===

impl From<DeliveryParts> for Received {
    fn from(parts: DeliveryParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl From<Delivery> for Received {
    #[inline]
    fn from(delivery: Delivery) -> Self {
        let Delivery { parts, run, .. } = delivery;
        let Run {
            cell, extensions, ..
        } = run;
        // One by one: as a whole it would be put together first.
        drop(cell);
        drop(extensions);
        Self(parts)
    }
}

impl Deref for Received {
    type Target = DeliveryParts;

    fn deref(&self) -> &DeliveryParts {
        &self.0
    }
}

impl Received {
    /// The broker's own count, without retries in this process.
    #[inline]
    pub(crate) fn broker_attempt(&self) -> u32 {
        self.attempt.max(1)
    }

    /// The broker itself gives up after this delivery.
    pub(crate) fn is_last_delivery(&self) -> bool {
        let limit = self.attempts_limit;
        limit.is_some_and(|limit| self.broker_attempt() >= limit)
    }

    /// The message as people see it, outside a handler.
    pub(crate) fn delivery(&self) -> Delivery {
        self.clone().run(self.broker_attempt(), Run::default())
    }

    /// The message of one attempt.
    #[inline]
    pub(crate) fn run(self, attempt: u32, run: Run) -> Delivery {
        Delivery {
            parts: self.0,
            attempt,
            run,
        }
    }
}
