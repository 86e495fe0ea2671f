//! Resources with a namespace.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Part, Topic, group, seconds, topic};
use crate::matches_real_server::{
    caller::{ask, message, resource, subscribed, subscription},
    scene::Scene,
};

const T: &str = "namespace-t";
const G: &str = "namespace-g";
const TOPICS: &[Topic] = &[topic(T, TopicType::Normal, 1)];

pub(crate) const PART: Part = Part {
    name: "namespace",
    topics: TOPICS,
    groups: &[group(G)],
    run: |s| Box::pin(run(s)),
};

fn elsewhere(name: &str) -> Option<v2::Resource> {
    Some(v2::Resource {
        resource_namespace: "elsewhere".to_owned(),
        ..resource(name).unwrap()
    })
}

/// Whatever the namespace is, topics and groups are the same.
async fn run(s: &mut Scene) {
    let by = s.producer("p", &[T]).await;
    let mut consumer = s.stranger("c");
    let settings = subscribed(subscription(T, G), |s| {
        s.group = elsewhere(G);
        s.subscriptions[0].topic = elsewhere(T);
    });
    s.settings("settings", &mut consumer, settings).await;
    s.heartbeat("heartbeat", &consumer, elsewhere(G)).await;
    let sent = v2::Message {
        topic: elsewhere(T),
        ..message(T, "m1")
    };
    s.send("send", &by, vec![sent]).await;
    s.put(&by, vec![message(T, "m2")]).await;
    let ask = ask(T, G).edit(|r| r.group = elsewhere(G));
    let ask = ask.queue(|q| q.topic = elsewhere(T));
    let held = s.receive_whole("receive", &consumer, ask).await;
    let request = v2::ChangeInvisibleDurationRequest {
        group: elsewhere(G),
        topic: elsewhere(T),
        receipt_handle: held.handle(0),
        invisible_duration: seconds(30),
        ..Default::default()
    };
    let handle = s.change_as("change", &consumer, request).await;
    s.ack("ack without the namespace", &consumer, T, G, &[handle])
        .await;
    let entry = v2::AckMessageEntry {
        message_id: "m2".to_owned(),
        receipt_handle: held.handle(1),
        lite_topic: None,
    };
    let request = v2::AckMessageRequest {
        group: elsewhere(G),
        topic: elsewhere(T),
        entries: vec![entry],
    };
    s.ack_as("ack", &consumer, request).await;
}
