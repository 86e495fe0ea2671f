//! What a group shall be.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use humantime::format_duration;
use serde::Serialize;

use crate::{
    code,
    error::{Error, Result},
    frame::Frame,
    names,
};

use super::{Backoff, WireBackoff, WireExponential, WireSteps};

const RETRIES: u32 = 16;
const RETRIES_MAX: u32 = 1000;
const FACTOR: u32 = 2;

/// A consumer group to create, or to change to this.
///
/// Also read from text,
/// `NAME[:orderly][:retry=N][:backoff=1s-10s][:steps=1s,5s,1m][:disabled][:attr.KEY=VALUE]`:
///
/// ```
/// use std::time::Duration;
///
/// use rocketmq_admin::GroupSpec;
///
/// let spec = GroupSpec::new("billing")
///     .orderly(true)
///     .retry_max_times(3)
///     .backoff(Duration::from_secs(1), Duration::from_secs(10));
/// assert_eq!("billing:orderly:retry=3:backoff=1s-10s".parse::<GroupSpec>()?, spec);
/// # Ok::<(), rocketmq_admin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    name: String,
    consume_enable: bool,
    orderly: bool,
    retry_max_times: u32,
    backoff: Backoff,
    /// Keys with the server's sign: `+` sets, `-` takes away.
    attributes: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    group_name: &'a str,
    consume_enable: bool,
    consume_message_orderly: bool,
    retry_max_times: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_retry_policy: Option<WireBackoff>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: &'a BTreeMap<String, String>,
}

impl GroupSpec {
    /// A group without order, with 16 retries at the server's own pace.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            consume_enable: true,
            orderly: false,
            retry_max_times: RETRIES,
            backoff: Backoff::Default,
            attributes: BTreeMap::new(),
        }
    }

    /// Hands out the messages of a queue in order: what consumers of FIFO topics need.
    #[must_use]
    pub fn orderly(mut self, orderly: bool) -> Self {
        self.orderly = orderly;
        self
    }

    /// Gives consumers messages, or none while it is false.
    #[must_use]
    pub fn consume_enable(mut self, enable: bool) -> Self {
        self.consume_enable = enable;
        self
    }

    /// How often a failed message comes again, 0 to 1,000; it is handed out once more than this.
    #[must_use]
    pub fn retry_max_times(mut self, times: u32) -> Self {
        self.retry_max_times = times;
        self
    }

    /// Lets the time until a failed message comes again double, from `first` to `max`.
    #[must_use]
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.backoff = Backoff::Exponential {
            first,
            max,
            factor: FACTOR,
        };
        self
    }

    /// Sets the time until a failed message comes again, retry by retry; the last one holds on.
    #[must_use]
    pub fn backoff_steps(mut self, steps: impl IntoIterator<Item = Duration>) -> Self {
        self.backoff = Backoff::Steps(steps.into_iter().collect());
        self
    }

    /// Sets an attribute, such as `lite.bind.topic`.
    #[must_use]
    pub fn attribute(mut self, key: &str, value: &str) -> Self {
        self.attributes.insert(format!("+{key}"), value.to_owned());
        self
    }

    /// Takes an attribute away. What is not named stays as it was.
    #[must_use]
    pub fn remove_attribute(mut self, key: &str) -> Self {
        self.attributes.insert(format!("-{key}"), String::new());
        self
    }

    /// Name of the group.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn request(&self) -> Result<Frame> {
        names::group(&self.name)?;
        let invalid = |what: &str| Err(Error::invalid(format!("group {}: {what}", self.name)));
        if self.retry_max_times > RETRIES_MAX {
            return invalid(&format!("more than {RETRIES_MAX} retries"));
        }
        let group_retry_policy = match &self.backoff {
            Backoff::Default => None,
            Backoff::Exponential { first, max, .. } if first.is_zero() || first > max => {
                return invalid("a back-off must grow from more than 0");
            }
            Backoff::Exponential { first, max, factor } => Some(WireBackoff {
                kind: "EXPONENTIAL".to_owned(),
                exponential_retry_policy: Some(WireExponential {
                    initial: millis(*first),
                    max: millis(*max),
                    multiplier: u64::from(*factor),
                }),
                customized_retry_policy: None,
            }),
            Backoff::Steps(steps) if steps.is_empty() || steps.iter().any(Duration::is_zero) => {
                return invalid("a back-off needs steps of more than 0");
            }
            Backoff::Steps(steps) => Some(WireBackoff {
                kind: "CUSTOMIZED".to_owned(),
                exponential_retry_policy: None,
                customized_retry_policy: Some(WireSteps {
                    next: steps.iter().copied().map(millis).collect(),
                }),
            }),
        };
        let body = Body {
            group_name: &self.name,
            consume_enable: self.consume_enable,
            consume_message_orderly: self.orderly,
            retry_max_times: self.retry_max_times,
            group_retry_policy,
            attributes: &self.attributes,
        };
        let body = serde_json::to_vec(&body)
            .map_err(|error| Error::invalid(format!("group {}", self.name)).with_source(error))?;
        Ok(Frame::request(code::CREATE_GROUP).body(body))
    }
}

impl FromStr for GroupSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        names::group(name)?;
        let mut spec = Self::new(name);
        for part in parts {
            spec = if part == "orderly" {
                spec.orderly(true)
            } else if part == "disabled" {
                spec.consume_enable(false)
            } else if let Some(times) = part.strip_prefix("retry=") {
                spec.retry_max_times(names::number("retry", times, 0, RETRIES_MAX)?)
            } else if let Some(range) = part.strip_prefix("backoff=") {
                let (first, max) = range.split_once('-').unwrap_or((range, range));
                spec.backoff(names::duration(first)?, names::duration(max)?)
            } else if let Some(steps) = part.strip_prefix("steps=") {
                let steps: Result<Vec<_>> = steps.split(',').map(names::duration).collect();
                spec.backoff_steps(steps?)
            } else if let Some(attribute) = part.strip_prefix("attr.") {
                let (key, value) = names::attribute(attribute)?;
                spec.attribute(key, value)
            } else {
                return Err(Error::invalid(format!(
                    "{text}: unknown option {part:?}; options: orderly, retry=N, backoff=1s-10s, \
                     steps=1s,5s,1m, disabled, attr.KEY=VALUE"
                )));
            };
        }
        // What can only be told of the whole, such as a back-off that shrinks.
        spec.request().map(|_| spec)
    }
}

impl fmt::Display for GroupSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}: retry {}", self.name, self.retry_max_times)?;
        if self.orderly {
            f.write_str(", orderly")?;
        }
        if self.backoff != Backoff::Default {
            write!(f, ", {}", self.backoff)?;
        }
        if !self.consume_enable {
            f.write_str(", disabled")?;
        }
        self.attributes
            .iter()
            .try_for_each(|(key, value)| write!(f, ", {key}={value}"))
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the server's back-off"),
            Self::Exponential { first, max, factor } => {
                let (first, max) = (format_duration(*first), format_duration(*max));
                write!(f, "back-off {first} to {max}")?;
                match *factor {
                    FACTOR => Ok(()),
                    factor => write!(f, " by {factor}"),
                }
            }
            Self::Steps(steps) => {
                f.write_str("back-off")?;
                steps
                    .iter()
                    .try_for_each(|it| write!(f, " {}", format_duration(*it)))
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read() {
        let read = |it: &str| it.parse::<GroupSpec>().unwrap();
        assert_eq!(read("g"), GroupSpec::new("g"));
        let second = Duration::from_secs(1);
        assert_eq!(
            read("g:retry=0:backoff=1s:disabled"),
            GroupSpec::new("g")
                .retry_max_times(0)
                .backoff(second, second)
                .consume_enable(false)
        );
        assert_eq!(
            read("g:steps=1s,2m:attr.lite.bind.topic=t"),
            GroupSpec::new("g")
                .backoff_steps([second, second * 120])
                .attribute("lite.bind.topic", "t")
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (bad, named) in [
            ("", "not a name"),
            ("g.h", "g.h"),
            ("g:orderli", "orderli"),
            ("g:retry=1001", "1001"),
            ("g:retry=-1", "-1"),
            ("g:backoff=10s-1s", "grow"),
            ("g:backoff=0s-1s", "grow"),
            ("g:backoff=1-10", "duration"),
            ("g:steps=", "duration"),
            ("g:steps=1s,0s", "steps"),
        ] {
            let error = bad.parse::<GroupSpec>().unwrap_err();
            assert!(
                error.is_invalid() && error.to_string().contains(named),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn the_body_is_what_brokers_expect() {
        let body = |spec: &str| {
            let request = spec.parse::<GroupSpec>().unwrap().request().unwrap();
            String::from_utf8(request.body.to_vec()).unwrap()
        };
        assert_eq!(
            body("g"),
            r#"{"groupName":"g","consumeEnable":true,"consumeMessageOrderly":false,"retryMaxTimes":16}"#
        );
        assert_eq!(
            body("g:orderly:retry=3:backoff=1s-10s"),
            r#"{"groupName":"g","consumeEnable":true,"consumeMessageOrderly":true,"retryMaxTimes":3,"groupRetryPolicy":{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":1000,"max":10000,"multiplier":2}}}"#
        );
        assert_eq!(
            body("g:steps=1s,5s:attr.a.b=c"),
            r#"{"groupName":"g","consumeEnable":true,"consumeMessageOrderly":false,"retryMaxTimes":16,"groupRetryPolicy":{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000]}},"attributes":{"+a.b":"c"}}"#
        );
    }
}
