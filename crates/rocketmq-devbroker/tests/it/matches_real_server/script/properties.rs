//! Tags, keys and properties: which are taken, and what comes back of them.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Part, Topic, group, topic};
use crate::matches_real_server::{
    caller::{Edit, ask, message},
    scene::Scene,
};

const T: &str = "properties-t";
const G: &str = "properties-g";
const TOPICS: &[Topic] = &[topic(T, TopicType::Normal, 1)];
const KIB: usize = 1024;

pub(crate) const PART: Part = Part {
    name: "properties",
    topics: TOPICS,
    groups: &[group(G)],
    run: |s| Box::pin(run(s)),
};

/// What the server uses itself, and what it might.
const NAMES: [&str; 24] = [
    "KEYS",
    "TAGS",
    "UNIQ_KEY",
    "DELAY",
    "TTL",
    "CLUSTER",
    "MSG_TYPE",
    "INSTANCE_ID",
    "CORRELATION_ID",
    "DLQ_ORIGIN_TOPIC",
    "__BORNHOST",
    "__CRC32#",
    "TIMER_DELAY_LEVEL",
    "TRAN_MSG",
    "POP_CK",
    "correlation_id",
    "TRACE_CONTEXT",
    "__SHARDINGKEY",
    "CHECK_IMMUNITY_TIME_IN_SECONDS",
    "__transactionId__",
    "INNER_NUM",
    "INNER_BASE",
    "_SYS_MSG_PRIORITY_",
    "__LITE_TOPIC",
];

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn many(count: usize) -> v2::Message {
    let all = 0..count;
    all.fold(message(T, "m"), |m, i| m.property(&format!("k{i}"), "v"))
}

fn cases() -> Vec<(&'static str, v2::Message)> {
    let m = || message(T, "m");
    vec![
        ("an empty tag", m().tag("")),
        ("a blank tag", m().tag(" ")),
        ("a tag with a blank", m().tag(" a b ")),
        ("a tag with a bar", m().tag("a|b")),
        ("a tag of a star", m().tag("*")),
        ("a tag with a line break", m().tag("a\nb")),
        ("a tag with DEL", m().tag("a\u{7f}b")),
        ("a tag of 16 KiB", m().tag(&long(16 * KIB))),
        ("a tag of 16 KiB and one byte", m().tag(&long(16 * KIB + 1))),
        ("an empty key", m().keys(&[""])),
        ("a blank key", m().keys(&[" "])),
        ("a key with a blank", m().keys(&["a b", "c"])),
        ("a key twice", m().keys(&["a", "a"])),
        ("a key with a control character", m().keys(&["a\u{0}b"])),
        ("a key of 16 KiB", m().keys(&[&long(16 * KIB)])),
        (
            "a key of 16 KiB and one byte",
            m().keys(&[&long(16 * KIB + 1)]),
        ),
        ("a property without a name", m().property("", "v")),
        ("a property with a blank name", m().property(" ", "v")),
        ("an empty property", m().property("k", "")),
        ("a blank property", m().property("k", " ")),
        (
            "a name with a control character",
            m().property("a\u{1}b", "v"),
        ),
        (
            "a property with a control character",
            m().property("k", "a\u{2}b"),
        ),
        ("a property with a tabulator", m().property("k", "a\tb")),
        ("a property with U+009F", m().property("k", "a\u{9f}b")),
        (
            "a property beyond ASCII",
            m().property("schlüssel", "wert 😱"),
        ),
        ("128 properties", many(128)),
        ("129 properties", many(129)),
        (
            "properties of 16 KiB",
            m().property("k", &long(16 * KIB - 1)),
        ),
        (
            "properties of 16 KiB and one byte",
            m().property("k", &long(16 * KIB)),
        ),
        (
            "tag, key and property of 16 KiB",
            m().tag("t").keys(&["k"]).property("p", &long(16 * KIB - 3)),
        ),
        (
            "tag, key and property of 16 KiB and one byte",
            m().tag("t").keys(&["k"]).property("p", &long(16 * KIB - 2)),
        ),
        (
            "a trace context",
            m().edit(|s| s.trace_context = Some("00-1-2-01".to_owned())),
        ),
        (
            "an empty trace context",
            m().edit(|s| s.trace_context = Some(String::new())),
        ),
    ]
}

/// Messages whose properties come back.
fn shown() -> Vec<v2::Message> {
    let m = |id| message(T, id);
    vec![
        m("s1").tag("t").keys(&["k1", "k2"]).property("p", "v"),
        m("s2").keys(&["a b", "c"]).tag(" a b "),
        m("s3").property("k", " ").property("schlüssel", "wert 😱"),
        m("s4").property("", "v"),
        m("s5").property("k", ""),
        m("s6").edit(|s| s.trace_context = Some("00-1-2-01".to_owned())),
        m("s7")
            .tag("")
            .edit(|s| s.trace_context = Some(String::new())),
        m("s8").edit(|s| s.body_encoding = v2::Encoding::Gzip.into()),
        m("s9").edit(|s| s.delivery_attempt = Some(3)),
        m("s10").edit(|s| s.born_timestamp = None),
        m("s11").keys(&["a", "a"]),
        m("s12")
            .property("INNER_NUM", "1")
            .property("correlation_id", "2"),
        m("s13").property("__transactionId__", "1"),
        m("s14")
            .property("TRACE_CONTEXT", "1")
            .property("__SHARDINGKEY", "g"),
        m("s15").property("_SYS_MSG_PRIORITY_", "1"),
        m("s16").property("__LITE_TOPIC", "l"),
        m("s17").property("CHECK_IMMUNITY_TIME_IN_SECONDS", "1"),
    ]
}

async fn run(s: &mut Scene) {
    let by = s.producer("p", &[T]).await;
    for message in shown() {
        let id = message.system_properties.as_ref().unwrap();
        let step = format!("a message that is shown: {}", id.message_id);
        s.send(&step, &by, vec![message]).await;
    }
    let consumer = s.consumer("c", T, G).await;
    for i in 1..=17 {
        let step = format!("what is stored, {i}");
        s.receive_whole(&step, &consumer, ask(T, G).batch(1)).await;
    }
    for (step, message) in cases() {
        s.send(step, &by, vec![message]).await;
    }
    for name in NAMES {
        let step = format!("a property called {name}");
        s.send(&step, &by, vec![message(T, "m").property(name, "1")])
            .await;
    }
}
