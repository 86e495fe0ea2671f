//! Dead letters, by request and by exhausted attempts.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Group, Part, Topic, group, seconds, topic};
use crate::matches_real_server::{
    caller::{Edit, ask, full, literal, message, resource},
    scene::Scene,
};

const T: &str = "dead-t";
const EXHAUST: &str = "dead-exhaust";
const EMPTY: &str = "dead-empty";
const G: &str = "dead-g";
const H: &str = "dead-h";
const READER: &str = "dead-reader";
const ONCE: &str = "dead-once";
const TOPICS: &[Topic] = &[
    topic(T, TopicType::Normal, 1),
    topic(EXHAUST, TopicType::Normal, 1),
    topic(EMPTY, TopicType::Normal, 1),
];
const GROUPS: &[Group] = &[
    group(G),
    group(H),
    group(READER),
    Group {
        name: ONCE,
        fifo: false,
        retry: 1,
    },
];

pub(crate) const FORWARD: Part = Part {
    name: "dead letter",
    topics: TOPICS,
    groups: GROUPS,
    run: |s| Box::pin(forward(s)),
};

pub(crate) const EXHAUSTED: Part = Part {
    name: "exhausted",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(exhausted(s)),
};

fn letters(group: &str) -> Option<v2::Resource> {
    literal(&format!("%DLQ%{}", full(group)))
}

async fn forward(s: &mut Scene) {
    let producer = s.producer("p", &[T]).await;
    let by = s.consumer("c", T, G).await;
    let all = (1..=6).map(|i| {
        let message = message(T, &format!("m{i}")).tag("t").keys(&["k"]);
        message.property("p", "v")
    });
    s.put(&producer, all.collect()).await;
    let held = s.receive("what is held", &by, ask(T, G)).await;
    let h = |i: usize| held.handle(i);
    s.forward("at attempt 1", &by, (T, G), &h(0)).await;
    s.ack("ack after that", &by, T, G, &[h(0)]).await;
    s.forward("garbage", &by, (T, G), "garbage").await;
    s.forward("an empty handle", &by, (T, G), "").await;
    for (step, topic, group) in [
        ("without a topic", None, resource(G)),
        ("without a group", resource(T), None),
    ] {
        let request = v2::ForwardMessageToDeadLetterQueueRequest {
            group,
            topic,
            receipt_handle: h(3),
            message_id: "m4".to_owned(),
            ..Default::default()
        };
        s.forward_as(step, &by, request).await;
    }
    s.ack("ack of another", &by, T, G, &[h(4)]).await;
    let request = v2::ForwardMessageToDeadLetterQueueRequest {
        group: resource(G),
        topic: resource(T),
        receipt_handle: h(5),
        ..Default::default()
    };
    s.forward_as("with a handle alone", &by, request).await;
    let request = v2::QueryRouteRequest {
        topic: letters(G),
        endpoints: None,
    };
    s.route("the route of the dead letters", &by, request).await;
    let reader = s.consumer("r", T, READER).await;
    let all = ask(T, READER).queue(|q| q.topic = letters(G)).batch(1);
    for i in 1..=2 {
        let step = format!("dead letter {i}");
        s.receive_whole(&step, &reader, all.clone()).await;
    }
    let letter = v2::Message {
        topic: letters(G),
        ..message(T, "m9")
    };
    s.send("a send to the dead letters", &producer, vec![letter])
        .await;
    // The real server forwards whatever the handle names, as often as it is asked to.
    s.forward("the same again", &by, (T, G), &h(0)).await;
    s.forward("after the ack", &by, (T, G), &h(4)).await;
    s.forward("of another topic", &by, (EMPTY, G), &h(1)).await;
    s.forward("of another group", &by, (T, H), &h(2)).await;
    s.forward("of an unknown topic", &by, ("nosuch", G), &h(3))
        .await;
    s.forward("of an unknown group", &by, (T, "nosuch"), &h(3))
        .await;
}

/// A group with one retry: the second failed attempt is the last.
async fn exhausted(s: &mut Scene) {
    let producer = s.producer("p", &[EXHAUST]).await;
    let by = s.consumer("c", EXHAUST, ONCE).await;
    s.put(&producer, vec![message(EXHAUST, "m1").property("p", "v")])
        .await;
    let all = || ask(EXHAUST, ONCE);
    let held = s.receive("attempt 1", &by, all()).await;
    let place = (EXHAUST, ONCE);
    s.change("handed back", &by, place, &held.handle(0), seconds(0))
        .await;
    let held = s.receive_soon("attempt 2", &by, all()).await;
    s.change("handed back again", &by, place, &held.handle(0), seconds(0))
        .await;
    s.receive("nothing is left", &by, all()).await;
    s.receive("nothing is left, still", &by, all()).await;
    let reader = s.consumer("r", EXHAUST, READER).await;
    let all = ask(EXHAUST, READER).queue(|q| q.topic = letters(ONCE));
    s.receive_whole_soon("the dead letter", &reader, all).await;
}
