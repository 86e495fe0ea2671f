//! Durations as people write them: `25s`, `500ms`, `2m`, `1h30m`.
//!
//! ```
//! # use std::time::Duration;
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     #[serde(with = "kratos::config::duration")]
//!     timeout: Duration,
//! }
//! ```

pub mod option;

use std::{fmt, time::Duration};

use serde::{Deserializer, Serializer, de};

const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

const EXPECTED: &str = "a duration such as \"25s\", \"500ms\" or \"1m30s\"";

/// Reads a duration; `None` if `text` is not one.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        total = total.checked_add(part(number, unit.trim())?)?;
        rest = tail;
    }
    Some(total)
}

/// Writes a duration in the largest unit that needs no fraction.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let whole = UNITS
        .iter()
        .rev()
        .find(|(_, size)| nanos.is_multiple_of(u128::from(*size)));
    whole.map_or_else(
        || format!("{nanos}ns"),
        |(unit, size)| format!("{}{unit}", nanos / u128::from(*size)),
    )
}

/// For `#[serde(with = "kratos::config::duration")]`.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(with = "kratos::config::duration")]`.
///
/// # Errors
///
/// The value is no text, or no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(Visitor)
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*size).map(Duration::from_nanos);
    }
    let nanos = number.parse::<f64>().ok()? * *size as f64;
    Duration::try_from_secs_f64(nanos / 1e9).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let cases = [
            ("25s", 25_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            ("2h", 7_200_000),
            (" 3s ", 3_000),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_what_has_no_unit_or_no_number() {
        for text in [
            "",
            "5",
            "s",
            "5 parsecs",
            "-1s",
            "1.2.3s",
            "s5",
            "5é",
            "99999999999999999999h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["25s", "500ms", "90s", "2h", "7ns", "0s"] {
            assert_eq!(parse(&format(parse(text).unwrap())), parse(text), "{text}");
        }
        assert_eq!(format(Duration::from_secs(90)), "90s");
    }
}
