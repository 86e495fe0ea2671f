//! Where messages go that are given up.

use crate::{Delivery, Failure, Message, Topic};

/// Longest `x-dead-letter-error` header, in bytes: brokers bound the headers of a message.
const ERROR_MAX: usize = 1024;

/// Where a message goes that is given up: poison, or all attempts used up.
///
/// ```
/// use kratos_broker::{DeadLetter, Subscription};
///
/// let subscription = Subscription::new("orders", "billing")
///     .dead_letter(DeadLetter::topic("orders-dead"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetter {
    /// The broker moves it to the group's dead-letter queue, once. Id, headers and trace stay on
    /// it; the reason and the error's type are in the span, the log and the counters. The default.
    #[default]
    Native,
    /// It is published to this topic through the same driver, then acknowledged: at least once.
    ///
    /// Body, headers (the trace context too), keys and tag stay as they are. Headers are added:
    ///
    /// | header | value |
    /// |---|---|
    /// | `x-dead-letter-reason` | `poison` or `exhausted` |
    /// | `x-dead-letter-error-type` | type of the error, or `decode`, `panic`, `timeout` |
    /// | `x-dead-letter-error` | what the error says, at most 1 KiB |
    /// | `x-dead-letter-attempts` | number of the attempt that failed last |
    /// | `x-dead-letter-origin-topic` | the topic it was consumed from |
    /// | `x-dead-letter-message-id` | the id it had there |
    /// | `x-dead-letter-message-group` | its message group there, if it had one |
    ///
    /// While the topic cannot be published to, the message stays here with its lease, and those
    /// behind it in its key wait (not so those of the same [`Batch`](crate::Batch), which have been
    /// handled with it). It is tried again with back-off, up to
    /// [`max_hold`](crate::Subscription::max_hold); at a stop it is handed back. What the topic
    /// refuses for good (a header that the broker does not take) is moved by the broker itself;
    /// where it cannot ([`can_dead_letter`](crate::driver::Capabilities::can_dead_letter)), it is
    /// tried again like any other, comes again, and each time is an error in the log.
    ///
    /// A message whose last attempt the broker counts while nobody is there to say so (a crash)
    /// is moved by the broker as in [`Native`](Self::Native): keep the policy's attempts below the
    /// group's.
    Topic(Topic),
}

impl DeadLetter {
    /// Why the message was given up: `poison` or `exhausted`.
    pub const REASON: &'static str = "x-dead-letter-reason";
    /// The type of the last error, or `decode`, `panic`, `timeout`.
    pub const ERROR_TYPE: &'static str = "x-dead-letter-error-type";
    /// What the last error says.
    pub const ERROR: &'static str = "x-dead-letter-error";
    /// The number of the attempt that failed last.
    pub const ATTEMPTS: &'static str = "x-dead-letter-attempts";
    /// The topic that the message was consumed from.
    pub const ORIGIN_TOPIC: &'static str = "x-dead-letter-origin-topic";
    /// The id that the message had there.
    pub const MESSAGE_ID: &'static str = "x-dead-letter-message-id";
    /// The message group that the message had there.
    pub const MESSAGE_GROUP: &'static str = "x-dead-letter-message-group";

    /// [`Topic`](Self::Topic), from a name.
    pub fn topic(topic: impl Into<Topic>) -> Self {
        Self::Topic(topic.into())
    }
}

/// Why a message is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No attempt can succeed.
    Poison,
    /// Its attempts are used up.
    Exhausted,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Exhausted => "exhausted",
        }
    }
}

/// The dead letter of a message.
pub(crate) fn letter(
    topic: &Topic,
    delivery: &Delivery,
    attempt: u32,
    reason: Reason,
    failure: &Failure,
) -> Message {
    let mut headers = delivery.headers().clone();
    headers.insert(DeadLetter::REASON, reason.as_str());
    headers.insert(DeadLetter::ERROR_TYPE, clean(failure.error_type()));
    headers.insert(DeadLetter::ERROR, clean(&failure.to_string()));
    headers.insert(DeadLetter::ATTEMPTS, attempt.to_string());
    headers.insert(DeadLetter::ORIGIN_TOPIC, delivery.topic().to_string());
    headers.insert(DeadLetter::MESSAGE_ID, delivery.id().to_string());
    match delivery.message_group() {
        Some(group) => headers.insert(DeadLetter::MESSAGE_GROUP, group.to_owned()),
        // Of an earlier life as a dead letter.
        None => headers.remove(DeadLetter::MESSAGE_GROUP),
    };
    let mut message = Message::new(topic, delivery.body().clone()).headers(headers);
    for key in delivery.keys() {
        message = message.key(key);
    }
    match delivery.tag() {
        Some(tag) => message.tag(tag),
        None => message,
    }
}

/// Text that every broker takes as a header's value.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(ERROR_MAX));
    for c in text.chars() {
        if out.len() + c.len_utf8() > ERROR_MAX {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeliveryParts, Disposition};

    #[test]
    fn a_letter_keeps_what_the_message_had_and_says_why() {
        let mut parts = DeliveryParts::new("id-1", "orders", "body");
        parts.headers.insert("traceparent", "kept");
        parts
            .headers
            .insert("X-Dead-Letter-Reason", "of an earlier life");
        parts.keys = vec!["k1".to_owned(), "k2".to_owned()];
        parts.tag = Some("eu".to_owned());
        parts.group = Some("g1".to_owned());
        let text = format!("a\0b\n{}", "ü".repeat(2_000));
        let failure = Failure::new(Disposition::Retry, text);
        let letter = letter(
            &"dead".into(),
            &parts.into(),
            3,
            Reason::Exhausted,
            &failure,
        );
        let parts = letter.into_parts();
        assert_eq!(
            (parts.topic.as_str(), &parts.body[..]),
            ("dead", &b"body"[..])
        );
        assert_eq!((parts.keys.len(), parts.tag.as_deref()), (2, Some("eu")));
        assert_eq!(parts.group, None, "the topic need not keep an order");
        let header = |name| parts.headers.get(name).unwrap();
        assert_eq!(header("traceparent"), "kept");
        assert_eq!(header(DeadLetter::REASON), "exhausted");
        assert_eq!(header(DeadLetter::ERROR_TYPE), "failure");
        assert_eq!(header(DeadLetter::ATTEMPTS), "3");
        assert_eq!(header(DeadLetter::ORIGIN_TOPIC), "orders");
        assert_eq!(header(DeadLetter::MESSAGE_ID), "id-1");
        assert_eq!(header(DeadLetter::MESSAGE_GROUP), "g1");
        let error = header(DeadLetter::ERROR);
        assert!(
            error.starts_with("a b ü") && error.len() <= ERROR_MAX,
            "{error}"
        );
        assert_eq!(parts.headers.len(), 8, "{:?}", parts.headers);
    }
}
