//! A dead letter, and the message that it becomes.

use std::ops::Deref;

use crate::{DeadLetter, Delivery, Headers, Message, Topic};

/// The header of a replayed message with the id that the message had before it died.
pub const REPLAYED_ID: &str = "x-replayed-id";

/// What headers that describe a dead letter begin with.
const PREFIX: &str = "x-dead-letter-";

/// A dead letter: a [`Delivery`], and what its headers say about its death, if it was published to
/// a topic ([`DeadLetter::Topic`]). Letters that the broker moved itself do not say.
#[derive(Debug)]
pub struct DeadLetterView<'d> {
    delivery: &'d Delivery,
}

impl<'d> DeadLetterView<'d> {
    pub(super) fn new(delivery: &'d Delivery) -> Self {
        Self { delivery }
    }

    /// The topic that the message was consumed from.
    #[must_use]
    pub fn origin_topic(&self) -> Option<&str> {
        self.about(DeadLetter::ORIGIN_TOPIC)
    }

    /// The id that the message had there.
    #[must_use]
    pub fn origin_id(&self) -> Option<&str> {
        self.about(DeadLetter::MESSAGE_ID)
    }

    /// Why it was given up.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.about(DeadLetter::REASON)
    }

    /// The type of the last error.
    #[must_use]
    pub fn error_type(&self) -> Option<&str> {
        self.about(DeadLetter::ERROR_TYPE)
    }

    /// What the last error said.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.about(DeadLetter::ERROR)
    }

    /// The number of the attempt that failed last.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        self.about(DeadLetter::ATTEMPTS)?.parse().ok()
    }

    fn about(&self, header: &str) -> Option<&str> {
        self.delivery.headers().get(header)
    }

    /// The message as it was before it died.
    pub(super) fn message(&self, to: Topic) -> Message {
        let described = |name: &str| {
            let prefix = name.as_bytes().get(..PREFIX.len());
            prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX.as_bytes()))
        };
        let own = self.delivery.headers().iter();
        let own = own.filter(|(name, _)| !described(name));
        let headers: Headers = own.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let id = self.origin_id().unwrap_or(self.delivery.id());
        let mut message = Message::new(to, self.delivery.body().clone())
            .headers(headers)
            .header(REPLAYED_ID, id.to_owned());
        for key in self.delivery.keys() {
            message = message.key(key);
        }
        if let Some(tag) = self.delivery.tag() {
            message = message.tag(tag);
        }
        let group = self.about(DeadLetter::MESSAGE_GROUP);
        match group.or(self.delivery.message_group()) {
            Some(group) => message.group(group),
            None => message,
        }
    }
}

impl Deref for DeadLetterView<'_> {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        self.delivery
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeliveryParts;

    #[test]
    fn a_message_comes_back_as_it_was_before_it_died() {
        let mut parts = DeliveryParts::new("letter-1", "dead", "body");
        parts.keys = vec!["k1".to_owned(), "k2".to_owned()];
        parts.tag = Some("eu".to_owned());
        for (name, value) in [
            ("traceparent", "kept"),
            ("x-dead-letter-reason", "poison"),
            ("X-Dead-Letter-Error-Type", "decode"),
            ("x-dead-letter-message-id", "id-1"),
            ("x-dead-letter-message-group", "g"),
            ("shop", "12"),
        ] {
            parts.headers.insert(name, value);
        }
        let delivery = Delivery::from(parts);
        let letter = DeadLetterView::new(&delivery);
        assert_eq!(letter.error_type(), Some("decode"));
        let parts = letter.message("orders".into()).into_parts();
        let headers: Vec<_> = parts.headers.iter().collect();
        let expected = [
            ("traceparent", "kept"),
            ("shop", "12"),
            (REPLAYED_ID, "id-1"),
        ];
        assert_eq!(headers, expected);
        assert_eq!((parts.keys.len(), parts.tag.as_deref()), (2, Some("eu")));
        assert_eq!(
            (parts.topic.as_str(), parts.group.as_deref()),
            ("orders", Some("g"))
        );
        assert_eq!(parts.body, "body");
    }
}
