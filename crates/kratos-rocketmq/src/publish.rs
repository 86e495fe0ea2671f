//! From a message to what goes on the wire.

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
    for (name, value) in parts.headers {
        let (name, value) = headers::property(name, value);
        message = message.property(name, value);
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

pub(crate) fn receipt(topic: &Topic, receipt: SendReceipt) -> Receipt {
    let ours = Receipt::new(receipt.message_id);
    match receipt.recall_handle {
        Some(handle) => ours.recallable(RecallHandle::new(topic, handle)),
        None => ours,
    }
}
