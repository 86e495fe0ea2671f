//! Sends with right and odd arguments, and what is stored of them.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2::{self, MessageType};

use super::{Part, Topic, group, topic};
use crate::matches_real_server::{
    caller::{Edit, ask, literal, message, resource},
    scene::Scene,
};

const T: &str = "send-t";
const FIFO: &str = "send-fifo";
const DELAY: &str = "send-delay";
const TX: &str = "send-tx";
const BATCH: &str = "send-batch";
const G: &str = "send-g";
const MIB: usize = 1 << 20;

pub(crate) const PART: Part = Part {
    name: "send",
    topics: TOPICS,
    groups: &[group(G)],
    run: |s| Box::pin(run(s)),
};

const TOPICS: &[Topic] = &[
    topic(T, TopicType::Normal, 1),
    topic(FIFO, TopicType::Fifo, 1),
    topic(DELAY, TopicType::Delay, 1),
    topic(TX, TopicType::Transaction, 1),
    topic(BATCH, TopicType::Normal, 1),
];

fn to(topic: Option<v2::Resource>) -> v2::Message {
    v2::Message {
        topic,
        ..message(T, "m")
    }
}

fn bodies() -> Vec<(&'static str, v2::Message)> {
    let m = |bytes| message(T, "m").body(vec![b'x'; bytes]);
    vec![
        ("a body of 4 MiB", m(4 * MIB)),
        ("a body of 4 MiB and one byte", m(4 * MIB + 1)),
        ("an empty body", m(0)),
    ]
}

fn names() -> Vec<(&'static str, v2::Message)> {
    let id = |id: &str| message(T, id);
    vec![
        ("no id", id("")),
        ("a blank id", id(" ")),
        ("an id with a blank", id("a b")),
        ("an id with a control character", id("a\u{1}b")),
        ("an id that was sent before", id("a b")),
        ("no topic", to(None)),
        ("an empty topic", to(literal(""))),
        ("an illegal topic", to(literal("a b"))),
        ("a system topic", to(literal("TBW102"))),
        ("an unknown topic", to(resource("nosuch"))),
        ("dead letters of nobody", to(literal("%DLQ%nosuch"))),
        ("retries of nobody", to(literal("%RETRY%nosuch"))),
        (
            "a topic of another namespace",
            to(Some(v2::Resource {
                resource_namespace: "elsewhere".to_owned(),
                ..resource(T).unwrap()
            })),
        ),
        (
            "no system properties",
            v2::Message {
                system_properties: None,
                ..message(T, "m")
            },
        ),
        ("no born time", id("m").edit(|s| s.born_timestamp = None)),
        ("no born host", id("m").edit(|s| s.born_host.clear())),
        ("no encoding", id("m").edit(|s| s.body_encoding = 0)),
        ("encoding 99", id("m").edit(|s| s.body_encoding = 99)),
        (
            "a wrong digest",
            id("m").edit(|s| s.body_digest = Some(wrong_digest())),
        ),
        ("queue 99", id("m").edit(|s| s.queue_id = 99)),
        (
            "a recovery after 2 hours",
            id("m").edit(|s| {
                s.orphaned_transaction_recovery_duration = super::seconds(7200);
            }),
        ),
    ]
}

fn wrong_digest() -> v2::Digest {
    v2::Digest {
        r#type: v2::DigestType::Md5.into(),
        checksum: "00".to_owned(),
    }
}

/// Types that a message says, has, or may not have.
fn kinds() -> Vec<(&'static str, v2::Message)> {
    let m = |topic| message(topic, "m");
    let priority = |m: v2::Message| m.edit(|s| s.priority = Some(3));
    let lite = |m: v2::Message| m.edit(|s| s.lite_topic = Some("lite".to_owned()));
    vec![
        ("type FIFO to NORMAL", m(T).group("g")),
        (
            "type FIFO without a group to NORMAL",
            m(T).kind(MessageType::Fifo),
        ),
        (
            "type NORMAL with a group to NORMAL",
            m(T).group("g").kind(MessageType::Normal),
        ),
        (
            "type TRANSACTION to NORMAL",
            m(T).kind(MessageType::Transaction),
        ),
        ("no type to NORMAL", m(T).kind(MessageType::Unspecified)),
        ("type 99 to NORMAL", m(T).edit(|s| s.message_type = 99)),
        (
            "type DELAY without a time to NORMAL",
            m(T).kind(MessageType::Delay),
        ),
        (
            "a priority to NORMAL",
            priority(m(T)).kind(MessageType::Priority),
        ),
        ("a priority, type NORMAL, to NORMAL", priority(m(T))),
        ("a lite topic to NORMAL", lite(m(T)).kind(MessageType::Lite)),
        (
            "a priority and a group to NORMAL",
            priority(m(T).group("g")),
        ),
        (
            "a priority and a group to FIFO",
            priority(m(FIFO).group("g")),
        ),
        ("a lite topic and a group to FIFO", lite(m(FIFO).group("g"))),
        ("type NORMAL to FIFO", m(FIFO)),
        (
            "type FIFO without a group to FIFO",
            m(FIFO).kind(MessageType::Fifo),
        ),
        ("an empty group to FIFO", m(FIFO).group("")),
        ("a blank group to FIFO", m(FIFO).group(" ")),
        (
            "a group with a control character",
            m(FIFO).group("a\u{7f}b"),
        ),
        ("a group of 63 bytes", m(FIFO).group(&"g".repeat(63))),
        ("a group of 64 bytes", m(FIFO).group(&"g".repeat(64))),
        (
            "a group of 32 times two bytes",
            m(FIFO).group(&"ü".repeat(32)),
        ),
        ("type NORMAL to DELAY", m(DELAY)),
        (
            "type DELAY without a time to DELAY",
            m(DELAY).kind(MessageType::Delay),
        ),
        ("type FIFO to DELAY", m(DELAY).group("g")),
        ("type NORMAL to TRANSACTION", m(TX)),
        ("type FIFO to TRANSACTION", m(TX).group("g")),
    ]
}

async fn run(s: &mut Scene) {
    let by = s.producer("p", &[T]).await;
    s.send("a message", &by, vec![message(T, "m")]).await;
    s.send("no message", &by, Vec::new()).await;
    let stranger = s.stranger("stranger");
    s.send("by a stranger", &stranger, vec![message(T, "m")])
        .await;
    for (step, message) in [bodies(), names(), kinds()].into_iter().flatten() {
        s.send(step, &by, vec![message]).await;
    }
    delays(s).await;
    batches(s).await;
    stored(s).await;
}

async fn delays(s: &mut Scene) {
    let by = s.producer("d", &[DELAY]).await;
    let day = 24 * 3600;
    for (step, seconds) in [
        ("a time 20 s ago", -20),
        ("a time a day ago", -day),
        ("a time in 10 s", 10),
        ("a time in a day, almost", day - 60),
        ("a time in more than a day", day + 60),
    ] {
        let at = s.in_seconds(seconds);
        s.send(step, &by, vec![message(DELAY, "m").deliver_at(at)])
            .await;
    }
    let at = s.in_seconds(10);
    s.send(
        "a time to NORMAL",
        &by,
        vec![message(T, "m").deliver_at(at)],
    )
    .await;
    let both = message(DELAY, "m").group("g").deliver_at(at);
    s.send("a time and a group to DELAY", &by, vec![both]).await;
    let both = message(FIFO, "m").deliver_at(at).group("g");
    s.send("a time and a group to FIFO", &by, vec![both]).await;
    let zero = prost_types::Timestamp::default();
    s.send("time zero", &by, vec![message(DELAY, "m").deliver_at(zero)])
        .await;
    let negative = prost_types::Timestamp {
        seconds: -1,
        nanos: 0,
    };
    s.send(
        "time minus one",
        &by,
        vec![message(DELAY, "m").deliver_at(negative)],
    )
    .await;
}

async fn batches(s: &mut Scene) {
    let by = s.producer("b", &[BATCH]).await;
    let m = |id: &str| message(BATCH, id);
    let other = |id: &str| message(T, id);
    s.send("a batch of three", &by, vec![m("b1"), m("b2"), m("b3")])
        .await;
    s.send("a batch with an id twice", &by, vec![m("b4"), m("b4")])
        .await;
    s.send("a batch of two topics", &by, vec![m("b5"), other("b6")])
        .await;
    s.send(
        "a batch of two types",
        &by,
        vec![m("b7"), m("b8").group("g")],
    )
    .await;
    s.send(
        "a batch with an empty body",
        &by,
        vec![m("b9"), m("b10").body(Vec::new())],
    )
    .await;
    let at = s.in_seconds(10);
    let delayed = message(DELAY, "b13").deliver_at(at);
    let both = vec![message(DELAY, "b12").deliver_at(at), delayed];
    s.send("a batch of delayed messages", &by, both).await;
    let group = |id| message(FIFO, id).group("g");
    s.send(
        "a batch of a message group",
        &by,
        vec![group("b14"), group("b15")],
    )
    .await;
    let unknown = vec![to(resource("nosuch")), to(resource("nosuch"))];
    s.send("a batch to an unknown topic", &by, unknown).await;
    let large = |id| m(id).body(vec![b'x'; 2 * MIB + MIB / 2]);
    s.send("a batch of 5 MiB", &by, vec![large("b16"), large("b17")])
        .await;
    let tagged = |id| m(id).tag("a").keys(&["k"]).property("p", "v");
    s.send(
        "a batch with everything",
        &by,
        vec![tagged("b18"), tagged("b19")],
    )
    .await;
    let consumer = s.consumer("bc", BATCH, G).await;
    s.receive_whole("what is stored of batches", &consumer, ask(BATCH, G))
        .await;
}

/// What the answer of a send does not tell.
async fn stored(s: &mut Scene) {
    let consumer = s.consumer("c", FIFO, G).await;
    let what = "what is stored of message groups";
    s.receive_whole(what, &consumer, ask(FIFO, G)).await;
    let consumer = s.consumer("c2", DELAY, G).await;
    let what = "what is stored of times that are past";
    s.receive_whole(what, &consumer, ask(DELAY, G)).await;
    let consumer = s.consumer("c3", T, G).await;
    let all = ask(T, G).batch(2);
    s.receive_whole("what is stored of the first two", &consumer, all)
        .await;
}
