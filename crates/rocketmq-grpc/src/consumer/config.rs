//! What a consumer is told.

use std::time::Duration;

use crate::{
    Error, Filter,
    message::{INVISIBLE_MAX, validate_name},
};

/// Receives per broker and topic while there is a backlog.
const RECEIVES_DEFAULT: usize = 4;
const RECEIVES_MAX: usize = 64;

/// A group and its topics.
///
/// All members of a group must subscribe alike: the server keeps one subscription per group.
///
/// ```
/// use std::time::Duration;
/// use rocketmq_grpc::{ConsumerConfig, Filter};
///
/// let config = ConsumerConfig::new("billing")
///     .subscribe("orders", Filter::tags("created || paid"))
///     .subscribe("refunds", Filter::all())
///     .invisible_duration(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsumerConfig {
    pub(super) group: String,
    pub(super) subscriptions: Vec<(String, Filter)>,
    pub(super) invisible_duration: Duration,
    pub(super) long_polling_timeout: Duration,
    pub(super) receives_max: usize,
}

impl ConsumerConfig {
    /// A group without topics yet.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            subscriptions: Vec::new(),
            invisible_duration: Duration::from_secs(30),
            long_polling_timeout: Duration::from_secs(20),
            receives_max: RECEIVES_DEFAULT,
        }
    }

    /// Adds a topic.
    pub fn subscribe(mut self, topic: impl Into<String>, filter: Filter) -> Self {
        self.subscriptions.push((topic.into(), filter));
        self
    }

    /// Length of a lease, 30 s by default, from 10 s to 12 h. It is also how long the messages of a
    /// process that crashed stay away.
    pub fn invisible_duration(mut self, duration: Duration) -> Self {
        self.invisible_duration = duration;
        self
    }

    /// Longest wait of a receive for the first message, 20 s by default. The proxy makes it at
    /// least 5 s and at most 20 s.
    pub fn long_polling_timeout(mut self, timeout: Duration) -> Self {
        self.long_polling_timeout = timeout;
        self
    }

    /// Receives at once for each broker of a topic while there is a backlog, 4 by default; without
    /// one there is a single long poll.
    pub fn receives_max(mut self, receives: usize) -> Self {
        self.receives_max = receives;
        self
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.subscriptions
            .iter()
            .map(|(topic, _)| topic.clone())
            .collect()
    }

    pub(crate) fn lease_duration(&self) -> Duration {
        self.invisible_duration
    }

    pub(super) fn validate(&self, invisible_min: Duration) -> Result<(), Error> {
        validate_name("group", &self.group)?;
        if self.subscriptions.is_empty() {
            return Err(Error::config(format!(
                "group {} subscribes to no topic",
                self.group
            )));
        }
        for (n, (topic, filter)) in self.subscriptions.iter().enumerate() {
            validate_name("topic", topic)?;
            filter.validate(topic)?;
            if self.subscriptions[..n]
                .iter()
                .any(|(earlier, _)| earlier == topic)
            {
                return Err(Error::config(format!(
                    "group {} subscribes to topic {topic} twice: tags can be joined with `||`",
                    self.group
                )));
            }
        }
        if !(invisible_min..=INVISIBLE_MAX).contains(&self.invisible_duration) {
            return Err(Error::config(format!(
                "invisible_duration of group {} is {:?}, the server takes {invisible_min:?} to 12 h",
                self.group, self.invisible_duration
            )));
        }
        if self.receives_max == 0 || self.receives_max > RECEIVES_MAX {
            return Err(Error::config(format!(
                "receives_max must be from 1 to {RECEIVES_MAX}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::INVISIBLE_MIN;

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let config = || ConsumerConfig::new("g").subscribe("t", Filter::all());
        config().validate(INVISIBLE_MIN).unwrap();
        let cases = [
            (ConsumerConfig::new("g"), "no topic"),
            (
                ConsumerConfig::new("a.b").subscribe("t", Filter::all()),
                "no name",
            ),
            (config().subscribe("t", Filter::tags("a")), "twice"),
            (config().subscribe("u", Filter::tags("a | b")), "filter"),
            (config().invisible_duration(Duration::from_secs(9)), "10s"),
            (config().receives_max(0), "receives_max"),
        ];
        for (config, reason) in cases {
            let error = config.validate(INVISIBLE_MIN).unwrap_err();
            assert!(
                error.is_invalid() && error.to_string().contains(reason),
                "{error}"
            );
        }
    }
}
