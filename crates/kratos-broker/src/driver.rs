//! What a broker must offer: the traits that drivers implement, and their laws.
//!
//! A [`Driver`] is a handle on a broker: it publishes, and makes one [`Consumer`] per group. The
//! engine owns everything that is the same for all brokers (lanes, order, attempts, back-off, when
//! to extend, drain); the driver owns the protocol. The laws below are tested by
//! the conformance kit (`testing`, feature `test-util`), on every driver.

mod capabilities;
mod settlement;
mod spec;

use std::time::Duration;

use kratos::{StartContext, trace::Attributes};
use tokio::time::Instant;

use crate::{
    Delivery, Error, Group, Message, RecallHandle, Receipt, Replay, Resolution, Result, Topic,
    Transacted,
};

pub use self::{
    capabilities::Capabilities,
    settlement::{Settled, Settlement},
    spec::{Filter, GroupSpec, TopicSpec},
};
pub use crate::{
    engine::ticket::Ticket,
    tap::{Member, Sending, Tap},
};

/// A handle on a broker; clones share connections.
pub trait Driver: Clone + Send + Sync + 'static {
    /// The value of `messaging.system` in telemetry, and the default name of a server: lower case.
    const SYSTEM: &'static str;

    /// The consumer of one group.
    type Consumer: Consumer;

    /// What the broker can do. Anything else is refused: by [`Publisher`](crate::Publisher) and by
    /// the server's `bind`, and by the driver itself, which never ignores it silently
    /// ([`check_message`](Capabilities::check_message), [`check_group`](Capabilities::check_group)).
    fn capabilities(&self) -> Capabilities;

    /// Where the broker is, for documents: `proxy.example:8081`.
    #[cfg(feature = "asyncapi")]
    fn host(&self) -> String {
        "in-process".to_owned()
    }

    /// What documents say of a part in words that only this broker has: the content of the
    /// extension `x-<SYSTEM>`.
    #[cfg(feature = "asyncapi")]
    fn extension(&self, part: crate::asyncapi::Part<'_>) -> Option<serde_json::Value> {
        let _ = part;
        None
    }

    /// Where typed publishers are known by, if the driver has a place for them: a field that its
    /// clones share. Documents name them.
    #[cfg(feature = "asyncapi")]
    fn outlets(&self) -> Option<&crate::asyncapi::Outlets> {
        None
    }

    /// Sends a message, and returns when the broker has confirmed that it has it.
    ///
    /// The trace context is in the headers already.
    ///
    /// # Errors
    ///
    /// The broker did not confirm. The error [says](Error::stored) whether the message may be
    /// stored all the same, where the driver knows.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not have sent the message.
    fn publish(&self, message: Message) -> impl Future<Output = Result<Receipt>> + Send;

    /// Where the broker is, as it is configured: `server.address` and `server.port` of spans and
    /// metrics. Called often.
    fn server(&self) -> Option<(&str, u16)> {
        None
    }

    /// Adds what only this driver knows of a send to its span, under the names that the conventions
    /// have for the broker. Called for spans that are recorded, and for no other.
    fn describe_send(&self, message: &Message, in_transaction: bool, attributes: &mut Attributes) {
        let _ = (message, in_transaction, attributes);
    }

    /// Takes back a delayed message that is not delivered yet.
    ///
    /// Called only if the [capabilities](Driver::capabilities) say that it can.
    ///
    /// # Errors
    ///
    /// It is too late, there is no such message, or the broker did not confirm.
    fn recall(&self, handle: &RecallHandle) -> impl Future<Output = Result<()>> + Send {
        let _ = handle;
        std::future::ready(Err(Error::unsupported(
            "this driver cannot recall messages",
        )))
    }

    /// Stores a message that nobody sees yet, then runs `local`, then shows the message or forgets
    /// it, as `local` says. When it does not know, or that cannot be told to the broker, the broker
    /// asks the sender later: what answers belongs to the driver's client.
    ///
    /// Called only if the [capabilities](Driver::capabilities) say that it can.
    ///
    /// # Errors
    ///
    /// The message was not stored, and `local` was not run. From then on the answer is `Ok`, also if
    /// the broker could not be told.
    ///
    /// # Cancel safety
    ///
    /// After a dropped call the broker asks.
    fn transaction<L, F>(
        &self,
        message: Message,
        local: L,
    ) -> impl Future<Output = Result<Transacted>> + Send
    where
        L: FnOnce(Receipt) -> F + Send,
        F: Future<Output = Resolution> + Send,
    {
        let _ = (message, local);
        std::future::ready(Err(Error::unsupported("this driver has no transactions")))
    }

    /// How the dead letters of a group are read, for who lists them and sends them back from
    /// outside: those that the broker keeps itself or, with a
    /// `topic`, those that were published to it. `None`: they cannot be, and the admin server says
    /// so.
    ///
    /// Called only for groups that this driver has joined, never for a broadcast. Where a letter
    /// goes to is for the caller to say; how long nothing may come before all is read
    /// ([`idle`](Replay::idle)) is for the driver, which knows how late a broker is.
    fn replay(&self, group: &Group, topic: Option<&Topic>) -> Option<Replay> {
        let _ = (group, topic);
        None
    }

    /// Makes the group that reads a [`replay`](Driver::replay), where groups must be made and that
    /// can be done from here; a group that is there is left as it is.
    ///
    /// # Errors
    ///
    /// It could not be made. An unknown topic: there is no dead letter yet.
    fn prepare_reader(&self, replay: &Replay) -> impl Future<Output = Result<()>> + Send {
        let _ = replay;
        std::future::ready(Ok(()))
    }

    /// Joins a group with all its topics, and checks everything that can be checked: connection,
    /// topics, their types, the group.
    ///
    /// Tries once; the caller retries [transient](crate::Error::is_transient) errors until the
    /// start's deadline.
    ///
    /// # Errors
    ///
    /// What keeps the group from being consumed, with what to create and how.
    ///
    /// # Cancel safety
    ///
    /// Nothing leaks when the call is dropped.
    fn consumer(
        &self,
        group: GroupSpec,
        cx: StartContext,
    ) -> impl Future<Output = Result<Self::Consumer>> + Send;
}

/// The consumer of one group, with all its topics.
///
/// # Laws
///
/// * **Room.** What `receive` has asked of the broker for a topic and not returned yet, plus what
///   it returns, never exceeds the `room` of the newest call. The engine keeps its side: between
///   two calls for a topic, room shrinks at most by what the first one returned.
/// * **Every lease is settled once or dropped.** `settle` with a lease takes it; a lease that is
///   dropped is a message that comes back by itself when its invisible time is over.
/// * **Every settlement is answered** by exactly one [`Settled`], also when it failed for good,
///   was refused, or the connection died: the engine counts a message as in flight until then.
/// * **Batches are units** where [`Leased::place`] says so: an acknowledgement is answered `Ok` only
///   when everything before it in its batch is settled, and with
///   [`LeaseLost`](crate::ErrorKind::LeaseLost) when one before it was handed back or lost.
/// * **Handles may be replaced.** [`extend`](Consumer::extend) updates the lease in place; the old
///   handle is worthless then.
pub trait Consumer: Send + Sync + 'static {
    /// The right to settle one received message. Not `Clone`: what it stands for exists once.
    type Lease: Send + 'static;

    /// After how many attempts the broker itself dead-letters a message of the group, if it says.
    ///
    /// A subscription whose [`Policy`](crate::Policy) asks for more is refused at `bind`.
    fn attempts_limit(&self) -> Option<u32> {
        None
    }

    /// How people raise [`attempts_limit`](Consumer::attempts_limit) to `attempts`: a command, for
    /// the error.
    fn how_to_raise_attempts(&self, attempts: u32) -> Option<String> {
        let _ = attempts;
        None
    }

    /// Whether the broker has assigned something of a topic to this member of the group, for who
    /// looks from outside; `None` if that cannot be told.
    fn is_assigned(&self, topic: &Topic) -> Option<bool> {
        let _ = topic;
        None
    }

    /// Messages of a topic that wait on the broker for the group, as far as the driver knows by now;
    /// `None` if it does not. Asked by whoever looks: answers at once, without I/O.
    fn lag(&self, topic: &Topic) -> Option<u64> {
        let _ = topic;
        None
    }

    /// Adds what only this driver knows to a span of the consumer, under the names that the
    /// conventions have for the broker: with a delivery to the span of its handler, without one to
    /// the spans of receives, settlements and batches. Called for spans that are recorded, and for
    /// no other.
    fn describe(&self, delivery: Option<&Delivery>, attributes: &mut Attributes) {
        let _ = (delivery, attributes);
    }

    /// Waits for messages of one topic, at most `room`; long-polls while there is none.
    ///
    /// Called by one task per topic, never twice at once for the same topic. May return an empty
    /// vector when a poll ended without a message: the engine calls again at once.
    ///
    /// # Errors
    ///
    /// The engine logs, backs off and calls again, whatever the error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing: what was on its way is returned by the next call.
    fn receive(
        &self,
        topic: &Topic,
        room: Room,
    ) -> impl Future<Output = Result<Vec<Leased<Self::Lease>>>> + Send;

    /// Settles a message: queues it and returns at once. [`settled`](Consumer::settled) tells how
    /// it went, under the same ticket.
    ///
    /// Retries what may pass, while the lease lasts; after that, and after a refusal, it gives up.
    fn settle(&self, ticket: Ticket, lease: Self::Lease, how: Settlement);

    /// Waits for settlements that were confirmed, or refused for good; at least one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn settled(&self) -> impl Future<Output = Vec<Settled>> + Send;

    /// Keeps a message invisible to others until `by` from now, and returns when that ends: at the
    /// latest `by` after the request was sent, by this machine's clock.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): it is too late. After any other error the
    /// engine tries again until the lease it knows of has run out.
    ///
    /// # Cancel safety
    ///
    /// None: the engine drops it only together with the lease.
    fn extend(
        &self,
        lease: &mut Self::Lease,
        by: Duration,
    ) -> impl Future<Output = Result<Instant>> + Send;

    /// Ends intake in bounded time: asks the broker for no more, and lets every pending and later
    /// `receive` return at once, with what had arrived or nothing.
    ///
    /// Settlements and extensions still work; from now on settlements are not held back to fill a
    /// batch.
    fn stop_receiving(&self) -> impl Future<Output = ()> + Send;

    /// Leaves the group, by the instant `by`. The engine has settled what it could and has dropped
    /// the other leases.
    ///
    /// # Errors
    ///
    /// The broker could not be told.
    fn close(self, by: Instant) -> impl Future<Output = Result<()>> + Send;
}

/// How much more the engine can take for one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// Free places, in messages; at least 1.
    pub messages: usize,
    /// Free space for bodies, in bytes. A driver that sees more waiting stops there; it may exceed
    /// this by one message, since it learns sizes only from what arrives.
    pub bytes: usize,
}

/// A message and the right to settle it.
#[derive(Debug)]
pub struct Leased<L> {
    /// What was received.
    pub delivery: Delivery,
    /// The right to settle it.
    pub lease: L,
    /// When the message becomes visible to others, by this machine's clock; rather too early than
    /// too late.
    pub expires_at: Instant,
    /// Its place in a batch that the broker settles as one unit; `None` where every message is
    /// settled for itself.
    pub place: Option<BatchPlace>,
}

/// The place of a message in a batch that is one unit: what the broker keeps in order it delivers
/// in batches, and a settlement counts only when every earlier message of the batch is settled.
///
/// When a message of a batch is handed back or its lease is lost, it comes again together with all
/// behind it, whether they were settled or not. The engine knows: failures are retried in this
/// process, and a loss ends all behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// The batch: a number of its own among the batches that this consumer holds.
    pub batch: u64,
    /// Where the message is in it; only the order counts.
    pub index: u32,
}

impl Room {
    /// Room for this much.
    #[must_use]
    pub const fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes }
    }
}
