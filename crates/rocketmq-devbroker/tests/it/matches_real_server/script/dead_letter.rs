//! Dead letters, by request and by exhausted attempts.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Group, Part, Topic, group, ordered, topic};
use crate::matches_real_server::{
    caller::{Edit, ask, full, literal, message, resource, seconds},
    scene::Scene,
};

const T: &str = "dead-t";
const EXHAUST: &str = "dead-exhaust";
const EMPTY: &str = "dead-empty";
const G: &str = "dead-g";
const H: &str = "dead-h";
const READER: &str = "dead-reader";
const ONCE: &str = "dead-once";
const FEW: &str = "dead-few";
const IN_ORDER: &str = "dead-in-order";
const LATER: &str = "dead-later";
const URGENT: &str = "dead-urgent";
const MOVER: &str = "dead-mover";
const ORDERLY: &str = "dead-orderly";
const ORDERLY_READER: &str = "dead-orderly-reader";
const TOPICS: &[Topic] = &[
    topic(T, TopicType::Normal, 1),
    topic(EXHAUST, TopicType::Normal, 1),
    topic(EMPTY, TopicType::Normal, 1),
    topic(IN_ORDER, TopicType::Fifo, 1),
    topic(LATER, TopicType::Delay, 1),
    topic(URGENT, TopicType::Priority, 1),
];
const GROUPS: &[Group] = &[
    group(G),
    group(H),
    group(READER),
    group(MOVER),
    ordered(ORDERLY),
    ordered(ORDERLY_READER),
    with_one_retry(ONCE),
    with_one_retry(FEW),
];

const fn with_one_retry(name: &'static str) -> Group {
    Group {
        name,
        fifo: false,
        retry: 1,
    }
}

pub(crate) const FORWARD: Part = Part {
    name: "dead letter",
    topics: TOPICS,
    groups: GROUPS,
    run: |s| Box::pin(forward(s)),
};

/// What a dead letter keeps of the kind of message that it was.
pub(crate) const KINDS: Part = Part {
    name: "dead letter: kinds",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(kinds(s)),
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

async fn kinds(s: &mut Scene) {
    let urgent = message(URGENT, "urgent").kind(v2::MessageType::Priority);
    let all = [
        (ORDERLY, IN_ORDER, message(IN_ORDER, "in order").group("k")),
        (
            MOVER,
            LATER,
            message(LATER, "later").deliver_at(s.in_seconds(2)),
        ),
        (
            MOVER,
            URGENT,
            urgent.edit(|system| system.priority = Some(3)),
        ),
    ];
    let reader = s.consumer("r", T, READER).await;
    for (group, topic, message) in all {
        let producer = s.producer(&format!("p {topic}"), &[topic]).await;
        let by = s.consumer(&format!("c {topic}"), topic, group).await;
        s.put(&producer, vec![message]).await;
        let step = format!("{topic}: held");
        let held = s.receive_soon(&step, &by, ask(topic, group)).await;
        let step = format!("{topic}: handed back");
        let place = (topic, group);
        s.change(&step, &by, place, &held.handle(0), seconds(0))
            .await;
        let step = format!("{topic}: held again");
        let held = s.receive_soon(&step, &by, ask(topic, group)).await;
        let step = format!("{topic}: at attempt 2");
        s.forward(&step, &by, place, &held.handle(0)).await;
        let all = ask(topic, READER).queue(|q| q.topic = letters(group));
        let step = format!("{topic}: the dead letter");
        s.receive_whole_soon(&step, &reader, all).await;
    }
    let (orderly, all) = (ORDERLY_READER, ask(IN_ORDER, ORDERLY_READER));
    let by = s.consumer("in order", T, orderly).await;
    let all = all.queue(|q| q.topic = letters(ORDERLY));
    let step = "a reader in order";
    let held = s.receive_whole_soon(step, &by, all.clone()).await;
    let request = v2::ChangeInvisibleDurationRequest {
        group: resource(orderly),
        topic: letters(ORDERLY),
        receipt_handle: held.handle(0),
        invisible_duration: seconds(0),
        ..Default::default()
    };
    s.change_as("it hands back", &by, request).await;
    s.receive_whole_soon("again in order", &by, all).await;
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
    // Its attempts go on: a group that allows two has none left for it.
    let by = s.consumer("f", EXHAUST, FEW).await;
    let all = ask(EXHAUST, FEW).queue(|q| q.topic = letters(ONCE));
    s.receive("to a group with few attempts", &by, all).await;
    let moved = ask(EXHAUST, READER).queue(|q| q.topic = letters(FEW));
    s.receive_whole_soon("it has moved on", &reader, moved)
        .await;
}
