//! What a consumer joins.

use std::{fmt, time::Duration};

use crate::{Group, Topic};

/// A group and everything it consumes in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupSpec {
    /// The group.
    pub group: Group,
    /// Its topics, each once.
    pub topics: Vec<TopicSpec>,
    /// For how long a received message stays invisible to others unless extended.
    pub invisible: Duration,
    /// The group consumes in order; the driver refuses a group that the broker keeps otherwise, in
    /// both directions, and says how to mend it.
    pub fifo: bool,
    /// Every member gets every message, from now on: the driver joins with a group of its own, and
    /// removes it when the consumer is closed.
    pub broadcast: bool,
}

/// One topic of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSpec {
    /// The topic.
    pub topic: Topic,
    /// The filters of all subscriptions to the topic, merged: what the broker is to deliver.
    pub filter: Filter,
}

/// Which messages of a topic are delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filter {
    /// All of them.
    #[default]
    All,
    /// Those with one of these tags; sorted, each once.
    Tags(Vec<String>),
    /// Those whose headers satisfy an expression in the broker's SQL.
    Sql(String),
}

// === impl GroupSpec ===

impl GroupSpec {
    /// A group of these topics.
    pub fn new(group: impl Into<Group>, topics: Vec<TopicSpec>, invisible: Duration) -> Self {
        Self {
            group: group.into(),
            topics,
            invisible,
            fifo: false,
            broadcast: false,
        }
    }

    /// Sets whether the group consumes in order.
    #[must_use]
    pub fn fifo(mut self, fifo: bool) -> Self {
        self.fifo = fifo;
        self
    }

    /// Sets whether every member gets every message.
    #[must_use]
    pub fn broadcast(mut self, broadcast: bool) -> Self {
        self.broadcast = broadcast;
        self
    }
}

// === impl TopicSpec ===

impl TopicSpec {
    /// A topic with a filter.
    pub fn new(topic: impl Into<Topic>, filter: Filter) -> Self {
        Self {
            topic: topic.into(),
            filter,
        }
    }
}

// === impl Filter ===

impl Filter {
    /// Messages with one of these tags.
    pub fn tags<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> Self {
        let mut tags: Vec<String> = tags.into_iter().map(Into::into).collect();
        tags.sort_unstable();
        tags.dedup();
        Self::Tags(tags)
    }

    /// Whether a message with this tag passes; `true` for SQL, which only the broker can tell.
    #[must_use]
    #[inline]
    pub fn accepts_tag(&self, tag: Option<&str>) -> bool {
        match self {
            Self::All | Self::Sql(_) => true,
            Self::Tags(tags) => tag.is_some_and(|tag| tags.iter().any(|t| t == tag)),
        }
    }
}

/// As people write it: `*`, `a || b`, or the expression.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Tags(tags) => f.write_str(&tags.join(" || ")),
            Self::Sql(expression) => f.write_str(expression),
        }
    }
}
