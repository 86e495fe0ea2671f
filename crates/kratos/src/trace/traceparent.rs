//! The `traceparent` header: `00-<32 hex>-<16 hex>-<2 hex>`.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId};

const LENGTH: usize = 55;

/// `sampled` and `random`: the flags that the standard defines. Others must be sent as 0.
const KNOWN_FLAGS: u8 = 0b11;

pub(super) struct Parent {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) flags: TraceFlags,
}

/// Reads a header. A later version may be longer; its first 55 bytes mean the same.
pub(super) fn parse(header: &str) -> Option<Parent> {
    let bytes = header.trim_matches([' ', '\t']).as_bytes();
    let (fixed, rest) = bytes.split_at_checked(LENGTH)?;
    let version = u8::try_from(hex(&fixed[..2])?).ok()?;
    let longer_is_fine = version != 0 && rest.first() == Some(&b'-');
    if version == 0xff || !(rest.is_empty() || longer_is_fine) {
        return None;
    }
    if fixed[2] != b'-' || fixed[35] != b'-' || fixed[52] != b'-' {
        return None;
    }
    let trace_id = u128::from(hex(&fixed[3..19])?) << 64 | u128::from(hex(&fixed[19..35])?);
    let span_id = hex(&fixed[36..52])?;
    let flags = u8::try_from(hex(&fixed[53..])?).ok()?;
    (trace_id != 0 && span_id != 0).then(|| Parent {
        trace_id: TraceId::from(trace_id),
        span_id: SpanId::from(span_id),
        flags: TraceFlags::new(flags & KNOWN_FLAGS),
    })
}

/// Writes a header; `None` if the context is not valid.
pub(super) fn format(context: &SpanContext) -> Option<String> {
    if !context.is_valid() {
        return None;
    }
    let mut header = String::with_capacity(LENGTH);
    header.push_str("00-");
    push_hex(&mut header, &context.trace_id().to_bytes());
    header.push('-');
    push_hex(&mut header, &context.span_id().to_bytes());
    header.push('-');
    push_hex(&mut header, &[context.trace_flags().to_u8() & KNOWN_FLAGS]);
    Some(header)
}

/// At most 16 digits, lower case only, as the standard demands.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

fn push_hex(to: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        to.push(DIGITS[usize::from(byte >> 4)].into());
        to.push(DIGITS[usize::from(byte & 0xf)].into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn reads_ids_and_flags() {
        let parent = parse(GOOD).unwrap();
        assert_eq!(
            parent.trace_id.to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(parent.span_id.to_string(), "b7ad6b7169203331");
        assert!(parent.flags.is_sampled());
    }

    #[test]
    fn keeps_the_unsampled_flag() {
        let parent = parse(&GOOD.replace("-01", "-00")).unwrap();
        assert!(!parent.flags.is_sampled());
    }

    #[test]
    fn accepts_a_longer_header_of_a_later_version_only() {
        assert!(parse(&format!("{GOOD}-what-comes")).is_none());
        assert!(parse(&format!("cc{}-what-comes", &GOOD[2..])).is_some());
        assert!(parse(&format!("cc{}.what-comes", &GOOD[2..])).is_none());
    }

    #[test]
    fn refuses_what_is_malformed() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        let refused = [
            "",
            "-",
            "00",
            "garbage",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &GOOD.replace("0af", "0xg"),
            &GOOD.replace('-', "_"),
            &format!("ff{}", &GOOD[2..]),
            &zero_trace,
            &zero_span,
            &"é".repeat(28),
            &"-".repeat(55),
        ];
        for header in refused {
            assert!(parse(header).is_none(), "{header:?} was accepted");
        }
    }

    /// Every truncation and every single changed byte: parsed or refused, never a panic.
    #[test]
    fn never_panics() {
        for end in 0..=GOOD.len() {
            let _ = parse(&GOOD[..end]);
            for replacement in ["\0", "é", "-", "g", " ", "🦀"] {
                if end < GOOD.len() {
                    let mut header = GOOD.to_owned();
                    header.replace_range(end..=end, replacement);
                    let _ = parse(&header);
                }
            }
        }
    }
}
