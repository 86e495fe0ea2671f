//! What RocketMQ knows beyond AsyncAPI's words: the content of `x-rocketmq`.

use kratos_broker::{
    DeadLetter,
    asyncapi::{Part, PublisherPart, SubscriptionPart, TopicPart},
    driver::Filter,
};
use serde_json::{Map, Value, json};

use crate::dead_letter_topic;

/// Of a part; `transactional` knows the topics that are sent to in transactions.
pub(crate) fn extension(
    namespace: &str,
    transactional: impl Fn(&str) -> bool,
    part: Part<'_>,
) -> Option<Value> {
    match part {
        Part::Server => (!namespace.is_empty()).then(|| json!({ "namespace": namespace })),
        Part::Topic(part) => topic_type(&part, transactional).map(|it| json!({ "topicType": it })),
        Part::Subscription(part) => Some(subscription(&part)),
        Part::Publisher(part) => publisher(&part),
        _ => None,
    }
}

/// Where the service says enough to know it.
fn topic_type(part: &TopicPart<'_>, transactional: impl Fn(&str) -> bool) -> Option<&'static str> {
    if transactional(part.topic) {
        Some("TRANSACTION")
    } else {
        part.ordered.then_some("FIFO")
    }
}

fn subscription(part: &SubscriptionPart<'_>) -> Value {
    let (kind, expression) = match part.filter {
        Filter::Sql(expression) => ("SQL92", expression.clone()),
        tags => ("TAG", tags.to_string()),
    };
    let model = if part.broadcast {
        "broadcasting"
    } else {
        "clustering"
    };
    let mut said = json!({
        "consumerGroup": part.group,
        "consumptionModel": model,
        "filter": { "type": kind, "expression": expression },
        "maxAttempts": part.max_attempts,
        "invisibleDurationSeconds": part.invisible.as_secs_f64(),
    });
    if let DeadLetter::Native = part.dead_letter {
        said["deadLetter"] = dead_letter_topic(part.group).as_str().into();
    }
    said
}

fn publisher(part: &PublisherPart<'_>) -> Option<Value> {
    let mut said = Map::new();
    if let Some(tag) = part.tag {
        said.insert("tag".to_owned(), tag.into());
    }
    for (name, is) in [("keys", part.keyed), ("messageGroup", part.grouped)] {
        if is {
            said.insert(name.to_owned(), true.into());
        }
    }
    (!said.is_empty()).then(|| said.into())
}
