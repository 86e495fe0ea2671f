//! The client's errors in the broker-neutral words.

use kratos_broker::{Error, ErrorKind};

/// Keeps the message, which says what to do, and the chain underneath.
pub(crate) fn neutral(error: rocketmq_grpc::Error) -> Error {
    let kind = if error.is_receipt_expired() {
        ErrorKind::LeaseLost
    } else if error.is_unknown_topic() {
        ErrorKind::UnknownTopic
    } else if error.is_unknown_group() {
        ErrorKind::UnknownGroup
    } else if error.is_wrong_topic_type() {
        ErrorKind::WrongTopicType
    } else if error.is_unauthorized() {
        ErrorKind::Denied
    } else if error.is_closed() {
        ErrorKind::Closed
    } else if error.is_invalid() {
        ErrorKind::Invalid
    } else if error.is_retryable() {
        ErrorKind::Transient
    } else {
        ErrorKind::Other
    };
    let neutral = Error::new(kind, error.to_string()).stored(error.may_be_stored());
    match std::error::Error::source(&error) {
        // This level is repeated in the message; what is below stays a chain.
        Some(_) => neutral.with_source(Below(error)),
        None => neutral,
    }
}

/// The causes of a client's error, without its own level.
#[derive(Debug)]
struct Below(rocketmq_grpc::Error);

impl Below {
    fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0)
    }
}

impl std::fmt::Display for Below {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cause() {
            Some(cause) => std::fmt::Display::fmt(cause, f),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Below {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().and_then(std::error::Error::source)
    }
}
