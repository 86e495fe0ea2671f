//! From a message to what goes on the wire.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use kratos::trace;
use kratos_broker::{Error, ErrorKind, Message, RecallHandle, Receipt, Result, Topic};
use rocketmq_grpc::SendReceipt;

use crate::headers;

/// The client's message; everything of ours is in it, or refused.
pub(crate) fn wire(message: Message) -> Result<rocketmq_grpc::Message> {
    let parts = message.into_parts();
    let topic = parts.topic;
    let mut message = rocketmq_grpc::Message::new(topic.as_str(), parts.body);
    if let Some(tag) = parts.tag {
        message = message.tag(tag);
    }
    for key in parts.keys {
        if key.contains(char::is_whitespace) {
            // The broker stores keys with spaces between them.
            let what = format!(
                "key {key:?} of the message to topic {topic} has a space and would come back as \
                 two keys"
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        message = message.key(key);
    }
    let mut baggage = None;
    for (name, value) in parts.headers {
        let is_baggage = name == trace::BAGGAGE;
        let (name, value) = headers::property(name, value);
        if is_baggage {
            baggage = Some((name, value));
        } else {
            message = message.property(name, value);
        }
    }
    if let Some((name, value)) = baggage {
        message = with_baggage(message, &name, &value);
    }
    if let Some(group) = parts.group {
        message = message.group(group);
    }
    if let Some(at) = parts.deliver_at {
        message = message.deliver_at(at);
    }
    if let Some(priority) = parts.priority {
        message = message.priority(priority);
    }
    Ok(message)
}

/// Baggage comes from whoever has called us, and grows on its way: a message that has no room for it is
/// sent without.
fn with_baggage(
    message: rocketmq_grpc::Message,
    name: &str,
    value: &str,
) -> rocketmq_grpc::Message {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if message.has_room_for(name, value) {
        return message.property(name, value);
    }
    if !TOLD.swap(true, Relaxed) {
        tracing::warn!(
            topic = message.topic(),
            bytes = value.len(),
            "a message has no room for its baggage beside its other headers, and is sent without; \
             told once"
        );
    }
    message
}

pub(crate) fn receipt(topic: &Topic, receipt: SendReceipt) -> Receipt {
    let ours = Receipt::new(receipt.message_id);
    match receipt.recall_handle {
        Some(handle) => ours.recallable(RecallHandle::new(topic, handle)),
        None => ours,
    }
}
