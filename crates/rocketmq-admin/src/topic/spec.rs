//! What a topic shall be.

use std::{fmt, str::FromStr};

use crate::{
    code,
    error::{Error, Result},
    frame::Frame,
    names,
};

use super::{MESSAGE_TYPE, MessageType};

const QUEUES: u32 = 4;
const QUEUES_MAX: u32 = 1024;

/// A topic to create, or to change to this.
///
/// Also read from text, `NAME[:TYPE][:queues=N][:attr.KEY=VALUE]`:
///
/// ```
/// use rocketmq_admin::{MessageType, TopicSpec};
///
/// let spec = TopicSpec::new("orders").message_type(MessageType::Fifo).queues(8);
/// assert_eq!("orders:FIFO:queues=8".parse::<TopicSpec>()?, spec);
/// # Ok::<(), rocketmq_admin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    name: String,
    message_type: MessageType,
    queues: u32,
    /// As the server wants it: `+key=value`, or `-key` to take one away.
    attributes: Vec<String>,
}

impl TopicSpec {
    /// A topic of `Normal` messages with 4 queues on each broker.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            message_type: MessageType::Normal,
            queues: QUEUES,
            attributes: Vec::new(),
        }
    }

    /// Kind of messages that it takes. Brokers before 5.0 know no kinds and take any.
    #[must_use]
    pub fn message_type(mut self, kind: MessageType) -> Self {
        self.message_type = kind;
        self
    }

    /// Queues on each broker, for producers and for consumers, 1 to 1,024.
    #[must_use]
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// Sets an attribute; neither part may have a comma.
    #[must_use]
    pub fn attribute(mut self, key: &str, value: &str) -> Self {
        self.attributes.push(format!("+{key}={value}"));
        self
    }

    /// Takes an attribute away from a topic that has it.
    #[must_use]
    pub fn remove_attribute(mut self, key: &str) -> Self {
        self.attributes.push(format!("-{key}"));
        self
    }

    /// Name of the topic.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn request(&self) -> Result<Frame> {
        names::topic(&self.name)?;
        if !(1..=QUEUES_MAX).contains(&self.queues) {
            return Err(Error::invalid(format!(
                "topic {}: {} queues, where 1 to {QUEUES_MAX} are possible",
                self.name, self.queues
            )));
        }
        if let Some(it) = self.attributes.iter().find(|it| it.contains(',')) {
            return Err(Error::invalid(format!(
                "topic {}: a comma in an attribute: {it:?}",
                self.name
            )));
        }
        let queues = self.queues.to_string();
        let mut attributes = format!("+{MESSAGE_TYPE}={}", self.message_type);
        for it in &self.attributes {
            attributes.push(',');
            attributes.push_str(it);
        }
        Ok(Frame::request(code::CREATE_TOPIC)
            .field("topic", &self.name)
            // The template of topics that brokers make by themselves; wanted, and not used here.
            .field("defaultTopic", "TBW102")
            .field("readQueueNums", &queues)
            .field("writeQueueNums", &queues)
            .field("perm", "6")
            .field("topicFilterType", "SINGLE_TAG")
            .field("topicSysFlag", "0")
            .field("order", "false")
            .field("attributes", attributes))
    }
}

impl FromStr for TopicSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        names::topic(name)?;
        let mut spec = Self::new(name);
        for part in parts {
            spec = if let Some(queues) = part.strip_prefix("queues=") {
                spec.queues(names::number("queues", queues, 1, QUEUES_MAX)?)
            } else if let Some(attribute) = part.strip_prefix("attr.") {
                let (key, value) = names::attribute(attribute)?;
                spec.attribute(key, value)
            } else if let Some(kind) = MessageType::from_word(part) {
                spec.message_type(kind)
            } else {
                return Err(Error::invalid(format!(
                    "{text}: unknown type or option {part:?}; types: {}; options: queues=N, \
                     attr.KEY=VALUE",
                    MessageType::ALL.map(MessageType::as_str).join(" ")
                )));
            };
        }
        Ok(spec)
    }
}

impl fmt::Display for TopicSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            message_type,
            queues,
            ..
        } = self;
        write!(f, "topic {name}: {message_type}, {queues} queues")?;
        self.attributes
            .iter()
            .try_for_each(|it| write!(f, ", {it}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read() {
        let read = |it: &str| it.parse::<TopicSpec>().unwrap();
        assert_eq!(read("a"), TopicSpec::new("a"));
        assert_eq!(
            read("a:delay:queues=1:attr.lite.expiration=5"),
            TopicSpec::new("a")
                .message_type(MessageType::Delay)
                .queues(1)
                .attribute("lite.expiration", "5")
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (bad, named) in [
            ("", "not a name"),
            ("a.b", "a.b"),
            ("a:FIFI", "FIFI"),
            ("a:queues=0", "queues"),
            ("a:queues=1025", "1025"),
            ("a:queues=x", "queues"),
            ("a:attr.x", "not an attribute"),
            ("a:", "unknown"),
        ] {
            let error = bad.parse::<TopicSpec>().unwrap_err();
            assert!(
                error.is_invalid() && error.to_string().contains(named),
                "{bad}: {error}"
            );
        }
        for bad in [
            TopicSpec::new("a").queues(0),
            TopicSpec::new("a.b"),
            TopicSpec::new("a").attribute("x", "1,+y=2"),
        ] {
            assert!(bad.request().unwrap_err().is_invalid(), "{bad}");
        }
    }

    #[test]
    fn attributes_are_joined() {
        let spec = TopicSpec::new("a")
            .attribute("x", "1")
            .remove_attribute("y");
        let request = spec.request().unwrap();
        assert_eq!(
            request.ext("attributes"),
            Some("+message.type=NORMAL,+x=1,-y")
        );
    }
}
