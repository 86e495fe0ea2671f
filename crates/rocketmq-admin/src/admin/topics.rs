//! Topics: create, delete, list, show, wait for.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    cluster::Route,
    code,
    error::{Error, Kind, Result},
    frame::Frame,
    lag::{OffsetTable, WireStats, offset, time},
    names,
    topic::{QueueStats, Topic, TopicDetail, TopicSpec, WireTopic},
};

use super::{
    Admin,
    servers::{Pages, parse},
};

const TOPICS: Pages = Pages {
    code: code::ALL_TOPICS,
    table: "topicConfigTable",
    start: "topicSeq",
    max: "maxTopicNum",
    total: "totalTopicNum",
};

/// How often a name server is asked whether it knows a topic.
const POLL: Duration = Duration::from_millis(100);

impl Admin {
    /// Creates a topic on every master broker, or changes it to this.
    ///
    /// Brokers tell name servers a moment later: [`wait_for_topic`](Self::wait_for_topic).
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
    /// use rocketmq_admin::{Admin, MessageType, TopicSpec};
    ///
    /// # async fn run() -> rocketmq_admin::Result<()> {
    /// let admin = Admin::new("127.0.0.1:9876")?;
    /// let spec = TopicSpec::new("orders").message_type(MessageType::Fifo).queues(8);
    /// admin.create_topic(&spec).await?;
    /// admin.wait_for_topic("orders", Duration::from_secs(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        let operation = format!("create topic {}", spec.name());
        let request = spec.request().map_err(|it| it.within(&operation))?;
        let masters = self.masters(&operation).await?;
        self.every_broker(&operation, &masters, &request).await?;
        Ok(())
    }

    /// Deletes a topic with its messages from every master broker and every name server.
    ///
    /// A topic that is not there is no error: the servers do not tell. The topics that hold retries
    /// of it for groups that exist go with it.
    ///
    /// # Errors
    ///
    /// `is_invalid` for a name that can be none and for a topic of the brokers' own.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let operation = format!("delete topic {name}");
        names::topic(name).map_err(|it| it.within(&operation))?;
        self.remove_topic(&operation, name).await
    }

    pub(super) async fn remove_topic(&self, operation: &str, name: &str) -> Result<()> {
        let masters = self.masters(operation).await?;
        let request = Frame::request(code::DELETE_TOPIC_AT_BROKER).field("topic", name);
        self.every_broker(operation, &masters, &request).await?;
        // After the brokers, which would register it again.
        let request = Frame::request(code::DELETE_TOPIC_AT_NAME_SERVER).field("topic", name);
        self.every_name_server(operation, &request).await
    }

    /// Every topic of every master broker, by name, the brokers' own ones included.
    ///
    /// # Errors
    ///
    /// A broker did not answer: no list is better than one with holes.
    pub async fn topics(&self) -> Result<Vec<Topic>> {
        let operation = "list topics";
        let masters = self.masters(operation).await?;
        let lists = self.every_list(operation, &masters, &TOPICS).await?;
        let mut topics: BTreeMap<String, (WireTopic, Topic)> = BTreeMap::new();
        for (broker, list) in lists {
            for (name, wire) in list {
                match topics.get_mut(&name) {
                    Some((first, topic)) => {
                        if *first != wire {
                            topic.different_at.push(broker.clone());
                        }
                        topic.brokers.push(broker.clone());
                    }
                    None => {
                        let topic = Topic::new(name.clone(), broker.clone(), wire.clone());
                        topics.insert(name, (wire, topic));
                    }
                }
            }
        }
        Ok(topics.into_values().map(|(_, topic)| topic).collect())
    }

    /// A topic, its route and what its queues hold.
    ///
    /// # Errors
    ///
    /// `is_not_found` if no name server or no broker knows it.
    pub async fn topic(&self, name: &str) -> Result<TopicDetail> {
        let operation = format!("show topic {name}");
        names::topic(name).map_err(|it| it.within(&operation))?;
        let route = self.route(&operation, name).await?;
        let masters = route.masters();
        let request = Frame::request(code::TOPIC_STATS).field("topic", name);
        let mut queues = Vec::new();
        for (_, answer) in self.every_broker(&operation, &masters, &request).await? {
            let table: OffsetTable<WireStats> = parse(&operation, &answer)?;
            queues.extend(
                table
                    .offset_table
                    .into_iter()
                    .map(|(queue, it)| QueueStats {
                        queue,
                        min_offset: offset(it.min_offset),
                        max_offset: offset(it.max_offset),
                        updated_at: time(it.last_update_timestamp),
                    }),
            );
        }
        queues.sort_by(|a, b| a.queue.cmp(&b.queue));
        let topics = self.topics().await.map_err(|it| it.within(&operation))?;
        let topic = topics
            .into_iter()
            .find(|it| it.name == name)
            .ok_or_else(|| Error::not_found(&operation, "no broker has it"))?;
        Ok(TopicDetail {
            topic,
            route,
            queues,
        })
    }

    /// Waits until every name server that answers knows a broker for the topic.
    ///
    /// # Errors
    ///
    /// `is_timeout` once `within` is over; its source is what the name servers said last.
    pub async fn wait_for_topic(&self, name: &str, within: Duration) -> Result<Route> {
        let operation = format!("wait for topic {name}");
        names::topic(name).map_err(|it| it.within(&operation))?;
        let mut last = None;
        let wait = async {
            loop {
                match seen(self.routes(&operation, name).await) {
                    Ok(route) => return route,
                    Err(error) => last = error,
                }
                sleep(POLL).await;
            }
        };
        match timeout(within, wait).await {
            Ok(route) => Ok(route),
            Err(_) => {
                let message = format!("no route within {within:?}");
                let error = Error::new(Kind::Timeout, &operation, message);
                Err(match last {
                    Some(cause) => error.with_source(cause),
                    None => error,
                })
            }
        }
    }
}

/// The route, once it is at every name server that answers.
fn seen(routes: Vec<Result<Route>>) -> std::result::Result<Route, Option<Error>> {
    let (mut found, mut silent) = (None, None);
    for route in routes {
        match route {
            Ok(route) if route.brokers.is_empty() => return Err(None),
            Ok(route) => found = Some(route),
            Err(error) if error.is_not_found() => return Err(Some(error)),
            Err(error) => silent = Some(error),
        }
    }
    found.ok_or(silent)
}
