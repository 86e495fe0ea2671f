//! The one error of this crate: opaque, with questions instead of variants.

mod chain;
mod code;
mod hint;
mod make;

use std::{error::Error as StdError, fmt, sync::Arc};

use rocketmq_proto::v2::Code;

pub(crate) use self::chain::chain;

/// Result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn StdError + Send + Sync>;

/// Says what failed, where, and what to do about it; cheap to clone.
///
/// Display is one line about this level, `source()` has the causes. To react to a failure, ask the
/// predicates; [`code`](Error::code), [`operation`](Error::operation),
/// [`endpoint`](Error::endpoint) and [`request_id`](Error::request_id) are for reports.
///
/// # Status codes
///
/// Where the server answered with a status, this is what the predicates make of it:
///
/// | code | [retryable] | [may be stored] | what it is |
/// |---|---|---|---|
/// | 400xx BAD_REQUEST, ILLEGAL_… | | | the request can never be right |
/// | 40013 INVALID_RECEIPT_HANDLE | | | [`is_receipt_expired`]: the message comes again |
/// | 40014 MESSAGE_PROPERTY_CONFLICT_WITH_TYPE | | | [`is_wrong_topic_type`] |
/// | 40015 UNRECOGNIZED_CLIENT_TYPE | yes | | the server has forgotten this client, and is told again |
/// | 40100 UNAUTHORIZED | | | [`is_unauthorized`]: no, or unknown, credentials; or not allowed to |
/// | 40200, 40300 | | | not paid for; FORBIDDEN: by the permission of the topic, for example |
/// | 40402 TOPIC_NOT_FOUND | | | [`is_unknown_topic`] |
/// | 40403 CONSUMER_GROUP_NOT_FOUND | | | [`is_unknown_group`] |
/// | 40800 REQUEST_TIMEOUT | yes | yes | |
/// | 413xx, 428xx, 431xx | | | too large, empty, or a condition that does not hold |
/// | 42900 TOO_MANY_REQUESTS | yes | | [`is_throttled`]; gRPC RESOURCE_EXHAUSTED counts as this |
/// | 42901, 42902 | | | a quota of lite topics is used up |
/// | 500xx INTERNAL_…, HA_NOT_AVAILABLE | yes | yes | also "busy", when broker and proxy are one process |
/// | 50100 NOT_IMPLEMENTED, 505xx UNSUPPORTED | | | gRPC UNIMPLEMENTED counts as the first |
/// | 504xx PROXY_TIMEOUT, …_PERSISTENCE_TIMEOUT | yes | yes | |
/// | unknown, 5xxxx | yes | yes | |
/// | unknown, others | | | |
///
/// Without a status: a lost connection and a passed deadline are retryable and may be stored; a
/// server that was not reached is retryable and nothing is stored; what was refused before it was
/// sent is neither.
///
/// [retryable]: Error::is_retryable
/// [may be stored]: Error::may_be_stored
/// [`is_receipt_expired`]: Error::is_receipt_expired
/// [`is_wrong_topic_type`]: Error::is_wrong_topic_type
/// [`is_unauthorized`]: Error::is_unauthorized
/// [`is_unknown_topic`]: Error::is_unknown_topic
/// [`is_unknown_group`]: Error::is_unknown_group
/// [`is_throttled`]: Error::is_throttled
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    message: String,
    at: At,
    maybe_stored: bool,
    source: Option<Source>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A configuration that cannot work.
    Config,
    /// A message that the server would refuse, found before it was sent.
    Invalid,
    /// No connection, so the request did not leave.
    Unreachable,
    /// What is configured here and there does not go together: TLS, certificates, ports.
    Incompatible,
    /// The provider of credentials has none.
    Credentials,
    /// No broker of the topic takes or gives messages now.
    NoQueue,
    /// The connection was lost with the request under way.
    Disconnected,
    Timeout,
    /// An answer that makes no sense.
    Protocol,
    /// The server refused the settings of this client.
    Rejected,
    UnknownGroup,
    /// A status that the server sent.
    Code(i32),
    /// The lease ran out before the settlement was confirmed.
    LeaseExpired,
    Corrupted,
    Closed,
}

/// What was asked, of whom, under which request id.
#[derive(Debug, Clone, Default)]
pub(crate) struct At {
    pub(crate) operation: &'static str,
    pub(crate) topic: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) request_id: Option<String>,
}

// === impl Error ===

impl Error {
    /// True if the same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.inner.kind {
            Kind::Unreachable
            | Kind::Credentials
            | Kind::NoQueue
            | Kind::Disconnected
            | Kind::Timeout => true,
            Kind::Code(code) => code::is_retryable(code),
            Kind::Config
            | Kind::Invalid
            | Kind::Incompatible
            | Kind::Protocol
            | Kind::Rejected
            | Kind::UnknownGroup
            | Kind::LeaseExpired
            | Kind::Corrupted
            | Kind::Closed => false,
        }
    }

    /// True if a message whose sending failed may be stored and delivered nevertheless.
    ///
    /// Sending it again can then make a duplicate, under the same message id.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        self.inner.maybe_stored
            || match self.inner.kind {
                Kind::Disconnected | Kind::Timeout | Kind::Protocol => true,
                Kind::Code(code) => code::may_be_done(code),
                _ => false,
            }
    }

    /// True if the topic does not exist. Display has the command that creates it.
    #[must_use]
    pub fn is_unknown_topic(&self) -> bool {
        self.is_code(Code::TopicNotFound)
    }

    /// True if the consumer group does not exist. Display has the command that creates it.
    #[must_use]
    pub fn is_unknown_group(&self) -> bool {
        self.inner.kind == Kind::UnknownGroup || self.is_code(Code::ConsumerGroupNotFound)
    }

    /// True if the topic takes another type of message than the one sent.
    #[must_use]
    pub fn is_wrong_topic_type(&self) -> bool {
        self.is_code(Code::MessagePropertyConflictWithType)
    }

    /// True if the lease had run out or was replaced: the message will be delivered again.
    #[must_use]
    pub fn is_receipt_expired(&self) -> bool {
        self.inner.kind == Kind::LeaseExpired || self.is_code(Code::InvalidReceiptHandle)
    }

    /// True if the server asks for fewer requests.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        self.is_code(Code::TooManyRequests)
    }

    /// True if the server wants credentials, or others, or forbids this to the user that they are of.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.is_code(Code::Unauthorized)
    }

    /// True if what is configured here and there does not go together: a certificate that is not
    /// trusted, TLS on one side only, a port that speaks another protocol.
    #[must_use]
    pub fn is_incompatible(&self) -> bool {
        self.inner.kind == Kind::Incompatible
    }

    /// True if the server could not be reached, or was lost while it worked on the request.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self.inner.kind, Kind::Unreachable | Kind::Disconnected)
    }

    /// True if no answer came in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.inner.kind == Kind::Timeout
    }

    /// True if the arguments can never be right: a configuration, a message, a name.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self.inner.kind, Kind::Config | Kind::Invalid)
    }

    /// True if the client, producer or consumer was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.kind == Kind::Closed
    }

    /// Status code of the server, if it answered with one.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self.inner.kind {
            Kind::Code(code) => Some(code),
            _ => None,
        }
    }

    /// Name of that status code in the protocol, as `TOPIC_NOT_FOUND`, if it is a known one.
    #[must_use]
    pub fn code_name(&self) -> Option<&'static str> {
        self.code().and_then(code::name)
    }

    /// What was asked of the server, as `send` or `ack`, if it was asked.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        let operation = self.inner.at.operation;
        (!operation.is_empty()).then_some(operation)
    }

    /// Id of the request, to be found in the server's logs.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.inner.at.request_id.as_deref()
    }

    /// Endpoints that were asked.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.inner.at.endpoint.as_deref()
    }

    pub(crate) fn is_code(&self, code: Code) -> bool {
        self.inner.kind == Kind::Code(code as i32)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { message, at, .. } = &*self.inner;
        if !at.operation.is_empty() {
            write!(f, "{} failed", at.operation)?;
            if let Some(topic) = &at.topic {
                write!(f, ", topic {topic}")?;
            }
            if let Some(group) = &at.group {
                write!(f, ", group {group}")?;
            }
            if let Some(endpoint) = &at.endpoint {
                write!(f, ", at {endpoint}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(message)?;
        if let Some(hint) = self.hint() {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            at,
            maybe_stored,
            source,
        } = &*self.inner;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("message", message)
            .field("at", at)
            .field("maybe_stored", maybe_stored)
            .field("source", source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner
            .source
            .as_ref()
            .map(|it| &**it as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code) -> Error {
        let at = At {
            topic: Some("t".to_owned()),
            group: Some("g".to_owned()),
            ..At::default()
        };
        Error::status(code as i32, "why.\n\tat java", at)
    }

    #[test]
    fn codes_say_whether_a_repetition_helps_and_whether_the_message_may_be_stored() {
        let cases = [
            (Code::BadRequest, false, false),
            (Code::TopicNotFound, false, false),
            (Code::RequestTimeout, true, true),
            (Code::TooManyRequests, true, false),
            (Code::UnrecognizedClientType, true, false),
            (Code::InternalServerError, true, true),
            (Code::HaNotAvailable, true, true),
            (Code::ProxyTimeout, true, true),
            (Code::MasterPersistenceTimeout, true, true),
            (Code::NotImplemented, false, false),
            (Code::Unsupported, false, false),
        ];
        for (code, retryable, stored) in cases {
            assert_eq!(of(code).is_retryable(), retryable, "{code:?}");
            assert_eq!(of(code).may_be_stored(), stored, "{code:?}");
        }
        let unknown = |code| Error::status(code, "", At::default()).is_retryable();
        assert!(unknown(50_999) && !unknown(40_999) && !unknown(1));
    }

    #[test]
    fn unknown_topics_and_groups_come_with_the_command_that_creates_them() {
        let topic = of(Code::TopicNotFound).to_string();
        assert!(
            topic.contains("rocketmq-admin topic create t:NORMAL "),
            "{topic}"
        );
        let status = tonic::Status::invalid_argument("group not found: g");
        let group = Error::grpc(
            status,
            At {
                group: Some("g".to_owned()),
                ..At::default()
            },
        );
        assert!(group.is_unknown_group() && !group.is_retryable());
        assert!(group.to_string().contains("rocketmq-admin group create g "));
    }

    #[test]
    fn what_the_server_said_and_where_can_be_asked() {
        let at = At {
            operation: "send",
            endpoint: Some("proxy:8081".to_owned()),
            request_id: Some("id".to_owned()),
            ..At::default()
        };
        let error = Error::status(Code::Unauthorized as i32, "no", at);
        assert!(error.is_unauthorized() && !error.is_retryable() && !error.may_be_stored());
        assert_eq!(
            (
                error.code(),
                error.code_name(),
                error.operation(),
                error.endpoint(),
                error.request_id()
            ),
            (
                Some(40100),
                Some("UNAUTHORIZED"),
                Some("send"),
                Some("proxy:8081"),
                Some("id")
            )
        );
        assert_eq!(Error::status(1, "", At::default()).code_name(), None);
        assert_eq!(Error::closed("client").operation(), None);
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(of(Code::BadRequest).to_string(), "BAD_REQUEST (40000): why");
    }

    #[test]
    fn an_earlier_attempt_that_may_be_stored_is_remembered() {
        let last = of(Code::TooManyRequests).after_maybe_stored(Some(of(Code::ProxyTimeout)));
        assert!(last.may_be_stored() && last.is_throttled());
    }

    #[test]
    fn flow_control_of_grpc_counts_as_too_many_requests() {
        let error = Error::grpc(
            tonic::Status::resource_exhausted("flow limit"),
            At::default(),
        );
        assert!(error.is_throttled() && error.is_retryable() && !error.may_be_stored());
    }
}
