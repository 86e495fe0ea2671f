//! From subscriptions to what each group consumes; clashes are found here.

use std::{collections::BTreeMap, time::Duration};

use super::Lanes;
use crate::{
    DeadLetter, Error, Group, Order, Policy, Result, Subscription, Topic,
    driver::{Capabilities, Consumer, Filter, GroupSpec, TopicSpec},
};

/// What one consumer of one group serves.
pub(crate) struct GroupPlan<L = Box<dyn Lanes>> {
    pub(crate) group: Group,
    pub(crate) invisible: Duration,
    pub(crate) fifo: bool,
    pub(crate) broadcast: bool,
    pub(crate) topics: Vec<TopicPlan<L>>,
}

/// A topic of a group: one filter on the broker, one route per subscription.
pub(crate) struct TopicPlan<L = Box<dyn Lanes>> {
    pub(crate) topic: Topic,
    pub(crate) filter: Filter,
    pub(crate) routes: Vec<(Subscription, L)>,
}

/// Sorts subscriptions by group and topic, with their lanes, or with nothing to be looked at.
pub(crate) fn plan<L>(
    routes: impl IntoIterator<Item = (Subscription, L)>,
    system: &str,
    can: Capabilities,
) -> Result<Vec<GroupPlan<L>>> {
    let mut groups: BTreeMap<Group, BTreeMap<Topic, TopicPlan<L>>> = BTreeMap::new();
    for (subscription, lanes) in routes {
        check(&subscription, system, can)?;
        let topics = groups.entry(subscription.group.clone()).or_default();
        let topic = topics
            .entry(subscription.topic.clone())
            .or_insert_with(|| TopicPlan {
                topic: subscription.topic.clone(),
                filter: Filter::Tags(Vec::new()),
                routes: Vec::new(),
            });
        topic.add(subscription, lanes)?;
    }
    groups
        .into_iter()
        .map(|(group, topics)| GroupPlan::new(group, topics))
        .collect()
}

fn check(subscription: &Subscription, system: &str, can: Capabilities) -> Result<()> {
    let refuse = |what: &str| {
        Err(Error::unsupported(format!(
            "{system} cannot {what}: subscription {subscription}"
        )))
    };
    if subscription.topic.is_empty() || subscription.group.is_empty() {
        return Err(Error::invalid(format!(
            "subscription without a name: {subscription}"
        )));
    }
    #[cfg(feature = "asyncapi")]
    crate::asyncapi::check(subscription)?;
    let never = [
        ("invisible_duration", Some(subscription.invisible)),
        ("max_hold", Some(subscription.max_hold)),
        ("handler_timeout", subscription.handler_timeout),
    ];
    if let Some((what, _)) = never.iter().find(|(_, time)| *time == Some(Duration::ZERO)) {
        return Err(Error::invalid(format!(
            "subscription {subscription}: with a {what} of 0 no message can be handled"
        )));
    }
    match &subscription.filter {
        Filter::All => {}
        Filter::Tags(tags) if tags.is_empty() => {
            return Err(Error::invalid(format!(
                "subscription with an empty list of tags: {subscription}; leave tags out for all"
            )));
        }
        Filter::Tags(_) if can.can_tag_filter() => {}
        Filter::Tags(_) => return refuse("filter by tag"),
        Filter::Sql(_) if can.can_sql_filter() => {}
        Filter::Sql(_) => return refuse("filter by sql"),
    }
    if subscription.fifo {
        if !can.can_order() {
            return refuse("keep messages in order");
        }
        if subscription.order != Order::ByGroup || subscription.order_by.is_some() {
            return Err(Error::invalid(format!(
                "subscription {subscription}: fifo keeps the order of message groups; leave order \
                 out"
            )));
        }
        if !subscription.ordered_policy.is_all_here() {
            return Err(Error::invalid(format!(
                "subscription {subscription}: fifo retries in this process only, its \
                 ordered_policy leaves some to the broker; make it of Policy::ordered()"
            )));
        }
    }
    if subscription.broadcast && !can.can_broadcast() {
        return refuse("give every instance every message (broadcast)");
    }
    match &subscription.dead_letter {
        DeadLetter::Native if !can.can_dead_letter() => {
            return refuse("dead-letter messages (name a topic: DeadLetter::topic)");
        }
        DeadLetter::Topic(topic) if topic.is_empty() || *topic == subscription.topic => {
            return Err(Error::invalid(format!(
                "subscription {subscription}: its dead letters would come back to it; give \
                 DeadLetter::topic another topic"
            )));
        }
        _ => {}
    }
    if subscription
        .rate_limit
        .is_some_and(|limit| limit.per.is_zero())
    {
        return Err(Error::invalid(format!(
            "subscription {subscription}: a rate limit over a time of 0 limits nothing"
        )));
    }
    if subscription
        .kill_switch
        .as_ref()
        .is_some_and(|switch| switch.pause.is_zero())
    {
        return Err(Error::invalid(format!(
            "subscription {subscription}: a kill switch with a pause of 0 pauses nothing"
        )));
    }
    Ok(())
}

// === impl GroupPlan ===

impl<L> GroupPlan<L> {
    fn new(group: Group, topics: BTreeMap<Topic, TopicPlan<L>>) -> Result<Self> {
        let topics: Vec<_> = topics.into_values().collect();
        let routes = || topics.iter().flat_map(|topic| &topic.routes);
        let invisible = routes().map(|(s, _)| s.invisible).max().unwrap_or_default();
        let (fifo, broadcast) = routes()
            .next()
            .map_or((false, false), |(s, _)| (s.fifo, s.broadcast));
        for (what, differs) in [
            ("fifo", routes().find(|(s, _)| s.fifo != fifo)),
            (
                "broadcast",
                routes().find(|(s, _)| s.broadcast != broadcast),
            ),
        ] {
            if let Some((other, _)) = differs {
                return Err(Error::invalid(format!(
                    "some subscriptions of group {group} are {what}, others are not ({other}): \
                     a group is so as a whole"
                )));
            }
        }
        Ok(Self {
            group,
            invisible,
            fifo,
            broadcast,
            topics,
        })
    }

    /// Refuses subscriptions that ask for more attempts than the broker gives.
    pub(crate) fn check_attempts<C: Consumer>(&self, system: &str, consumer: &C) -> Result<()> {
        let Some(limit) = consumer.attempts_limit() else {
            return Ok(());
        };
        let routes = self.topics.iter().flat_map(|topic| &topic.routes);
        for (subscription, _) in routes {
            let ordered = Some(&subscription.ordered_policy).filter(|_| !subscription.fifo);
            let policies = [Some(&subscription.policy), ordered];
            let asked = policies.into_iter().flatten();
            let Some(asked) = asked.filter_map(Policy::chosen_attempts).max() else {
                continue;
            };
            if asked > limit {
                let raise = consumer.how_to_raise_attempts(asked);
                let raise = raise.unwrap_or_else(|| "raise the group's limit there".to_owned());
                return Err(Error::invalid(format!(
                    "subscription {subscription}: its policy asks for {asked} attempts, the group \
                     has {limit} on {system}: lower max_attempts, or {raise}"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn spec(&self) -> GroupSpec {
        let topics = self.topics.iter();
        let topics = topics
            .map(|t| TopicSpec::new(t.topic.clone(), t.filter.clone()))
            .collect();
        GroupSpec::new(self.group.clone(), topics, self.invisible)
            .fifo(self.fifo)
            .broadcast(self.broadcast)
    }
}

// === impl TopicPlan ===

impl<L> TopicPlan<L> {
    fn add(&mut self, subscription: Subscription, lanes: L) -> Result<()> {
        if let Some((other, _)) = self.routes.iter().find(|(s, _)| overlap(s, &subscription)) {
            let topic = &self.topic;
            return Err(Error::invalid(format!(
                "two subscriptions would get the same message: ({other}) and ({subscription}); \
                 give them other groups, or disjoint tags of topic {topic}"
            )));
        }
        self.filter = match (&self.filter, &subscription.filter) {
            (Filter::Tags(ours), Filter::Tags(more)) => Filter::tags(ours.iter().chain(more)),
            (_, whole) => whole.clone(),
        };
        self.routes.push((subscription, lanes));
        Ok(())
    }
}

/// Whether a message may belong to both. Only two sets of tags can be told apart.
fn overlap(a: &Subscription, b: &Subscription) -> bool {
    match (&a.filter, &b.filter) {
        (Filter::Tags(a), Filter::Tags(b)) => a.iter().any(|tag| b.contains(tag)),
        _ => true,
    }
}
