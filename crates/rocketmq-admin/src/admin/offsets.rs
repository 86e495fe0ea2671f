//! How far groups have come, and setting it anew.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    cluster::Master,
    code,
    error::Result,
    frame::Frame,
    lag::{Lag, OffsetTable, Queue, QueueLag, WireLag, offset},
    names,
};

use super::{Admin, groups::retries_of, servers::parse};

/// Where a group shall go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// At the oldest message that is kept.
    Start,
    /// Behind the newest message: what waits is skipped.
    End,
    /// At the first message stored at this time or later; at the end if there is none.
    Time(SystemTime),
}

impl Admin {
    /// How far a group has come, in every topic that it has consumed from.
    ///
    /// A topic that it subscribed to and was never given a message of is not listed: name it, with
    /// [`lag_of_topic`](Self::lag_of_topic). See [`Lag`] for what counts as consumed.
    ///
    /// # Errors
    ///
    /// `is_not_found` if there is no such group.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rocketmq_admin::Admin;
    ///
    /// # async fn run() -> rocketmq_admin::Result<()> {
    /// let admin = Admin::new("127.0.0.1:9876")?;
    /// let lag = admin.lag("billing").await?;
    /// for it in &lag.queues {
    ///     println!("{} {} {}: {}", it.queue.topic, it.queue.broker, it.queue.id, it.lag());
    /// }
    /// println!("{} in all", lag.total());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn lag(&self, group: &str) -> Result<Lag> {
        let operation = format!("show the lag of group {group}");
        names::group(group).map_err(|it| it.within(&operation))?;
        let masters = self.masters(&operation).await?;
        // Brokers answer with an empty table for a group that is not there.
        self.known_group(&operation, &masters, group).await?;
        let request = Frame::request(code::CONSUME_STATS).field("consumerGroup", group);
        let mut queues = BTreeMap::new();
        for (_, answer) in self.every_broker(&operation, &masters, &request).await? {
            queues.extend(parse::<OffsetTable<WireLag>>(&operation, &answer)?.offset_table);
        }
        Ok(collect(queues))
    }

    /// How far a group has come in one topic, with the topics that hold its retries.
    ///
    /// A group that never consumed has offset 0 everywhere.
    ///
    /// # Errors
    ///
    /// `is_not_found` if there is no such group or topic.
    pub async fn lag_of_topic(&self, group: &str, topic: &str) -> Result<Lag> {
        let operation = format!("show the lag of group {group} in topic {topic}");
        names::group(group)
            .and_then(|()| names::topic(topic))
            .map_err(|it| it.within(&operation))?;
        let masters = self.route(&operation, topic).await?.masters();
        self.known_group(&operation, &masters, group).await?;
        self.stats_of(&operation, &masters, (group, topic)).await
    }

    /// The same for a group that is there, as its own members know: nobody is asked whether it is,
    /// which takes the list of all groups. For who asks again and again.
    ///
    /// # Errors
    ///
    /// `is_not_found` if there is no such topic. A group that is not there has offset 0 everywhere.
    pub async fn lag_of_member(&self, group: &str, topic: &str) -> Result<Lag> {
        let operation = format!("show the lag of group {group} in topic {topic}");
        names::group(group)
            .and_then(|()| names::topic(topic))
            .map_err(|it| it.within(&operation))?;
        let masters = self.route(&operation, topic).await?.masters();
        self.stats_of(&operation, &masters, (group, topic)).await
    }

    /// How far a group has come in a topic and those that hold its retries.
    async fn stats_of(
        &self,
        operation: &str,
        masters: &[Master],
        (group, topic): (&str, &str),
    ) -> Result<Lag> {
        let mut queues = BTreeMap::new();
        let [one, two] = retries_of(group, topic);
        for topic in [topic, &one, &two] {
            let request = Frame::request(code::CONSUME_STATS)
                .field("consumerGroup", group)
                .field("topic", topic);
            for (_, answer) in self.every_broker(operation, masters, &request).await? {
                queues.extend(parse::<OffsetTable<WireLag>>(operation, &answer)?.offset_table);
            }
        }
        Ok(collect(queues))
    }

    /// Sets how far a group has come in every queue of a topic; answers the new offsets.
    ///
    /// Brokers of 5.x do it themselves, at once, for consumers over gRPC, POP and pull alike: what
    /// lies behind the new position comes again, acknowledged or held by a consumer or not, and what
    /// lies before it is skipped. Messages that wait in the group's retry topics still come. Brokers
    /// of 4.x only tell consumers that are connected, and answer what they told them.
    ///
    /// # Errors
    ///
    /// `is_not_found` if there is no such group or topic.
    pub async fn reset_offset(
        &self,
        group: &str,
        topic: &str,
        to: Position,
    ) -> Result<BTreeMap<Queue, u64>> {
        let operation = format!("reset group {group} in topic {topic}");
        names::group(group)
            .and_then(|()| names::topic(topic))
            .map_err(|it| it.within(&operation))?;
        let masters = self.route(&operation, topic).await?.masters();
        self.reset_at(&operation, &masters, (group, topic), to)
            .await
    }

    /// Sets where a group begins in a topic, at each broker that does not know how far it has come
    /// there; answers the offsets that were set, none if all brokers knew.
    ///
    /// A group that is new to a topic begins at the topic's end otherwise. May be repeated: what the
    /// group has read since does not come again.
    ///
    /// # Errors
    ///
    /// `is_not_found` if there is no such group or topic; `is_unsupported` at brokers of 4.x.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rocketmq_admin::{Admin, GroupSpec, Position};
    ///
    /// # async fn run() -> rocketmq_admin::Result<()> {
    /// let admin = Admin::new("127.0.0.1:9876")?;
    /// admin.create_group(&GroupSpec::new("audit")).await?;
    /// admin.init_offset("audit", "orders", Position::Start).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn init_offset(
        &self,
        group: &str,
        topic: &str,
        to: Position,
    ) -> Result<BTreeMap<Queue, u64>> {
        let operation = format!("set where group {group} begins in topic {topic}");
        names::group(group)
            .and_then(|()| names::topic(topic))
            .map_err(|it| it.within(&operation))?;
        let mut masters = self.route(&operation, topic).await?.masters();
        let known = self.topics_of_group(&operation, &masters, group).await?;
        let knows = |broker: &str| {
            known
                .iter()
                .any(|(name, it)| name == broker && it.contains(topic))
        };
        masters.retain(|master| !knows(&master.name));
        self.reset_at(&operation, &masters, (group, topic), to)
            .await
    }

    async fn reset_at(
        &self,
        operation: &str,
        masters: &[Master],
        (group, topic): (&str, &str),
        to: Position,
    ) -> Result<BTreeMap<Queue, u64>> {
        let request = Frame::request(code::RESET_OFFSET)
            .field("topic", topic)
            .field("group", group)
            .field("timestamp", to.millis().to_string())
            // Without it, old brokers leave alone what lies behind the new position.
            .field("isForce", "true");
        let mut offsets = BTreeMap::new();
        for (_, answer) in self.every_broker(operation, masters, &request).await? {
            let table: OffsetTable<i64> = parse(operation, &answer)?;
            let table = table.offset_table.into_iter();
            offsets.extend(table.map(|(queue, it)| (queue, offset(it))));
        }
        Ok(offsets)
    }
}

impl Position {
    /// The server's word for it: milliseconds, where -1 is the end.
    fn millis(self) -> i64 {
        match self {
            Self::Start => 0,
            Self::End => -1,
            Self::Time(time) => time
                .duration_since(UNIX_EPOCH)
                .map_or(0, |it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

fn collect(queues: BTreeMap<Queue, WireLag>) -> Lag {
    let queue = |(queue, wire): (Queue, WireLag)| QueueLag::new(queue, &wire);
    Lag {
        queues: queues.into_iter().map(queue).collect(),
    }
}
