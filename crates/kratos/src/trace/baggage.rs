//! W3C baggage: names and values that travel with a trace, through every process.

use opentelemetry::{Context, baggage::BaggageExt};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Names and values that travel with a trace: at most 64 of them, in at most 8,192 bytes.
pub use opentelemetry::baggage::Baggage;

/// The header with the baggage.
pub const BAGGAGE: &str = "baggage";

/// Longest header that is looked at, in bytes, and most members of it: what the standard demands
/// that everybody carries. What is beyond is dropped.
const HEADER_MAX: usize = 8_192;
const MEMBERS_MAX: usize = 64;

/// What may not stand in a value as it is; other than ASCII never may.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b',')
    .add(b';')
    .add(b'\\')
    .add(b'%');

/// Reads the sender's baggage from its header; `None` if there is none, or none that can be read.
///
/// A member that is malformed is left out, and what is more than 64 members or 8,192 bytes.
#[must_use]
pub fn parse_baggage(header: &str) -> Option<Baggage> {
    let mut baggage = Baggage::new();
    for member in within(header).split(',').take(MEMBERS_MAX) {
        let (pair, metadata) = member.split_once(';').unwrap_or((member, ""));
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let Ok(value) = percent_decode_str(value).decode_utf8() else {
            continue;
        };
        if is_token(name) {
            let metadata = metadata.trim().to_owned();
            baggage.insert_with_metadata(name.to_owned(), value.into_owned(), metadata);
        }
    }
    (!baggage.is_empty()).then_some(baggage)
}

/// Writes baggage as a header; `None` if it is empty.
#[must_use]
pub fn format_baggage(baggage: &Baggage) -> Option<String> {
    let mut header = String::new();
    for (name, (value, metadata)) in baggage {
        let before = header.len();
        if before > 0 {
            header.push(',');
        }
        header.push_str(name.as_str());
        header.push('=');
        header.extend(utf8_percent_encode(value.as_str(), ENCODED));
        if !metadata.as_str().is_empty() {
            header.push(';');
            header.push_str(metadata.as_str());
        }
        if header.len() > HEADER_MAX || !is_token(name.as_str()) {
            header.truncate(before);
        }
    }
    (!header.is_empty()).then_some(header)
}

/// The baggage that this code runs with; it is empty outside of requests and messages that have
/// some.
#[must_use]
pub fn baggage() -> Baggage {
    let mut copy = Baggage::new();
    Context::map_current(|cx| {
        for (name, (value, metadata)) in cx.baggage() {
            copy.insert_with_metadata(name.clone(), value.clone(), metadata.as_str());
        }
    });
    copy
}

/// The header of the baggage that this code runs with.
pub(super) fn current() -> Option<String> {
    Context::map_current(|cx| format_baggage(cx.baggage()))
}

/// As much of a header as is looked at, whole members only.
fn within(header: &str) -> &str {
    if header.len() <= HEADER_MAX {
        return header;
    }
    let bytes = &header.as_bytes()[..=HEADER_MAX];
    let end = bytes.iter().rposition(|byte| *byte == b',');
    // A comma is a character of its own.
    header.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// What names are made of, after the rules of HTTP.
fn is_token(name: &str) -> bool {
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(of_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(baggage: &Baggage) -> Vec<(String, String)> {
        let pair = |(name, (value, _)): (&opentelemetry::Key, &(opentelemetry::StringValue, _))| {
            (name.to_string(), value.to_string())
        };
        let mut pairs: Vec<_> = baggage.into_iter().map(pair).collect();
        pairs.sort();
        pairs
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut baggage = Baggage::new();
        for (name, value) in [("tenant", "a b"), ("text", "ä,;\"%\\="), ("empty", "")] {
            baggage.insert(name, value);
        }
        let header = format_baggage(&baggage).unwrap();
        assert!(
            header.is_ascii() && !header.contains([' ', '"', '\\']),
            "{header}"
        );
        assert_eq!(pairs(&parse_baggage(&header).unwrap()), pairs(&baggage));
    }

    #[test]
    fn a_member_that_cannot_be_read_is_left_out() {
        let header = "a=1, b = 2 ;secret, nothing, =3, ä=4, d=%ff, e=5%20";
        let baggage = parse_baggage(header).unwrap();
        let expected = [("a", "1"), ("b", "2"), ("e", "5 ")];
        assert_eq!(
            pairs(&baggage),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        let metadata = baggage.get_with_metadata("b").map(|(_, it)| it.as_str());
        assert_eq!(metadata, Some("secret"));
        for nothing in ["", ",,,", "=", "\u{0}"] {
            assert!(parse_baggage(nothing).is_none());
        }
    }

    #[test]
    fn more_than_the_standard_demands_is_dropped() {
        let many: Vec<String> = (0..1_000).map(|n| format!("k{n}=v")).collect();
        assert_eq!(parse_baggage(&many.join(",")).unwrap().len(), MEMBERS_MAX);
        let long = format!("a=1,b={},c=3", "ö".repeat(HEADER_MAX));
        assert_eq!(pairs(&parse_baggage(&long).unwrap()).len(), 1);
        assert!(parse_baggage(&"x".repeat(HEADER_MAX * 2)).is_none());
    }
}
