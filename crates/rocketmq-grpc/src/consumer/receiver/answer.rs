//! What one receive brings, as it comes off the stream.
//!
//! A message is handed over when it comes, the rest of the answer may still be under way. Those of
//! an orderly group are handed over when the answer is complete: if it breaks, the same attempt is
//! made again and brings all of them again, with other handles. (An acknowledgement with a handle of
//! the broken answer is answered OK then, and not kept.)

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use rocketmq_proto::v2::{self as pb, Code, receive_message_response::Content};
use tokio::time::Instant;
use tonic::Status;
use tracing::{debug, warn};

use super::{Outcome, Source};
use crate::{
    Error, Lease, MessageView, Settlement,
    consumer::{batch::Batch, inbox::Credit},
    error::{At, chain},
    message::decode,
    rpc::{Rpc, check},
};

/// The answer to one receive, as far as it has come.
pub(super) struct Answer<'a> {
    source: &'a Source,
    rpc: &'a Rpc,
    credit: &'a mut Credit,
    broker_name: &'a Arc<str>,
    invisible: Duration,
    fifo: bool,
    first_item_at: Option<Instant>,
    messages: usize,
    status: Option<pb::Status>,
    /// Of an orderly group, until all have come.
    kept: Vec<Received>,
}

/// A message, and what shall become of it if nobody is to see it.
struct Received {
    lease: Lease,
    discard: Option<Settlement>,
}

impl<'a> Answer<'a> {
    pub(super) fn new(
        source: &'a Source,
        rpc: &'a Rpc,
        credit: &'a mut Credit,
        broker_name: &'a Arc<str>,
        invisible: Duration,
    ) -> Self {
        Self {
            source,
            rpc,
            credit,
            broker_name,
            invisible,
            fifo: false,
            first_item_at: None,
            messages: 0,
            status: None,
            kept: Vec::new(),
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.first_item_at.is_some()
    }

    /// Takes an item, and all others that are there already, so that a caller is woken once.
    pub(super) fn take(
        &mut self,
        item: Result<pb::ReceiveMessageResponse, Status>,
        mut items: Pin<&mut impl Stream<Item = Result<pb::ReceiveMessageResponse, Status>>>,
    ) -> Result<(), Status> {
        if !self.has_begun() {
            // As the group is now: the long poll may have begun before the server said so.
            self.fifo = self.source.instance.settings.borrow().fifo;
        }
        let mut received = Vec::with_capacity(self.credit.left());
        let mut next = Some(item);
        let mut result = Ok(());
        while let Some(item) = next {
            match item {
                Ok(item) => {
                    let begun_at = *self.first_item_at.get_or_insert_with(Instant::now);
                    let deadline = begun_at + self.invisible;
                    match item.content {
                        Some(Content::Message(message)) => {
                            self.messages += 1;
                            received.extend(self.received(message, deadline));
                        }
                        Some(Content::Status(status)) => self.status = Some(status),
                        Some(Content::DeliveryTimestamp(_)) | None => {}
                    }
                }
                Err(status) => {
                    result = Err(status);
                    break;
                }
            }
            next = items.next().now_or_never().flatten();
        }
        if self.fifo {
            self.kept.extend(received);
        } else {
            self.hand_over(received);
        }
        result
    }

    /// The stream has ended.
    pub(super) fn complete(mut self, at: impl FnOnce() -> At) -> Outcome {
        let error = match &self.status {
            Some(status) if status.code == Code::MessageNotFound as i32 => None,
            Some(status) => check(Some(status), at).err(),
            None if self.messages > 0 => None,
            None => Some(Error::protocol("the answer is empty", at())),
        };
        if error.is_some() {
            return self.broken(error);
        }
        let kept = std::mem::take(&mut self.kept);
        self.hand_over(into_batches(self.source, kept));
        Outcome {
            messages: self.messages,
            error: None,
            lost: false,
        }
    }

    /// More may have been on its way.
    pub(super) fn broken(self, error: Option<Error>) -> Outcome {
        for _ in &self.kept {
            debug!(topic = %self.source.intake.topic, "a message of a broken answer is dropped");
        }
        Outcome {
            messages: self.messages,
            error,
            lost: true,
        }
    }

    fn hand_over(&mut self, received: Vec<Received>) {
        if received.is_empty() {
            return;
        }
        self.source.message_came();
        let settler = &self.source.settler;
        let leases = received.into_iter().map(|it| match it.discard {
            None => Some(it.lease),
            Some(how) => {
                settler.discard(it.lease, how);
                None
            }
        });
        self.source.intake.pool.put(self.credit, leases);
    }

    fn received(&self, message: pb::Message, deadline: Instant) -> Option<Received> {
        let source = self.source;
        let topic = &source.intake.topic;
        let Some(mut system) = message.system_properties else {
            warn!(topic = %topic, "a message came without system properties");
            return None;
        };
        let handle = system.receipt_handle.take().unwrap_or_default();
        let (digest, encoding) = (system.body_digest.take(), system.body_encoding);
        let (properties, broker) = (message.user_properties, self.broker_name.clone());
        let mut view = MessageView::from_proto(system, properties, topic.clone(), broker);
        // By the tag that the server filtered by: interceptors may change it.
        let wanted = source.intake.filter.wants(view.tag.as_deref());
        let mut discard = None;
        let readable = decode(message.body, digest.as_ref(), encoding).and_then(|body| {
            view.body = body;
            source.instance.interceptors().after_receive(&mut view)
        });
        match readable {
            Ok(()) => {}
            Err(error) => {
                source.corrupted.fetch_add(1, Ordering::Relaxed);
                warn!(
                    topic = %topic,
                    message_id = view.id,
                    attempt = view.attempt,
                    error = %chain(&error),
                    "a message is damaged"
                );
                discard = Some(self.of_damaged(view.attempt));
            }
        }
        if discard.is_none() && !wanted {
            // Brokers compare hashes of tags.
            debug!(topic = %topic, message_id = view.id, "a message with another tag is acknowledged");
            discard = Some(Settlement::Ack);
        }
        let lease = Lease::new(view, handle, deadline, self.rpc.connection.clone());
        Some(Received { lease, discard })
    }

    /// A damaged message goes back, it may be damaged on this way only. An orderly group would
    /// get everything behind it again, too.
    fn of_damaged(&self, attempt: u32) -> Settlement {
        if self.fifo {
            return Settlement::DeadLetter;
        }
        let settings = self.source.instance.settings.borrow();
        Settlement::RetryAfter(settings.retry_delays.after_attempt(attempt))
    }
}

/// One batch per queue, in the order of the answer.
fn into_batches(source: &Source, kept: Vec<Received>) -> Vec<Received> {
    let mut queues: Vec<(i32, Vec<Received>)> = Vec::new();
    for received in kept {
        let queue_id = received.lease.message().queue_id;
        match queues.iter_mut().find(|(id, _)| *id == queue_id) {
            Some((_, queue)) => queue.push(received),
            None => queues.push((queue_id, vec![received])),
        }
    }
    let mut all = Vec::new();
    for (queue_id, mut queue) in queues {
        queue.sort_by_key(|it| it.lease.message().queue_offset);
        let Some(first) = queue.first() else { continue };
        let (broker, deadline) = (first.lease.message().broker.clone(), first.lease.deadline());
        let batch = Batch::new(&source.settler, broker, queue_id, queue.len(), deadline);
        all.extend(
            queue
                .into_iter()
                .zip(batch.members())
                .map(|(it, member)| Received {
                    lease: it.lease.in_batch(member),
                    discard: it.discard,
                }),
        );
    }
    all
}
