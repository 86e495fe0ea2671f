//! The right to settle a received message.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{Endpoints, Error, MessageView, connection::Connection, consumer::Member};

/// A received message, hidden from other consumers of the group until the lease runs out.
///
/// Settle it with [`Consumer::settle`](crate::Consumer::settle) or one of the calls that wait for
/// the confirmation. A lease that is dropped comes back as a new delivery when its time is over.
pub struct Lease {
    message: MessageView,
    pub(crate) grip: Grip,
}

/// Tells the leases of a process apart: a message that was delivered twice has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(u64);

impl LeaseId {
    /// The number, of which each lease of a process has its own.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Tells the batches of a process apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub(crate) u64);

impl BatchId {
    /// A number that no other batch of the process has.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Where a message stands in an orderly group.
///
/// A batch is what one receive brought of one queue, and the server treats it as one unit:
///
/// * Nobody gets anything else of the queue before all of it is settled or its leases are over.
/// * What is handed back, retried, dropped or runs out comes again **with everything behind it** in
///   the batch, also what was acknowledged; and not before the last lease of the batch is over.
///   So fail in process, extending the leases of the whole batch (what is acknowledged needs no
///   extension), and when it must be handed back, hand back all that is not acknowledged.
/// * Messages of different [groups](MessageView::group) may be handled at the same time.
///
/// Acknowledgements may be made in any order. Each is [reported](crate::Consumer::settled) as
/// confirmed when those before it are, and as failed when one of them comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchPlace {
    /// Which batch.
    pub batch: BatchId,
    /// Place in the batch, from 0: the order of the queue.
    pub position: usize,
    /// Messages in the batch, with those that are damaged and never handed over.
    pub len: usize,
    /// Broker of the queue.
    pub broker: Arc<str>,
    /// The queue on that broker.
    pub queue_id: i32,
}

/// What shall become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// It was processed: the group never sees it again.
    Ack,
    /// It failed: deliver it again after this time (about 2 s later, the broker takes its time).
    ///
    /// In an orderly group everything behind it in its [batch](BatchPlace) comes again, too, and
    /// none of it before the last lease of the batch is settled or over.
    RetryAfter(Duration),
    /// It was not processed: deliver it again at once. On the server this spends an attempt.
    ///
    /// In an orderly group hand back all that is not acknowledged, in any order: the queue is
    /// blocked until the last is.
    HandBack,
    /// It never will be processed: move it to the dead-letter topic of the group, `%DLQ%<group>`.
    DeadLetter,
}

/// What became of a settlement.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settled {
    /// Which lease.
    pub lease: LeaseId,
    /// Which message.
    pub message_id: String,
    /// What was asked for.
    pub how: Settlement,
    /// Confirmed by the server; or refused, or given up when the lease had run out: the message
    /// will then be delivered again.
    pub result: Result<(), Error>,
}

/// All that a settlement needs.
#[derive(Debug)]
pub(crate) struct Grip {
    pub(crate) id: LeaseId,
    pub(crate) message_id: String,
    pub(crate) topic: Arc<str>,
    pub(crate) attempt: u32,
    /// Settlements go to the server that the message came from.
    pub(crate) connection: Arc<Connection>,
    pub(crate) hold: Hold,
    /// An extension whose outcome nobody waited for: the handle may be outdated until it is known.
    pub(crate) extending: Option<oneshot::Receiver<Result<Hold, Error>>>,
    /// In an orderly group.
    pub(crate) member: Option<Member>,
    /// Which span its message was sent in, for those of its settlements.
    #[cfg(feature = "opentelemetry")]
    pub(crate) sender: Option<Box<opentelemetry::trace::SpanContext>>,
}

/// The handle of the newest delivery or extension, and for how long it is good.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) handle: String,
    pub(crate) deadline: Instant,
    /// The answer to an extension was lost: the server may know the message by a handle that nobody
    /// else knows, and says OK to this one without any effect.
    pub(crate) doubtful: bool,
}

impl Lease {
    pub(crate) fn new(
        message: MessageView,
        handle: String,
        deadline: Instant,
        connection: Arc<Connection>,
    ) -> Self {
        static LEASES: AtomicU64 = AtomicU64::new(1);
        let grip = Grip {
            id: LeaseId(LEASES.fetch_add(1, Ordering::Relaxed)),
            message_id: message.id.clone(),
            topic: message.topic.clone(),
            attempt: message.attempt,
            connection,
            hold: Hold {
                handle,
                deadline,
                doubtful: false,
            },
            extending: None,
            member: None,
            #[cfg(feature = "opentelemetry")]
            sender: None,
        };
        Self { message, grip }
    }

    pub(crate) fn in_batch(mut self, member: Member) -> Self {
        self.grip.member = Some(member);
        self
    }

    /// Tells this lease from others of the process.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.grip.id
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &MessageView {
        &self.message
    }

    /// Moves the message out, so that nothing of it is copied; an empty one stays behind. The
    /// lease is settled as before.
    #[must_use]
    pub fn take_message(&mut self) -> MessageView {
        std::mem::take(&mut self.message)
    }

    /// When the lease runs out, unless it is extended. Counted from the arrival of the answer that
    /// brought the message.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.grip.hold.deadline
    }

    /// Where the message stands in its queue's batch, if its group is orderly.
    #[must_use]
    pub fn batch(&self) -> Option<BatchPlace> {
        let member = self.grip.member.as_ref()?;
        let batch = member.batch()?;
        Some(BatchPlace {
            batch: batch.id,
            position: member.position(),
            len: batch.len(),
            broker: batch.broker.clone(),
            queue_id: batch.queue_id,
        })
    }

    /// Endpoints that the message came from, to which its settlement goes.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        self.grip.connection.endpoints()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.grip.id)
            .field("message_id", &self.grip.message_id)
            .field("topic", &self.grip.topic)
            .field("deadline", &self.grip.hold.deadline)
            .finish_non_exhaustive()
    }
}

impl Grip {
    /// Waits for the outcome of an extension that is under way.
    ///
    /// # Cancel safety
    ///
    /// The outcome is not lost.
    pub(crate) async fn settle_extension(&mut self) -> Option<Result<Instant, Error>> {
        let outcome = self.extending.as_mut()?.await;
        self.extending = None;
        Some(match outcome {
            Ok(Ok(hold)) => {
                self.hold = hold;
                if let Some(member) = &self.member {
                    member.extended(self.hold.deadline);
                }
                Ok(self.hold.deadline)
            }
            Ok(Err(error)) => {
                self.hold.doubtful |= error.may_be_stored();
                Err(error)
            }
            Err(_) => Err(Error::closed("consumer")),
        })
    }
}
