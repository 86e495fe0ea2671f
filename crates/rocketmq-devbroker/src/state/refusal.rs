//! Why the broker said no, with the code that goes on the wire.

use rocketmq_proto::v2::Code;

/// A request that the broker refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn topic_not_found(topic: &str) -> Self {
        let hint = "start the broker with it, or without strict";
        Self::new(
            Code::TopicNotFound,
            format!("no topic route info for topic {topic}: {hint}"),
        )
    }

    pub(crate) fn group_not_found(group: &str) -> Self {
        Self::new(
            Code::ConsumerGroupNotFound,
            format!("group not found: {group}"),
        )
    }

    pub(crate) fn handle(why: &str) -> Self {
        Self::new(Code::InvalidReceiptHandle, format!("receipt handle {why}"))
    }
}
