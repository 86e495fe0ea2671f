//! What the server refuses, found before a round trip and explained better than it does.

use std::collections::HashMap;

use crate::Error;

const NAME_MAX: usize = 127;
const GROUP_BYTES_MAX: usize = 63;
const LITE_TOPIC_BYTES_MAX: usize = 64;
const PROPERTIES_MAX: usize = 128;
/// Of properties, tag and keys together.
const PROPERTY_BYTES_MAX: usize = 16 << 10;

/// Names of properties that the server keeps for itself.
const RESERVED: &[&str] = &[
    "TRACE_ON",
    "MSG_REGION",
    "KEYS",
    "TAGS",
    "WAIT",
    "DELAY",
    "RETRY_TOPIC",
    "REAL_TOPIC",
    "REAL_QID",
    "TRAN_MSG",
    "PGROUP",
    "MIN_OFFSET",
    "MAX_OFFSET",
    "BUYER_ID",
    "ORIGIN_MESSAGE_ID",
    "TRANSFER_FLAG",
    "CORRECTION_FLAG",
    "MQ2_FLAG",
    "RECONSUME_TIME",
    "UNIQ_KEY",
    "MAX_RECONSUME_TIMES",
    "CONSUME_START_TIME",
    "POP_CK",
    "POP_CK_OFFSET",
    "1ST_POP_TIME",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "INSTANCE_ID",
    "CORRELATION_ID",
    "REPLY_TO_CLIENT",
    "TTL",
    "ARRIVE_TIME",
    "PUSH_REPLY_TIME",
    "CLUSTER",
    "MSG_TYPE",
    "INNER_MULTI_QUEUE_OFFSET",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_DEQUEUE_MS",
    "TIMER_ROLL_TIMES",
    "TIMER_OUT_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DELAY_LEVEL",
    "__BORNHOST",
    "BORN_TIMESTAMP",
    "DLQ_ORIGIN_TOPIC",
    "DLQ_ORIGIN_MESSAGE_ID",
    "__CRC32#",
    // Not refused, but used by the server: what a user puts there is lost or does harm.
    "__SHARDINGKEY",
    "TRACE_CONTEXT",
    "CHECK_IMMUNITY_TIME_IN_SECONDS",
    "__transactionId__",
    "TRANSACTION_CHECK_TIMES",
    "INNER_NUM",
    "INNER_BASE",
    "INNER_MULTI_DISPATCH",
    "_SYS_MSG_PRIORITY_",
    "__LITE_TOPIC",
];
const RESERVED_PREFIX: &str = "__RMQ.TRANSIENT.";

pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX)
}

/// Of a topic or a group.
pub(crate) fn name(what: &str, name: &str) -> Result<(), Error> {
    let allowed = |it: char| it.is_ascii_alphanumeric() || "%|_-".contains(it);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(allowed) {
        return Err(Error::invalid(format!(
            "{what} {name:?} is no name: 1 to {NAME_MAX} letters, digits, `_`, `-`, `%`, `|`"
        )));
    }
    Ok(())
}

pub(super) fn group(topic: &str, group: &str) -> Result<(), Error> {
    text(topic, "message group", group)?;
    if group.len() > GROUP_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a message for {topic} has a message group of {} bytes, the server takes \
             {GROUP_BYTES_MAX}",
            group.len()
        )));
    }
    Ok(())
}

pub(super) fn lite_topic(topic: &str, lite_topic: &str) -> Result<(), Error> {
    let allowed = |it: char| it.is_ascii_alphanumeric() || "_-".contains(it);
    if lite_topic.is_empty()
        || lite_topic.len() > LITE_TOPIC_BYTES_MAX
        || !lite_topic.chars().all(allowed)
    {
        return Err(Error::invalid(format!(
            "a message for {topic} has the lite topic {lite_topic:?}, which is no name: 1 to \
             {LITE_TOPIC_BYTES_MAX} letters, digits, `_`, `-`"
        )));
    }
    Ok(())
}

/// Of a body as it is sent; that of a batch is the sum of its messages'.
pub(crate) fn body_size(topic: &str, bytes: usize, bytes_max: usize) -> Result<(), Error> {
    if bytes == 0 {
        return Err(Error::invalid(format!(
            "a message for {topic} has an empty body"
        )));
    }
    if bytes > bytes_max {
        return Err(Error::invalid(format!(
            "a message for {topic} has a body of {bytes} bytes, the server takes {bytes_max}"
        )));
    }
    Ok(())
}

/// Of a delayed message with all that is stored beside its body.
///
/// The timer of Apache RocketMQ (5.5.0) reads what is due into a buffer of the size of the greatest
/// body and 100 bytes. What is larger it confirms, and never delivers.
pub(crate) fn delayed_size(topic: &str, bytes: usize, bytes_max: usize) -> Result<(), Error> {
    if bytes > bytes_max {
        return Err(Error::invalid(format!(
            "a delayed message for {topic} has {bytes} bytes, with all that is stored beside its \
             body: the server would take it and never deliver what has more than {bytes_max}; \
             shorten or compress its body, or send it without a delay"
        )));
    }
    Ok(())
}

pub(super) fn properties(
    topic: &str,
    tag: Option<&str>,
    keys: &[String],
    properties: &HashMap<String, String>,
) -> Result<(), Error> {
    if let Some(tag) = tag {
        text(topic, "tag", tag)?;
        if tag.contains('|') {
            return Err(Error::invalid(format!(
                "tag {tag:?} of a message for {topic} has a `|`"
            )));
        }
    }
    for key in keys {
        text(topic, "key", key)?;
    }
    if properties.len() > PROPERTIES_MAX {
        return Err(Error::invalid(format!(
            "a message for {topic} has {} properties, the server takes {PROPERTIES_MAX}",
            properties.len()
        )));
    }
    for (name, value) in properties {
        text(topic, "name of a property", name)?;
        text(topic, &format!("property {name:?}"), value)?;
        if is_reserved(name) {
            return Err(Error::invalid(format!(
                "property {name:?} of a message for {topic} is the server's own name"
            )));
        }
    }
    let bytes = size(tag, keys, properties);
    if bytes > PROPERTY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "properties, tag and keys of a message for {topic} have {bytes} bytes together, the \
             server takes {PROPERTY_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Whether one more property may be set, or another value of one.
pub(super) fn has_room(
    tag: Option<&str>,
    keys: &[String],
    properties: &HashMap<String, String>,
    name: &str,
    value: &str,
) -> bool {
    let replaced = properties.get(name).map(|it| name.len() + it.len());
    let count = properties.len() + usize::from(replaced.is_none());
    let bytes = size(tag, keys, properties) - replaced.unwrap_or(0) + name.len() + value.len();
    count <= PROPERTIES_MAX && bytes <= PROPERTY_BYTES_MAX
}

fn size(tag: Option<&str>, keys: &[String], properties: &HashMap<String, String>) -> usize {
    let keys = keys.iter().map(String::len).sum::<usize>();
    let properties = properties
        .iter()
        .map(|(name, value)| name.len() + value.len());
    tag.map_or(0, str::len) + keys + properties.sum::<usize>()
}

/// The store separates properties with control characters, and drops blank ones.
fn text(topic: &str, what: &str, text: &str) -> Result<(), Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid(format!(
            "a message for {topic} has a blank {what}"
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{what} of a message for {topic} has a control character: {text:?}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Message;

    const BODY_MAX: usize = 4 << 20;

    fn refused(message: &Message) -> String {
        let size = body_size(message.topic(), message.body().len(), BODY_MAX);
        let error = message.validate().and(size).unwrap_err();
        assert!(error.is_invalid() && !error.is_retryable() && !error.may_be_stored());
        error.to_string()
    }

    #[test]
    fn limits_are_those_of_the_server() {
        let value = "x".repeat(PROPERTY_BYTES_MAX - 1);
        body_size("t", BODY_MAX, BODY_MAX).unwrap();
        let message = Message::new("%DLQ%g", "b").tag("t").key("a b");
        message.validate().unwrap();
        let message = Message::new("t", "b").property("k", &value);
        message.validate().unwrap();
        assert!(refused(&Message::new("t", "b").property("k", value).key("k")).contains("16385"));
        assert!(refused(&Message::new("t", vec![0; BODY_MAX + 1])).contains("4194305 bytes"));
        assert!(refused(&Message::new("t", "")).contains("empty body"));
        delayed_size("t", BODY_MAX, BODY_MAX).unwrap();
        let error = delayed_size("t", BODY_MAX + 1, BODY_MAX).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("never deliver"));
        let mut many = Message::new("t", "b");
        for n in 0..=PROPERTIES_MAX {
            many = many.property(n.to_string(), "v");
        }
        assert!(refused(&many).contains("129 properties"));
        let group = |bytes| Message::new("t", "b").group("x".repeat(bytes));
        group(GROUP_BYTES_MAX).validate().unwrap();
        assert!(refused(&group(GROUP_BYTES_MAX + 1)).contains("group of 64 bytes"));
        let lite = |bytes| Message::new("t", "b").lite_topic("x".repeat(bytes));
        lite(LITE_TOPIC_BYTES_MAX).validate().unwrap();
        assert!(refused(&lite(LITE_TOPIC_BYTES_MAX + 1)).contains("no name: 1 to 64"));
        assert!(refused(&Message::new("t", "b").priority(u32::MAX)).contains("priority above"));
    }

    #[test]
    fn a_message_is_of_one_type_only() {
        let message = || Message::new("t", "b");
        let soon = Duration::from_secs(1);
        let cases = [
            (
                message().group("g").delay(soon),
                "a message group and a delivery time",
            ),
            (
                message().group("g").priority(1),
                "a message group and a priority",
            ),
            (
                message().delay(soon).lite_topic("l"),
                "a delivery time and a lite topic",
            ),
            (
                message().priority(1).lite_topic("l"),
                "a priority and a lite topic",
            ),
        ];
        for (message, what) in cases {
            let refused = refused(&message);
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn the_type_follows_from_what_is_set() {
        use rocketmq_proto::v2::MessageType;
        let message = || Message::new("t", "b");
        let cases = [
            (message(), MessageType::Normal),
            (message().group("g"), MessageType::Fifo),
            (message().delay(Duration::from_secs(1)), MessageType::Delay),
            (
                message().deliver_at(SystemTime::UNIX_EPOCH),
                MessageType::Delay,
            ),
            (message().priority(0), MessageType::Priority),
            (message().lite_topic("l"), MessageType::Lite),
        ];
        for (message, kind) in cases {
            assert_eq!(message.message_type(), kind);
            message.validate().unwrap();
        }
    }

    #[test]
    fn names_and_texts_that_the_store_cannot_keep_are_refused() {
        for topic in ["", "a.b", "a b", "tö", &"x".repeat(128)] {
            assert!(refused(&Message::new(topic, "b")).contains("no name"));
        }
        assert!(refused(&Message::new("t", "b").tag("a|b")).contains("`|`"));
        assert!(refused(&Message::new("t", "b").tag(" ")).contains("blank tag"));
        assert!(refused(&Message::new("t", "b").group(" ")).contains("blank message group"));
        for lite_topic in ["", "a b", "a.b", "ä", "a%b"] {
            assert!(refused(&Message::new("t", "b").lite_topic(lite_topic)).contains("no name"));
        }
        assert!(refused(&Message::new("t", "b").key("a\u{1}")).contains("control character"));
        assert!(refused(&Message::new("t", "b").property("k", "")).contains("blank"));
        assert!(refused(&Message::new("t", "b").property("TTL", "1")).contains("own name"));
        assert!(
            refused(&Message::new("t", "b").property("__RMQ.TRANSIENT.x", "1")).contains("own")
        );
        Message::new("t", "b")
            .property("ttl", "1")
            .property("ключ", "😱")
            .validate()
            .unwrap();
    }
}
