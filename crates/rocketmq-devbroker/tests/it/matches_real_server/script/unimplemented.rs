//! Methods of the service that the Apache proxy does not have, and lite subscriptions.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;
use serde_json::Value;

use super::{Part, Topic, group, topic};
use crate::matches_real_server::{caller::resource, scene::Scene, view};

const T: &str = "unimplemented-t";
const G: &str = "unimplemented-g";
const TOPICS: &[Topic] = &[topic(T, TopicType::Normal, 1)];

pub(crate) const PART: Part = Part {
    name: "unimplemented",
    topics: TOPICS,
    groups: &[group(G)],
    run: |s| Box::pin(run(s)),
};

async fn run(s: &mut Scene) {
    let by = s.consumer("c", T, G).await;
    let queue = || {
        Some(v2::MessageQueue {
            topic: resource(T),
            ..Default::default()
        })
    };
    let nothing = |_: &_| Value::Null;

    let request = v2::PullMessageRequest {
        group: resource(G),
        message_queue: queue(),
        batch_size: 1,
        ..Default::default()
    };
    let answer = by.stub.clone().pull_message(by.request(request)).await;
    let answer = match answer {
        Ok(stream) => stream.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    s.note("pull", view::answer(&answer, nothing));

    let request = v2::UpdateOffsetRequest {
        group: resource(G),
        message_queue: queue(),
        offset: 0,
    };
    let answer = by.stub.clone().update_offset(by.request(request)).await;
    s.note(
        "update of an offset",
        view::answer(&answer.map(|_| ()), nothing),
    );

    let request = v2::GetOffsetRequest {
        group: resource(G),
        message_queue: queue(),
    };
    let answer = by.stub.clone().get_offset(by.request(request)).await;
    s.note("offset", view::answer(&answer.map(|_| ()), nothing));

    let request = v2::QueryOffsetRequest {
        message_queue: queue(),
        ..Default::default()
    };
    let answer = by.stub.clone().query_offset(by.request(request)).await;
    s.note(
        "query of an offset",
        view::answer(&answer.map(|_| ()), nothing),
    );

    for (step, topic, group) in [
        ("lite subscription to a topic of another type", T, G),
        ("lite subscription to an unknown topic", "nosuch", G),
        ("lite subscription of an unknown group", T, "nosuch"),
    ] {
        let request = v2::SyncLiteSubscriptionRequest {
            action: v2::LiteSubscriptionAction::CompleteAdd.into(),
            topic: resource(topic),
            group: resource(group),
            lite_topic_set: vec!["a".to_owned()],
            ..Default::default()
        };
        let mut stub = by.stub.clone();
        let answer = stub.sync_lite_subscription(by.request(request)).await;
        let view = |a: &tonic::Response<v2::SyncLiteSubscriptionResponse>| {
            view::only(a.get_ref().status.as_ref())
        };
        s.note(step, view::answer(&answer, view));
    }
}
