//! Acknowledgements and new invisible durations.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Part, Topic, group, seconds, topic};
use crate::matches_real_server::{
    caller::{Caller, ask, literal, message, resource},
    scene::{Received, Scene},
};

const T: &str = "settle-t";
const CHANGE: &str = "settle-change";
const REPLACED: &str = "settle-replaced";
const LAPSE: &str = "settle-lapse";
const SUSPEND: &str = "settle-suspend";
const EMPTY: &str = "settle-empty";
const G: &str = "settle-g";
const H: &str = "settle-h";
const TOPICS: &[Topic] = &[
    topic(T, TopicType::Normal, 1),
    topic(CHANGE, TopicType::Normal, 1),
    topic(REPLACED, TopicType::Normal, 1),
    topic(LAPSE, TopicType::Normal, 1),
    topic(SUSPEND, TopicType::Normal, 1),
    topic(EMPTY, TopicType::Normal, 1),
];

pub(crate) const ACK: Part = Part {
    name: "ack",
    topics: TOPICS,
    groups: &[group(G), group(H)],
    run: |s| Box::pin(ack(s)),
};

pub(crate) const CHANGES: Part = Part {
    name: "change",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(change(s)),
};

/// Handles that a newer one has replaced.
pub(crate) const REPLACEMENTS: Part = Part {
    name: "replaced handle",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(replaced(s)),
};

/// Messages that the consumer puts off.
pub(crate) const SUSPENSIONS: Part = Part {
    name: "suspended",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(suspended(s)),
};

/// Leases that run out.
pub(crate) const LAPSES: Part = Part {
    name: "lapse",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(lapse(s)),
};

async fn suspended(s: &mut Scene) {
    let (by, mut held) = hold(s, SUSPEND, 1).await;
    for (step, suspend) in [("first", true), ("second", true), ("third", false)] {
        let request = v2::ChangeInvisibleDurationRequest {
            group: resource(G),
            topic: resource(SUSPEND),
            receipt_handle: held.handle(0),
            invisible_duration: seconds(1),
            suspend: Some(suspend),
            ..Default::default()
        };
        s.change_as(&format!("the {step} time"), &by, request).await;
        let step = format!("after the {step} time");
        held = s.receive_soon(&step, &by, ask(SUSPEND, G)).await;
    }
}

/// Stores messages and receives them for 30 s.
async fn hold(s: &mut Scene, topic: &str, count: usize) -> (Caller, Received) {
    let producer = s.producer("p", &[topic]).await;
    let consumer = s.consumer("c", topic, G).await;
    let all = (1..=count).map(|i| message(topic, &format!("m{i}")));
    s.put(&producer, all.collect()).await;
    let held = s.receive("what is held", &consumer, ask(topic, G)).await;
    (consumer, held)
}

async fn ack(s: &mut Scene) {
    let (by, held) = hold(s, T, 12).await;
    let h = held.handles();
    let one = |i: usize| vec![h.get(i).cloned().unwrap_or_default()];
    let garbage = || "garbage".to_owned();
    s.ack("one", &by, T, G, &one(0)).await;
    s.ack("one again", &by, T, G, &one(0)).await;
    s.ack(
        "one twice in a request",
        &by,
        T,
        G,
        &[one(1), one(1)].concat(),
    )
    .await;
    s.ack(
        "three in a request",
        &by,
        T,
        G,
        &[one(2), one(3), one(4)].concat(),
    )
    .await;
    s.ack("nothing", &by, T, G, &[]).await;
    s.ack("garbage", &by, T, G, &[garbage()]).await;
    s.ack("an empty handle", &by, T, G, &[String::new()]).await;
    s.ack(
        "garbage among others",
        &by,
        T,
        G,
        &[one(5), vec![garbage()]].concat(),
    )
    .await;
    s.ack(
        "garbage first",
        &by,
        T,
        G,
        &[vec![garbage()], one(6)].concat(),
    )
    .await;
    s.ack("two of garbage", &by, T, G, &[garbage(), garbage()])
        .await;
    s.ack("of another topic", &by, EMPTY, G, &one(7)).await;
    s.ack("of another group", &by, T, H, &one(8)).await;
    s.ack("of an unknown topic", &by, "nosuch", G, &one(9))
        .await;
    s.ack("of an unknown group", &by, T, "nosuch", &one(9))
        .await;
    let entries = || {
        vec![v2::AckMessageEntry {
            message_id: String::new(),
            receipt_handle: h.get(9).cloned().unwrap_or_default(),
            lite_topic: None,
        }]
    };
    for (step, topic, group) in [
        ("without a topic", None, resource(G)),
        ("without a group", resource(T), None),
        ("of an illegal topic", literal("a b"), resource(G)),
        ("of an illegal group", resource(T), literal("a b")),
        ("without a message id", resource(T), resource(G)),
    ] {
        let request = v2::AckMessageRequest {
            group,
            topic,
            entries: entries(),
        };
        s.ack_as(step, &by, request).await;
    }
    let stranger = s.stranger("stranger");
    s.ack("by a stranger", &stranger, T, G, &one(10)).await;
    let other = s.consumer("c2", T, H).await;
    s.ack("by a consumer of another group", &other, T, G, &one(11))
        .await;
    let again = ask(T, G).invisible(seconds(10));
    s.gather("what comes again", &by, again, COME_AGAIN).await;
}

/// Messages of the first part that nobody has settled.
const COME_AGAIN: usize = 2;

async fn change(s: &mut Scene) {
    let (by, held) = hold(s, CHANGE, 9).await;
    let place = (CHANGE, G);
    let hours = 12 * 3600;
    let h = |i: usize| held.handle(i);
    for (i, (step, duration)) in [
        ("to 12 h", seconds(hours)),
        ("to 12 h and 1 s", seconds(hours + 1)),
        ("to −1 s", seconds(-1)),
        ("without a duration", None),
        ("to 0", seconds(0)),
    ]
    .into_iter()
    .enumerate()
    {
        s.change(step, &by, place, &h(i), duration).await;
    }
    s.change("of garbage", &by, place, "garbage", seconds(10))
        .await;
    s.change("of an empty handle", &by, place, "", seconds(10))
        .await;
    s.change("of another topic", &by, (EMPTY, G), &h(5), seconds(10))
        .await;
    s.change("of another group", &by, (CHANGE, H), &h(5), seconds(10))
        .await;
    s.change(
        "of an unknown topic",
        &by,
        ("nosuch", G),
        &h(5),
        seconds(10),
    )
    .await;
    s.change(
        "of an unknown group",
        &by,
        (CHANGE, "nosuch"),
        &h(5),
        seconds(10),
    )
    .await;
    for (step, topic, group) in [
        ("without a topic", None, resource(G)),
        ("without a group", resource(CHANGE), None),
        ("of an illegal topic", literal("a b"), resource(G)),
        ("of an illegal group", resource(CHANGE), literal("a b")),
    ] {
        let request = v2::ChangeInvisibleDurationRequest {
            group,
            topic,
            receipt_handle: h(5),
            invisible_duration: seconds(10),
            ..Default::default()
        };
        s.change_as(step, &by, request).await;
    }
    s.ack("ack of one", &by, CHANGE, G, &[h(6)]).await;
    s.change("after the ack", &by, place, &h(6), seconds(10))
        .await;
    let new = s.change("of one", &by, place, &h(7), seconds(20)).await;
    let newer = s
        .change("of the new handle", &by, place, &new, seconds(20))
        .await;
    let both = [newer, new];
    s.ack(
        "ack of the newest handle and the one before",
        &by,
        CHANGE,
        G,
        &both,
    )
    .await;
    let stranger = s.stranger("stranger");
    s.change("by a stranger", &stranger, place, &h(8), seconds(20))
        .await;
}

async fn replaced(s: &mut Scene) {
    let producer = s.producer("p", &[REPLACED]).await;
    let by = s.consumer("c", REPLACED, G).await;
    let place = (REPLACED, G);
    let mut h = Vec::new();
    // One by one: of a batch that came together, the local-mode proxy hands out new handles that
    // settle nothing, but for the first message. That is not for a dev broker to copy.
    for i in 1..=6 {
        let id = format!("m{i}");
        s.put(&producer, vec![message(REPLACED, &id)]).await;
        let step = format!("{id} is held");
        let held = s.receive(&step, &by, ask(REPLACED, G)).await;
        h.push(held.handle(0));
    }
    s.change("m1 is extended", &by, place, &h[0], seconds(10))
        .await;
    s.ack("ack of its old handle", &by, REPLACED, G, &h[..1])
        .await;
    let new = s
        .change("m2 is extended", &by, place, &h[1], seconds(10))
        .await;
    let both = [new, h[1].clone()];
    s.ack("ack of the new handle and the old", &by, REPLACED, G, &both)
        .await;
    let new = s
        .change("m3 is extended", &by, place, &h[2], seconds(10))
        .await;
    let both = [h[2].clone(), new];
    s.ack("ack of the old handle and the new", &by, REPLACED, G, &both)
        .await;
    let new = s
        .change("m4 is extended", &by, place, &h[3], seconds(10))
        .await;
    let new = s
        .change("m4 is extended again", &by, place, &new, seconds(10))
        .await;
    s.ack("ack of the newest handle", &by, REPLACED, G, &[new])
        .await;
    s.change("m5 is handed back", &by, place, &h[4], seconds(0))
        .await;
    s.ack(
        "ack of its old handle after that",
        &by,
        REPLACED,
        G,
        &h[4..5],
    )
    .await;
    let new = s
        .change("m6 is extended", &by, place, &h[5], seconds(10))
        .await;
    s.forward("its new handle to the dead letters", &by, place, &new)
        .await;
    let again = ask(REPLACED, G).invisible(seconds(60));
    s.gather("what comes again", &by, again.clone(), REPLACED_AGAIN)
        .await;
    s.receive("and no more", &by, again.wait(seconds(15))).await;
}

/// Messages whose replaced handles did not settle them.
const REPLACED_AGAIN: usize = 2;

async fn lapse(s: &mut Scene) {
    let producer = s.producer("p", &[LAPSE]).await;
    let by = s.consumer("c", LAPSE, G).await;
    let m = |id| message(LAPSE, id);
    s.put(&producer, vec![m("m1"), m("m2"), m("m3")]).await;
    let short = || ask(LAPSE, G).invisible(seconds(10));
    let held = s.receive("what is held", &by, short()).await;
    let place = (LAPSE, G);
    // The real server revives them one by one: they may come in several receives.
    let again = s.gather("what comes again", &by, short(), 3).await;
    s.ack("ack of a lapsed handle", &by, LAPSE, G, &[held.handle(0)])
        .await;
    s.change(
        "change of a lapsed handle",
        &by,
        place,
        &held.handle(1),
        seconds(10),
    )
    .await;
    s.forward(
        "a lapsed handle to the dead letters",
        &by,
        place,
        &held.handle(2),
    )
    .await;
    let both = [again.handle(0), held.handle(0)];
    s.ack(
        "ack of the current handle and the lapsed one",
        &by,
        LAPSE,
        G,
        &both,
    )
    .await;
    let rest = [again.handle(1), again.handle(2)];
    s.ack("ack of the rest", &by, LAPSE, G, &rest).await;
    s.receive("nothing is left", &by, short()).await;
}
