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
    humantime::parse_duration(text).map_err(|error| {
        let message = format!("not a duration: {text:?} (10ms, 1s, 2m, 1h)");
        Error::invalid(message).with_source(error)
    })
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
}
