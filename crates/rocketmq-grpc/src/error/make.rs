//! How errors come about: from configurations, from statuses of the server, from connections that
//! failed.

use std::{error::Error as StdError, fmt, sync::Arc};

use rocketmq_proto::v2::Code;

use super::{At, Error, Inner, Kind, Source, code};
use crate::connect::{BoxError, Fault, Unreachable};

/// Why a connection failed, in the words of whoever noticed first. The levels in between say the
/// same again, and a `Status` prints all of them with its own debug output.
#[derive(Debug)]
struct RootCause(tonic::Status);

impl Error {
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message.into(), At::default(), None)
    }

    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "certificates are the cause")
    )]
    pub(crate) fn config_because(
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        let source: Source = Arc::new(source);
        Self::new(Kind::Config, message.into(), At::default(), Some(source))
    }

    pub(crate) fn no_credentials(source: BoxError) -> Self {
        let message = "the provider gave no credentials".to_owned();
        Self::new(
            Kind::Credentials,
            message,
            At::default(),
            Some(source.into()),
        )
    }

    /// `what` the queues should be: writable, readable. Brokers that are away leave the routes.
    pub(crate) fn no_queue(topic: &str, what: &str) -> Self {
        let message =
            format!("topic {topic} has no {what} queue: its brokers are away or forbid it");
        Self::new(Kind::NoQueue, message, At::default(), None)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message.into(), At::default(), None)
    }

    pub(crate) fn intercepted(source: BoxError) -> Self {
        let message = "an interceptor refused the message".to_owned();
        Self::new(Kind::Invalid, message, At::default(), Some(source.into()))
    }

    pub(crate) fn corrupted(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupted, message.into(), At::default(), None)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(
            Kind::Closed,
            format!("the {what} is closed"),
            At::default(),
            None,
        )
    }

    pub(crate) fn protocol(message: impl Into<String>, at: At) -> Self {
        Self::new(Kind::Protocol, message.into(), at, None)
    }

    pub(crate) fn timeout(at: At, after: std::time::Duration) -> Self {
        Self::new(
            Kind::Timeout,
            format!("no answer within {after:?}"),
            at,
            None,
        )
    }

    pub(crate) fn lease_expired(message: impl Into<String>, last: Option<Self>) -> Self {
        let at = last
            .as_ref()
            .map(|e| e.inner.at.clone())
            .unwrap_or_default();
        Self::new(
            Kind::LeaseExpired,
            message.into(),
            at,
            last.map(|it| Arc::new(it) as Source),
        )
    }

    /// From a status inside an answer.
    pub(crate) fn status(code: i32, message: &str, at: At) -> Self {
        let name = code::name(code).unwrap_or("unknown code");
        Self::new(
            Kind::Code(code),
            format!("{name} ({code}): {}", one_line(message)),
            at,
            None,
        )
    }

    /// From a failed gRPC call.
    pub(crate) fn grpc(status: tonic::Status, at: At) -> Self {
        use tonic::Code as Grpc;
        let text = one_line(status.message());
        // A status with a source was made on this side, by a connection that failed.
        if status.source().is_some() {
            let (kind, message) = if let Some(it) = cause::<Fault>(&status)
                && it.lasting
            {
                (Kind::Incompatible, it.to_string())
            } else if let Some(it) = cause::<Unreachable>(&status) {
                (Kind::Unreachable, it.to_string())
            } else if cause::<tonic::TimeoutExpired>(&status).is_some() {
                (Kind::Timeout, "the deadline passed".to_owned())
            } else {
                (Kind::Disconnected, "the connection was lost".to_owned())
            };
            return Self::new(kind, message, at, Some(Arc::new(RootCause(status))));
        }
        let (kind, message) = match status.code() {
            Grpc::Unavailable | Grpc::Aborted | Grpc::Cancelled => (
                Kind::Disconnected,
                format!("the server is unavailable: {text}"),
            ),
            Grpc::DeadlineExceeded => (Kind::Timeout, "the deadline passed".to_owned()),
            Grpc::ResourceExhausted => (
                Kind::Code(Code::TooManyRequests as i32),
                format!("too many requests: {text}"),
            ),
            Grpc::Unimplemented => (
                Kind::Code(Code::NotImplemented as i32),
                format!("not implemented: {text}"),
            ),
            Grpc::InvalidArgument if text.contains("group not found") => (Kind::UnknownGroup, text),
            Grpc::InvalidArgument => (Kind::Rejected, text),
            Grpc::NotFound => (Kind::Code(Code::NotFound as i32), text),
            Grpc::Unauthenticated => (Kind::Code(Code::Unauthorized as i32), text),
            Grpc::PermissionDenied => (Kind::Code(Code::Forbidden as i32), text),
            _ => (
                Kind::Code(Code::InternalError as i32),
                format!("{}: {text}", status.code()),
            ),
        };
        Self::new(kind, message, at, None)
    }

    /// The same failure of a connection, with what the connection's first bytes told.
    pub(crate) fn because_of(self, fault: Option<Fault>) -> Self {
        let Inner {
            kind, at, source, ..
        } = &*self.inner;
        match fault {
            Some(fault) if *kind == Kind::Disconnected => {
                let kind = if fault.lasting {
                    Kind::Incompatible
                } else {
                    Kind::Disconnected
                };
                Self::new(kind, fault.to_string(), at.clone(), source.clone())
            }
            Some(_) | None => self,
        }
    }

    /// The same failure, of a message that an `earlier` attempt may have stored.
    pub(crate) fn after_maybe_stored(self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier else {
            return self;
        };
        let cause = self.inner.source.clone();
        self.maybe_stored(Some(cause.unwrap_or(Arc::new(earlier))))
    }

    /// The same failure, of a message that was on its way.
    pub(crate) fn with_message_under_way(self) -> Self {
        let cause = self.inner.source.clone();
        self.maybe_stored(cause)
    }

    fn maybe_stored(&self, source: Option<Source>) -> Self {
        let Inner {
            kind, message, at, ..
        } = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                kind: *kind,
                message: message.clone(),
                at: at.clone(),
                maybe_stored: true,
                source,
            }),
        }
    }

    fn new(kind: Kind, message: String, at: At, source: Option<Source>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message,
                at,
                maybe_stored: false,
                source,
            }),
        }
    }
}

fn cause<E: StdError + 'static>(status: &tonic::Status) -> Option<&E> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(status);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Servers put stack traces into their messages; the first line is the fact.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    line.trim_end_matches('.').chars().take(300).collect()
}

// === impl RootCause ===

impl fmt::Display for RootCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut root: &(dyn StdError + 'static) = &self.0;
        while let Some(cause) = root.source() {
            root = cause;
        }
        fmt::Display::fmt(root, f)
    }
}

impl StdError for RootCause {}
