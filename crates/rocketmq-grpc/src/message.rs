//! A message to send.

mod body;
mod id;
mod validate;
mod view;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rocketmq_proto::v2 as pb;

pub use self::view::MessageView;
pub(crate) use self::{body::decode, validate::name as validate_name};
use crate::{Error, convert};

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
    message_type: pb::MessageType,
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
            message_type: pb::MessageType::Normal,
        }
    }

    /// The tag by which consumers may filter; a message has at most one.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
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

    /// Id of the message: 34 upper-case hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
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

    pub(crate) fn message_type(&self) -> pb::MessageType {
        self.message_type
    }

    /// Everything that the server would refuse, with reasons that help.
    pub(crate) fn validate(&self, body_max: usize) -> Result<(), Error> {
        validate::name("topic", &self.topic)?;
        validate::body(&self.topic, self.body.len(), body_max)?;
        validate::properties(
            &self.topic,
            self.tag.as_deref(),
            &self.keys,
            &self.properties,
        )
    }

    pub(crate) fn to_proto(&self, topic: pb::Resource, host: &str) -> pb::Message {
        pb::Message {
            topic: Some(topic),
            user_properties: self.properties.clone(),
            system_properties: Some(pb::SystemProperties {
                tag: self.tag.clone(),
                keys: self.keys.clone(),
                message_id: self.id.clone(),
                body_encoding: pb::Encoding::Identity.into(),
                message_type: self.message_type().into(),
                born_timestamp: Some(convert::proto_time(SystemTime::now())),
                born_host: host.to_owned(),
                ..Default::default()
            }),
            body: self.body.clone(),
        }
    }
}

/// Longest time that a message may be hidden: a limit of the server.
pub(crate) const INVISIBLE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Shortest time for which a receive may hide messages: a limit of the server.
pub(crate) const INVISIBLE_MIN: Duration = Duration::from_secs(10);
