//! Names of topics and groups, and the parts of a spec.

use std::time::Duration;

use crate::error::{Error, Result};

/// The server's limits, in bytes.
const TOPIC_LENGTH_MAX: usize = 127;
const GROUP_LENGTH_MAX: usize = 255;

pub(crate) fn topic(name: &str) -> Result<()> {
    checked("topic", name, TOPIC_LENGTH_MAX)
}

pub(crate) fn group(name: &str) -> Result<()> {
    checked("group", name, GROUP_LENGTH_MAX)
}

fn checked(what: &str, name: &str, max: usize) -> Result<()> {
    let good = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'%' | b'|');
    if name.is_empty() || name.len() > max || !name.bytes().all(good) {
        return Err(Error::invalid(format!(
            "not a name of a {what}: {name:?} (1 to {max} of letters, digits, _ - % |)"
        )));
    }
    Ok(())
}

pub(crate) fn number(what: &str, text: &str, min: u32, max: u32) -> Result<u32> {
    match text.parse() {
        Ok(it) if (min..=max).contains(&it) => Ok(it),
        _ => Err(Error::invalid(format!(
            "{what}: not a number from {min} to {max}: {text:?}"
        ))),
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration> {
    let bad = || Error::invalid(format!("not a duration: {text:?} (10ms, 1s, 2m, 1h, 7d)"));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = number.checked_mul(millis).ok_or_else(bad)?;
    Ok(Duration::from_millis(millis))
}

/// `KEY=VALUE` of an attribute; keys have dots, and neither part commas, which join attributes.
pub(crate) fn attribute(text: &str) -> Result<(&str, &str)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains(',') => Ok((key, value)),
        _ => Err(Error::invalid(format!(
            "not an attribute: {text:?} (KEY=VALUE, without commas)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_server_takes() {
        for good in ["a", "orders_1-x", "%RETRY%g|h", &"a".repeat(127)] {
            assert!(topic(good).is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a b", "é", &"a".repeat(128)] {
            assert!(topic(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("0ms", 0),
            ("15ms", 15),
            ("2m", 120_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis));
        }
        for bad in [
            "",
            "5",
            "s",
            "1 s",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "999999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
