//! What the status codes of the server mean for who has to react to them.

use rocketmq_proto::v2::Code;

pub(super) fn name(code: i32) -> Option<&'static str> {
    Code::try_from(code).ok().map(|it| it.as_str_name())
}

/// True if the same request may succeed later without any change.
pub(super) fn is_retryable(code: i32) -> bool {
    match Code::try_from(code) {
        Ok(Code::RequestTimeout | Code::TooManyRequests | Code::UnrecognizedClientType) => true,
        Ok(
            Code::NotImplemented
            | Code::Unsupported
            | Code::VersionUnsupported
            | Code::VerifyFifoMessageUnsupported,
        ) => false,
        Ok(_) | Err(_) => (50_000..60_000).contains(&code),
    }
}

/// True if the server may have done what was asked nevertheless.
pub(super) fn may_be_done(code: i32) -> bool {
    is_retryable(code)
        && code != Code::TooManyRequests as i32
        && code != Code::UnrecognizedClientType as i32
}
