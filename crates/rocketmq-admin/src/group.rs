//! Consumer groups: what to create, and what is there.

mod spec;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::spec::GroupSpec;

/// A consumer group as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    pub name: String,
    /// False if its consumers are given nothing.
    pub consume_enable: bool,
    /// True if the messages of a queue are handed out in order.
    pub orderly: bool,
    /// How often a message comes again; it is handed out once more than this at most.
    pub retry_max_times: i32,
    /// How long it takes until a failed message comes again.
    pub backoff: Backoff,
    /// Attributes, such as `lite.bind.topic`.
    pub attributes: BTreeMap<String, String>,
    /// Brokers that know the group, in order.
    pub brokers: Vec<String>,
    /// Those of them where it is set up otherwise than on the first.
    pub different_at: Vec<String>,
}

/// How long it takes until a failed message comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backoff {
    /// The server's steps: 10 s, 30 s, 1 m … 2 h.
    Default,
    /// From `first`, by `factor` each time, to `max`.
    Exponential {
        /// Before the second delivery.
        first: Duration,
        /// Never more than this.
        max: Duration,
        /// Multiplier, 2 or more to grow.
        factor: u32,
    },
    /// One step after the other; the last one holds on.
    Steps(Vec<Duration>),
}

/// A group's settings on one broker, on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireGroup {
    #[serde(default = "yes")]
    consume_enable: bool,
    #[serde(default)]
    consume_message_orderly: bool,
    #[serde(default)]
    retry_max_times: i32,
    #[serde(default)]
    group_retry_policy: Option<WireBackoff>,
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireBackoff {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exponential_retry_policy: Option<WireExponential>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customized_retry_policy: Option<WireSteps>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireExponential {
    initial: u64,
    max: u64,
    multiplier: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireSteps {
    next: Vec<u64>,
}

// === impl Group ===

impl Group {
    pub(crate) fn new(name: String, broker: String, wire: WireGroup) -> Self {
        Self {
            name,
            consume_enable: wire.consume_enable,
            orderly: wire.consume_message_orderly,
            retry_max_times: wire.retry_max_times,
            backoff: wire.group_retry_policy.unwrap_or_default().into(),
            attributes: wire.attributes.unwrap_or_default(),
            brokers: vec![broker],
            different_at: Vec::new(),
        }
    }

    /// True for a group that the brokers make for themselves.
    #[must_use]
    pub fn is_system(&self) -> bool {
        const NAMES: [&str; 4] = [
            "TOOLS_CONSUMER",
            "FILTERSRV_CONSUMER",
            "SELF_TEST_C_GROUP",
            "CID_RMQ_SYS_TRANS",
        ];
        NAMES.contains(&self.name.as_str())
            || ["CID_ONS", "CID_RMQ_SYS_", "CID_SYS_RMQ_TRANS"]
                .iter()
                .any(|it| self.name.starts_with(it))
    }
}

impl From<WireBackoff> for Backoff {
    fn from(wire: WireBackoff) -> Self {
        match (wire.exponential_retry_policy, wire.customized_retry_policy) {
            (Some(it), _) if wire.kind == "EXPONENTIAL" => Self::Exponential {
                first: Duration::from_millis(it.initial),
                max: Duration::from_millis(it.max),
                factor: u32::try_from(it.multiplier).unwrap_or(u32::MAX),
            },
            (_, Some(it)) => Self::Steps(it.next.into_iter().map(Duration::from_millis).collect()),
            _ => Self::Default,
        }
    }
}

fn yes() -> bool {
    true
}
