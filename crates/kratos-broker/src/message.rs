//! A message to send.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{Headers, MessageId, Topic};

/// What a delay that no clock can add is: about 1,000 years. Brokers refuse it.
const NEVER: Duration = Duration::from_secs(86_400 * 365 * 1_000);

/// A message to send. Topic and body are required, the rest are consuming setters.
///
/// ```
/// use kratos_broker::Message;
///
/// let message = Message::new("orders", "paid").tag("eu").key("order-7").header("shop", "12");
/// assert_eq!(message.body(), "paid");
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    parts: MessageParts,
}

/// The broker's word that it has the message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The id under which the message will be delivered.
    pub id: MessageId,
    /// What calls a delayed message back, if the broker can:
    /// [`Publisher::recall`](crate::Publisher::recall).
    pub recall: Option<RecallHandle>,
}

/// What calls a delayed message back. Topic and token may be stored and put together again, by
/// another process too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle {
    topic: Topic,
    token: String,
}

// === impl Message ===

impl Message {
    /// A message of bytes. The body is shared, never copied.
    pub fn new(topic: impl Into<Topic>, body: impl Into<Bytes>) -> Self {
        Self {
            parts: MessageParts {
                topic: topic.into(),
                body: body.into(),
                headers: Headers::new(),
                keys: Vec::new(),
                tag: None,
                group: None,
                deliver_at: None,
                priority: None,
            },
        }
    }

    /// Sets one header; replaces it if it is there ([`Headers`] has the case rule).
    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.parts.headers.insert(name, value);
        self
    }

    /// Sets all headers; what was set before is gone.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.parts.headers = headers;
        self
    }

    /// Adds a key: what people look the message up by. It gives no order; [`Message::group`] does.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.parts.keys.push(key.into());
        self
    }

    /// Sets the tag that subscribers filter by.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.parts.tag = Some(tag.into());
        self
    }

    /// Sets the message group: messages of one group are delivered in the order they were sent.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.parts.group = Some(group.into());
        self
    }

    /// Sets when the message is to be delivered, by the broker's wall clock.
    #[must_use]
    pub fn deliver_at(mut self, at: SystemTime) -> Self {
        self.parts.deliver_at = Some(at);
        self
    }

    /// Sets how long from now, by this machine's wall clock, the message is to be held back.
    #[must_use]
    pub fn delay(self, by: Duration) -> Self {
        let now = SystemTime::now();
        let at = now.checked_add(by).or_else(|| now.checked_add(NEVER));
        self.deliver_at(at.unwrap_or(now))
    }

    /// Sets the priority: higher is delivered first.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.parts.priority = Some(priority);
        self
    }

    /// Where the message goes.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.parts.topic
    }

    /// What the message says.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.parts.body
    }

    /// Takes the message apart: for drivers.
    #[must_use]
    pub fn into_parts(self) -> MessageParts {
        self.parts
    }

    /// What the message is made of: for drivers.
    #[must_use]
    pub fn parts(&self) -> &MessageParts {
        &self.parts
    }

    pub(crate) fn headers_ref(&self) -> &Headers {
        &self.parts.headers
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Headers {
        &mut self.parts.headers
    }

    pub(crate) fn group_ref(&self) -> Option<&str> {
        self.parts.group.as_deref()
    }

    pub(crate) fn is_delayed(&self) -> bool {
        self.parts.deliver_at.is_some()
    }

    pub(crate) fn has_priority(&self) -> bool {
        self.parts.priority.is_some()
    }
}

/// A [`Message`] taken apart, for the driver that sends it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MessageParts {
    /// Where the message goes.
    pub topic: Topic,
    /// What it says.
    pub body: Bytes,
    /// Its headers, the trace context among them.
    pub headers: Headers,
    /// What people look it up by.
    pub keys: Vec<String>,
    /// What subscribers filter by.
    pub tag: Option<String>,
    /// The message group: order is kept within it.
    pub group: Option<String>,
    /// When it is to be delivered.
    pub deliver_at: Option<SystemTime>,
    /// Higher is delivered first.
    pub priority: Option<u32>,
}

// === impl Receipt ===

impl Receipt {
    /// A receipt: for drivers.
    pub fn new(id: impl Into<MessageId>) -> Self {
        Self {
            id: id.into(),
            recall: None,
        }
    }

    /// Adds what calls the message back: for drivers.
    #[must_use]
    pub fn recallable(mut self, handle: RecallHandle) -> Self {
        self.recall = Some(handle);
        self
    }
}

// === impl RecallHandle ===

impl RecallHandle {
    /// From the parts that were stored.
    pub fn new(topic: impl Into<Topic>, token: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            token: token.into(),
        }
    }

    /// Where the message was sent.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// What the broker calls it; opaque.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_beyond_all_time_is_no_panic() {
        let message = Message::new("t", "x").delay(Duration::MAX);
        assert!(message.into_parts().deliver_at > Some(SystemTime::now()));
    }
}
