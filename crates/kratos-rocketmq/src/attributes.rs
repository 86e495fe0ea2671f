//! What telemetry says of RocketMQ, under the names of OpenTelemetry's conventions.

use std::time::{SystemTime, UNIX_EPOCH};

use kratos::trace::Attributes;
use kratos_broker::{Delivery, Message};

const NAMESPACE: &str = "messaging.rocketmq.namespace";
const CLIENT_ID: &str = "messaging.client.id";

/// Of a message that is sent.
pub(crate) fn sent(message: &Message, in_transaction: bool, attributes: &mut Attributes) {
    let parts = message.parts();
    let kind = match (in_transaction, parts.deliver_at, &parts.group) {
        (true, ..) => "transaction",
        (false, Some(_), _) => "delay",
        (false, None, Some(_)) => "fifo",
        (false, None, None) => "normal",
    };
    attributes.text("messaging.rocketmq.message.type", kind);
    if let Some(at) = parts.deliver_at {
        attributes.number("messaging.rocketmq.message.delivery_timestamp", millis(at));
    }
    of_message(
        parts.tag.as_deref(),
        &parts.keys,
        parts.group.as_deref(),
        attributes,
    );
}

/// Of a message that was received.
pub(crate) fn received(delivery: &Delivery, attributes: &mut Attributes) {
    let (tag, keys, group) = (delivery.tag(), delivery.keys(), delivery.message_group());
    of_message(tag, keys, group, attributes);
}

/// Of the client that sends or receives.
pub(crate) fn client(namespace: &str, id: Option<&str>, attributes: &mut Attributes) {
    // Demanded, also where there is none.
    attributes.text(NAMESPACE, namespace.to_owned());
    if let Some(id) = id {
        attributes.text(CLIENT_ID, id.to_owned());
    }
}

/// Of a consumer.
pub(crate) fn consumer(broadcast: bool, attributes: &mut Attributes) {
    let model = if broadcast {
        "broadcasting"
    } else {
        "clustering"
    };
    attributes.text("messaging.rocketmq.consumption_model", model);
}

fn of_message(
    tag: Option<&str>,
    keys: &[String],
    group: Option<&str>,
    attributes: &mut Attributes,
) {
    if let Some(tag) = tag {
        attributes.text("messaging.rocketmq.message.tag", tag.to_owned());
    }
    attributes.texts("messaging.rocketmq.message.keys", keys.iter().cloned());
    if let Some(group) = group {
        attributes.text("messaging.rocketmq.message.group", group.to_owned());
    }
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
