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
    let (fixed, rest) = trim(header.as_bytes()).split_first_chunk::<LENGTH>()?;
    let version = hex_byte(fixed[0], fixed[1])?;
    let longer_is_fine = version != 0 && rest.first() == Some(&b'-');
    if version == 0xff || !(rest.is_empty() || longer_is_fine) {
        return None;
    }
    if fixed[2] != b'-' || fixed[35] != b'-' || fixed[52] != b'-' {
        return None;
    }
    let trace_id = u128::from(hex_u64(fixed, 3)?) << 64 | u128::from(hex_u64(fixed, 19)?);
    let span_id = hex_u64(fixed, 36)?;
    let flags = hex_byte(fixed[53], fixed[54])?;
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

/// Without the white space around it that the standard allows.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Two digits, lower case only, as the standard demands.
fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// 16 such digits, from `at` on.
fn hex_u64(header: &[u8; LENGTH], at: usize) -> Option<u64> {
    let (high, low) = header[at..at + 16].split_at(8);
    let (high, low) = (
        hex_u32(high.try_into().ok()?),
        hex_u32(low.try_into().ok()?),
    );
    Some(u64::from(high?) << 32 | u64::from(low?))
}

/// 8 such digits at once, one in each byte of a word. This runs for every message.
fn hex_u32(digits: [u8; 8]) -> Option<u32> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let digits = u64::from_be_bytes(digits);
    // Letters are the ones with this bit: their low half counts from 1, and means 10.
    let letters = digits >> 6 & EACH;
    let values = (digits & (0x0f * EACH)) + letters * 9;
    // What is no digit is either no value, or written otherwise.
    let above_9 = (values + 6 * EACH) >> 4 & EACH;
    let written = values + u64::from(b'0') * EACH + above_9 * u64::from(b'a' - b'0' - 10);
    if values & (0xf0 * EACH) != 0 || written != digits {
        return None;
    }
    // Halves of bytes side by side.
    let bytes = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
    let words = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    Some((words | words >> 16) as u32)
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

    /// Every byte in the place of every digit.
    #[test]
    fn reads_digits_and_nothing_else() {
        for at in 0..8 {
            for byte in 0..=u8::MAX {
                let mut digits = *b"0a19f09c";
                digits[at] = byte;
                let text = str::from_utf8(&digits).unwrap_or("none");
                let lower = !text.contains(|c: char| c.is_uppercase() || c == '+');
                let expected = u32::from_str_radix(text, 16).ok().filter(|_| lower);
                assert_eq!(hex_u32(digits), expected, "{digits:?}");
            }
        }
    }

    #[test]
    fn ignores_white_space_around_it() {
        assert!(parse(&format!(" \t{GOOD} ")).is_some());
        assert!(parse(&format!("\n{GOOD}")).is_none());
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
