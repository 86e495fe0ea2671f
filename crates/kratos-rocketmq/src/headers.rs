//! Headers as properties on the wire, and back: nothing is lost, nothing is refused that can be
//! carried.
//!
//! Most headers are properties of the same name and value. What RocketMQ would refuse, drop or take
//! for its own travels escaped: names that it reserves (`CORRELATION_ID`, `TTL`, `CLUSTER` ..),
//! empty values, control characters. Such a header is the property `x-escaped-<name>` with the value
//! `=<value>`, both percent-encoded. A header that begins with `x-escaped-` itself is escaped too,
//! so that every name comes back as it was.

use std::borrow::Cow;

use kratos_broker::Headers;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

const PREFIX: &str = "x-escaped-";
const VALUE_PREFIX: char = '=';

/// Control characters of ASCII, and what percent-encoding needs. (What is not ASCII, the other
/// control characters among it, is always encoded.)
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The property of a header.
pub(crate) fn property(
    name: Cow<'static, str>,
    value: Cow<'static, str>,
) -> (Cow<'static, str>, Cow<'static, str>) {
    let plain = !value.trim().is_empty()
        && !value.contains(char::is_control)
        && !name.contains(char::is_control)
        && !name.starts_with(PREFIX)
        && !rocketmq_grpc::Message::is_reserved_property(&name);
    if plain {
        return (name, value);
    }
    let name = utf8_percent_encode(&name, ESCAPED);
    let value = utf8_percent_encode(&value, ESCAPED);
    (
        format!("{PREFIX}{name}").into(),
        format!("{VALUE_PREFIX}{value}").into(),
    )
}

/// The headers of properties.
pub(crate) fn headers(properties: impl IntoIterator<Item = (String, String)>) -> Headers {
    let header = |(name, value): (String, String)| unescape(&name, &value).unwrap_or((name, value));
    properties.into_iter().map(header).collect()
}

/// `None` if it is not one that we escaped.
fn unescape(name: &str, value: &str) -> Option<(String, String)> {
    let name = name.strip_prefix(PREFIX)?;
    let value = value.strip_prefix(VALUE_PREFIX)?;
    let decode = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    Some((decode(name)?, decode(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_comes_back_as_it_was() {
        let odd = [
            ("orderId", "7"),
            ("TTL", "60"),
            ("CORRELATION_ID", "ä ö %41"),
            ("empty", ""),
            ("blank", "  "),
            ("lines", "a\r\nb\tc"),
            ("c1", "a\u{85}b"),
            ("na\nme", "x"),
            ("x-escaped-TTL", "=1"),
            ("x-escaped-x-escaped-", "%"),
            ("__RMQ.TRANSIENT.x", "y"),
        ];
        for (name, value) in odd {
            let (key, text) = property(name.into(), value.into());
            assert!(!rocketmq_grpc::Message::is_reserved_property(&key), "{key}");
            assert!(!text.is_empty() && !text.contains(char::is_control));
            assert!(!key.contains(char::is_control), "{key}");
            let back = headers([(key.into_owned(), text.into_owned())]);
            assert_eq!(back.iter().collect::<Vec<_>>(), [(name, value)]);
        }
    }

    #[test]
    fn what_nobody_escaped_stays_as_it_is() {
        for (name, value) in [("x-escaped-a", "b"), ("x-escaped-a", "=%ff")] {
            let back = headers([(name.to_owned(), value.to_owned())]);
            assert_eq!(back.iter().collect::<Vec<_>>(), [(name, value)]);
        }
    }
}
