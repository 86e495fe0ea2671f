//! Groups: create, delete, list, show.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    cluster::Master,
    code,
    error::{Error, Result},
    frame::Frame,
    group::{Group, GroupSpec, WireGroup},
    names,
};

use super::{
    Admin,
    servers::{Pages, parse},
};

const GROUPS: Pages = Pages {
    code: code::ALL_GROUPS,
    table: "subscriptionGroupTable",
    start: "groupSeq",
    max: "maxGroupNum",
    total: "totalGroupNum",
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopicsOfGroup {
    #[serde(default)]
    topic_list: BTreeSet<String>,
}

impl Admin {
    /// Creates a consumer group on every master broker, or changes it to this.
    ///
    /// A change replaces every setting, only attributes that are not named stay. Brokers know it at
    /// once; a proxy goes on with the old settings of a group for up to 20 s.
    ///
    /// # Errors
    ///
    /// `is_invalid` before anything is sent if the spec cannot be right; what a broker refuses, such
    /// as an attribute that it does not know.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// use rocketmq_admin::{Admin, GroupSpec};
    ///
    /// # async fn run() -> rocketmq_admin::Result<()> {
    /// let admin = Admin::new("127.0.0.1:9876")?;
    /// let spec = GroupSpec::new("billing")
    ///     .retry_max_times(3)
    ///     .backoff(Duration::from_secs(1), Duration::from_secs(10));
    /// admin.create_group(&spec).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_group(&self, spec: &GroupSpec) -> Result<()> {
        let operation = format!("create group {}", spec.name());
        let request = spec.request().map_err(|it| it.within(&operation))?;
        let masters = self.masters(&operation).await?;
        self.every_broker(&operation, &masters, &request).await?;
        Ok(())
    }

    /// Deletes a consumer group from every master broker, with its offsets and the topics that hold
    /// its retries. Its dead letters, the topic `%DLQ%<group>`, stay.
    ///
    /// A group that is not there is no error: the servers do not tell.
    ///
    /// # Errors
    ///
    /// `is_invalid` for a name that can be none.
    pub async fn delete_group(&self, name: &str) -> Result<()> {
        let operation = format!("delete group {name}");
        names::group(name).map_err(|it| it.within(&operation))?;
        let masters = self.masters(&operation).await?;
        // Asked first: the offsets are how a broker knows the topics of a group.
        let retries = self.retry_topics(&operation, &masters, name).await?;
        let request = Frame::request(code::DELETE_GROUP)
            .field("groupName", name)
            .field("cleanOffset", "true");
        self.every_broker(&operation, &masters, &request).await?;
        for topic in retries {
            self.remove_topic(&operation, &topic).await?;
        }
        Ok(())
    }

    /// Every consumer group of every master broker, by name, the brokers' own ones included.
    ///
    /// # Errors
    ///
    /// A broker did not answer: no list is better than one with holes.
    pub async fn groups(&self) -> Result<Vec<Group>> {
        let operation = "list groups";
        let masters = self.masters(operation).await?;
        self.groups_of(operation, &masters).await
    }

    /// A consumer group.
    ///
    /// It is looked up in the brokers' lists: asked for one group, a broker that makes groups by
    /// itself would make it.
    ///
    /// # Errors
    ///
    /// `is_not_found` if no broker knows it.
    pub async fn group(&self, name: &str) -> Result<Group> {
        let operation = format!("show group {name}");
        names::group(name).map_err(|it| it.within(&operation))?;
        let masters = self.masters(&operation).await?;
        self.known_group(&operation, &masters, name).await
    }

    pub(super) async fn known_group(
        &self,
        operation: &str,
        masters: &[Master],
        name: &str,
    ) -> Result<Group> {
        let groups = self.groups_of(operation, masters).await?;
        groups
            .into_iter()
            .find(|it| it.name == name)
            .ok_or_else(|| Error::not_found(operation, format!("there is no group {name}")))
    }

    async fn groups_of(&self, operation: &str, masters: &[Master]) -> Result<Vec<Group>> {
        let lists = self.every_list(operation, masters, &GROUPS).await?;
        let mut groups: BTreeMap<String, (WireGroup, Group)> = BTreeMap::new();
        for (broker, list) in lists {
            for (name, wire) in list {
                match groups.get_mut(&name) {
                    Some((first, group)) => {
                        if *first != wire {
                            group.different_at.push(broker.clone());
                        }
                        group.brokers.push(broker.clone());
                    }
                    None => {
                        let group = Group::new(name.clone(), broker.clone(), wire.clone());
                        groups.insert(name, (wire, group));
                    }
                }
            }
        }
        Ok(groups.into_values().map(|(_, group)| group).collect())
    }

    /// Topics in which brokers know how far a group has come, by broker.
    pub(super) async fn topics_of_group(
        &self,
        operation: &str,
        masters: &[Master],
        group: &str,
    ) -> Result<Vec<(String, BTreeSet<String>)>> {
        let request = Frame::request(code::TOPICS_OF_GROUP).field("group", group);
        let answers = self.every_broker(operation, masters, &request).await?;
        let topics = answers.into_iter().map(|(broker, answer)| {
            let topics = parse::<TopicsOfGroup>(operation, &answer)?;
            Ok((broker, topics.topic_list))
        });
        topics.collect()
    }

    /// Topics with retries of this group and of no other.
    async fn retry_topics(
        &self,
        operation: &str,
        masters: &[Master],
        group: &str,
    ) -> Result<BTreeSet<String>> {
        let topics = match self.topics_of_group(operation, masters, group).await {
            // Brokers of 4.x, where each group has one topic for its retries.
            Err(error) if error.is_unsupported() => Vec::new(),
            topics => topics?,
        };
        let topics: BTreeSet<_> = topics.into_iter().flat_map(|(_, topics)| topics).collect();
        let existing: BTreeSet<_> = self.topics().await?.into_iter().map(|it| it.name).collect();
        let mut retries: BTreeSet<_> = topics
            .iter()
            .flat_map(|topic| retries_of(group, topic))
            .chain([format!("%RETRY%{group}")])
            .filter(|it| existing.contains(it))
            .collect();
        // `%RETRY%a_b` are the retries of topic `b` in group `a`, or those of a group `a_b`.
        for other in self.groups_of(operation, masters).await? {
            if other.name != group {
                retries.remove(&format!("%RETRY%{}", other.name));
            }
        }
        Ok(retries)
    }
}

/// Names that the retries of a topic have in a group: of brokers by default, and with
/// `enableRetryTopicV2`.
pub(super) fn retries_of(group: &str, topic: &str) -> [String; 2] {
    [
        format!("%RETRY%{group}_{topic}"),
        format!("%RETRY%{group}+{topic}"),
    ]
}
