//! A message to send.

mod body;
mod id;
mod validate;
mod view;
mod wire;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rocketmq_proto::v2 as pb;

pub use self::view::MessageView;
pub(crate) use self::{
    body::decode,
    validate::{
        body_size as validate_body_size, delayed_size as validate_delayed_size,
        name as validate_name,
    },
    wire::Packer,
};
use crate::Error;

/// A message to send: topic and body, and what the setters add.
///
/// Its id is chosen here and stays the same however often the message is sent, so a consumer can
/// tell repetitions. A clone is the same message.
///
/// ```
/// use rocketmq_grpc::Message;
///
/// let message = Message::new("orders", r#"{"id":7}"#)
///     .tag("created")
///     .key("order-7")
///     .property("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
/// assert_eq!(message.id().len(), 34);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Message {
    pub(crate) topic: String,
    pub(crate) body: Bytes,
    id: String,
    tag: Option<String>,
    keys: Vec<String>,
    properties: HashMap<String, String>,
    group: Option<String>,
    deliver_at: Option<SystemTime>,
    priority: Option<u32>,
    lite_topic: Option<String>,
}

impl Message {
    /// A message without tag, keys and properties.
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            body: body.into(),
            id: id::next(),
            tag: None,
            keys: Vec::new(),
            properties: HashMap::new(),
            group: None,
            deliver_at: None,
            priority: None,
            lite_topic: None,
        }
    }

    /// The tag by which consumers may filter; a message has at most one.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// The same message with another body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a key under which the server's tools find the message. Keys with spaces come back
    /// split.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Adds a property, or replaces the one of this name.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// Makes it a FIFO message: consumers of an orderly group get the messages of one message group
    /// in the order in which they were stored. For topics of type FIFO.
    ///
    /// The order is that of sends that wait for each other: [`Producer::send`](crate::Producer::send)
    /// says more.
    ///
    /// ```
    /// use rocketmq_grpc::Message;
    ///
    /// let message = Message::new("ledger", "+5").group("account-7");
    /// assert_eq!(message.message_group(), Some("account-7"));
    /// ```
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Makes it a delayed message, delivered at this time, to the second. For topics of type DELAY.
    ///
    /// A time that is over means at once. How far ahead it may be is a setting of the server: 24 h
    /// unless it was told otherwise.
    ///
    /// Its body, as it is sent, has to be some bytes shorter than others may be: with topic, tag, keys
    /// and properties, and 1 KiB on top, it must not exceed the greatest body of the server (4 MiB
    /// unless it was told otherwise). Apache RocketMQ confirms what is larger and never delivers it;
    /// so [`Producer::send`](crate::Producer::send) refuses it, before anything is sent.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use rocketmq_grpc::Message;
    ///
    /// let tomorrow = SystemTime::now() + Duration::from_secs(86_000);
    /// let message = Message::new("reminders", "it is tomorrow").deliver_at(tomorrow);
    /// assert_eq!(message.delivery_time(), Some(tomorrow));
    /// ```
    pub fn deliver_at(mut self, time: SystemTime) -> Self {
        self.deliver_at = Some(time);
        self
    }

    /// The same for a time from now: from this call on, not from that to `send`. The size is limited
    /// as for [`deliver_at`](Message::deliver_at).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use rocketmq_grpc::Message;
    ///
    /// let message = Message::new("reminders", "soon").delay(Duration::from_secs(10));
    /// assert!(message.delivery_time() > Some(SystemTime::now()));
    /// ```
    pub fn delay(self, delay: Duration) -> Self {
        let time = SystemTime::now().checked_add(delay);
        self.deliver_at(time.unwrap_or_else(wire::time_max))
    }

    /// Makes it a priority message: of those that wait, higher ones are delivered first, as well as
    /// the server can. For topics of type PRIORITY, on servers from 5.4 on.
    ///
    /// ```
    /// # use rocketmq_grpc::Message;
    /// let message = Message::new("jobs", "now").priority(5);
    /// ```
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Makes it a message of a lite topic, a small topic within this one that needs not be created.
    /// For topics of type LITE, on servers from 5.5 on.
    ///
    /// ```
    /// # use rocketmq_grpc::Message;
    /// let message = Message::new("sessions", "hello").lite_topic("session-7");
    /// ```
    pub fn lite_topic(mut self, lite_topic: impl Into<String>) -> Self {
        self.lite_topic = Some(lite_topic.into());
        self
    }

    /// Whether the server keeps the name of a property for itself: such a
    /// [`property`](Message::property) is refused.
    ///
    /// ```
    /// use rocketmq_grpc::Message;
    ///
    /// assert!(Message::is_reserved_property("CORRELATION_ID"));
    /// assert!(!Message::is_reserved_property("correlation_id"));
    /// ```
    #[must_use]
    pub fn is_reserved_property(name: &str) -> bool {
        validate::is_reserved(name)
    }

    /// Id of the message: 34 upper-case hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Value of a property, if it was set.
    #[must_use]
    pub fn property_value(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Whether a property, with all that was set, is within what the server takes: 128 properties,
    /// and 16 KiB of properties, tag and keys together.
    ///
    /// ```
    /// use rocketmq_grpc::Message;
    ///
    /// let message = Message::new("orders", "a body").property("note", "x".repeat(10_000));
    /// assert!(message.has_room_for("baggage", "tenant=acme"));
    /// assert!(!message.has_room_for("baggage", &"x".repeat(8_192)));
    /// ```
    #[must_use]
    pub fn has_room_for(&self, name: &str, value: &str) -> bool {
        let (tag, keys) = self.tag_and_keys();
        validate::has_room(tag, keys, &self.properties, name, value)
    }

    /// Topic of the message.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Body of the message.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Message group, if one was set.
    #[must_use]
    pub fn message_group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// When it is to be delivered, if not at once.
    #[must_use]
    pub fn delivery_time(&self) -> Option<SystemTime> {
        self.deliver_at
    }

    pub(crate) fn tag_and_keys(&self) -> (Option<&str>, &[String]) {
        (self.tag.as_deref(), &self.keys)
    }

    #[cfg(feature = "opentelemetry")]
    pub(crate) fn set_property(&mut self, name: &str, value: String) {
        self.properties.insert(name.to_owned(), value);
    }

    /// The type that follows from what was set; sent in a transaction, it is another one.
    pub(crate) fn message_type(&self) -> pb::MessageType {
        if self.group.is_some() {
            pb::MessageType::Fifo
        } else if self.deliver_at.is_some() {
            pb::MessageType::Delay
        } else if self.priority.is_some() {
            pb::MessageType::Priority
        } else if self.lite_topic.is_some() {
            pb::MessageType::Lite
        } else {
            pb::MessageType::Normal
        }
    }

    /// What the server would refuse, with reasons that help; the size of the body is checked as it
    /// is sent.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        validate::name("topic", &self.topic)?;
        self.validate_kind()?;
        validate::properties(
            &self.topic,
            self.tag.as_deref(),
            &self.keys,
            &self.properties,
        )
    }

    fn validate_kind(&self) -> Result<(), Error> {
        let topic = &self.topic;
        let kinds: Vec<_> = [
            ("a message group", self.group.is_some()),
            ("a delivery time", self.deliver_at.is_some()),
            ("a priority", self.priority.is_some()),
            ("a lite topic", self.lite_topic.is_some()),
        ]
        .into_iter()
        .filter_map(|(what, set)| set.then_some(what))
        .collect();
        if kinds.len() > 1 {
            return Err(Error::invalid(format!(
                "a message for {topic} has {}: a message is of one type only",
                kinds.join(" and ")
            )));
        }
        if let Some(group) = &self.group {
            validate::group(topic, group)?;
        }
        if let Some(lite_topic) = &self.lite_topic {
            validate::lite_topic(topic, lite_topic)?;
        }
        if self.priority.is_some_and(|it| i32::try_from(it).is_err()) {
            return Err(Error::invalid(format!(
                "a message for {topic} has a priority above {}",
                i32::MAX
            )));
        }
        Ok(())
    }
}

/// Longest time that a message may be hidden: a limit of the server.
pub(crate) const INVISIBLE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Shortest time for which a receive may hide messages: a limit of the server.
pub(crate) const INVISIBLE_MIN: Duration = Duration::from_secs(10);
