//! Receives with right and odd arguments.

use std::time::Duration;

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Part, Topic, group, seconds, topic};
use crate::matches_real_server::{
    caller::{Ask, ask, literal, message, resource, sql, tags},
    scene::Scene,
};

const EMPTY: &str = "receive-empty";
const FULL: &str = "receive-full";
const OTHER: &str = "receive-other";
const G: &str = "receive-g";
const H: &str = "receive-h";
const TOPICS: &[Topic] = &[
    topic(EMPTY, TopicType::Normal, 1),
    topic(FULL, TopicType::Normal, 1),
    topic(OTHER, TopicType::Normal, 1),
];

pub(crate) const PART: Part = Part {
    name: "receive",
    topics: TOPICS,
    groups: &[group(G), group(H)],
    run: |s| Box::pin(run(s)),
};

/// From other queues and topics than there are.
pub(crate) const QUEUES: Part = Part {
    name: "receive: queues",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(queues(s)),
};

/// With filters that the topic's messages do not pass, if they are right.
pub(crate) const FILTERS: Part = Part {
    name: "receive: filters",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(filters(s)),
};

pub(crate) const SQL: Part = Part {
    name: "receive: SQL",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(conditions(s)),
};

/// Of a topic that has messages.
pub(crate) const BATCHES: Part = Part {
    name: "receive: batches",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(batches(s)),
};

fn millis(millis: u64) -> Option<prost_types::Duration> {
    Duration::from_millis(millis).try_into().ok()
}

fn cases() -> Vec<(&'static str, Ask)> {
    let a = || ask(EMPTY, G);
    let hours = 12 * 3600;
    let renewed = || a().edit(|r| r.auto_renew = true);
    vec![
        ("nothing there", a()),
        ("no invisible duration", a().invisible(None)),
        ("invisible for 0", a().invisible(seconds(0))),
        ("invisible for −1 s", a().invisible(seconds(-1))),
        ("invisible for 9.999 s", a().invisible(millis(9_999))),
        ("invisible for 10 s", a().invisible(seconds(10))),
        ("invisible for 12 h", a().invisible(seconds(hours))),
        (
            "invisible for 12 h and 1 s",
            a().invisible(seconds(hours + 1)),
        ),
        (
            "auto-renew without an invisible duration",
            renewed().invisible(None),
        ),
        (
            "auto-renew with an invisible duration of 1 s",
            renewed().invisible(seconds(1)),
        ),
        (
            "auto-renew with an invisible duration of 13 h",
            renewed().invisible(seconds(hours + 3600)),
        ),
        ("no deadline", a().deadline(None)),
        (
            "a deadline of 4.5 s",
            a().deadline(Some(Duration::from_millis(4_500))),
        ),
        ("a long poll of 0", a().wait(seconds(0))),
        ("a long poll of −1 s", a().wait(seconds(-1))),
        // Not with a deadline before that: answer and deadline come at the same moment.
        ("no long poll", a().wait(None)),
        ("no group", a().edit(|r| r.group = None)),
        ("an empty group", a().edit(|r| r.group = literal(""))),
        ("an illegal group", a().edit(|r| r.group = literal("a b"))),
        (
            "a group of 121 bytes",
            a().edit(|r| r.group = literal(&"g".repeat(121))),
        ),
        ("an attempt id", a().attempt("a1")),
        ("an empty attempt id", a().attempt("")),
    ]
}

async fn run(s: &mut Scene) {
    let stranger = s.stranger("stranger");
    s.receive("by a stranger", &stranger, ask(EMPTY, G)).await;
    let producer = s.producer("p", &[EMPTY]).await;
    s.receive("by a producer", &producer, ask(EMPTY, G)).await;
    let by = s.consumer("c", EMPTY, G).await;
    for (step, ask) in cases() {
        s.receive(step, &by, ask).await;
    }
}

async fn queues(s: &mut Scene) {
    let by = s.consumer("c", EMPTY, G).await;
    let a = || ask(EMPTY, G);
    let broker = |name: &str| {
        Some(v2::Broker {
            name: name.to_owned(),
            ..Default::default()
        })
    };
    let of_topic = |topic| a().queue(|q| q.topic = topic);
    for (step, ask) in [
        ("no queue", a().edit(|r| r.message_queue = None)),
        ("no topic", of_topic(None)),
        ("an empty topic", of_topic(literal(""))),
        ("an illegal topic", of_topic(literal("a b"))),
        ("an unknown topic", of_topic(resource("nosuch"))),
        ("a topic that was not subscribed", ask(OTHER, G)),
        ("a group of another client", ask(EMPTY, H)),
        ("an unknown group", ask(EMPTY, "nosuch")),
        (
            "an unknown topic of an unknown group",
            ask("nosuch", "nosuch"),
        ),
        ("queue 0", a().queue(|q| q.id = 0)),
        ("queue 1 of 1", a().queue(|q| q.id = 1)),
        ("queue 99", a().queue(|q| q.id = 99)),
        ("queue −2", a().queue(|q| q.id = -2)),
        (
            "an unknown broker",
            a().queue(|q| q.broker = broker("nosuch")),
        ),
        (
            "a broker without a name",
            a().queue(|q| q.broker = broker("")),
        ),
        ("dead letters of nobody", of_topic(literal("%DLQ%nosuch"))),
    ] {
        s.receive(step, &by, ask).await;
    }
}

async fn filters(s: &mut Scene) {
    let by = s.consumer("c", EMPTY, H).await;
    let unspecified = Some(v2::FilterExpression {
        r#type: 0,
        expression: "a".to_owned(),
    });
    let unknown = Some(v2::FilterExpression {
        r#type: 99,
        expression: "a".to_owned(),
    });
    s.receive("no filter", &by, ask(EMPTY, H).filter(None))
        .await;
    s.receive(
        "a filter of no type",
        &by,
        ask(EMPTY, H).filter(unspecified),
    )
    .await;
    s.receive("a filter of type 99", &by, ask(EMPTY, H).filter(unknown))
        .await;
    for expression in [
        "", " ", "||", "|", "a|b", "a||", "||a", "a || b", "@|||@", "* || a",
    ] {
        let step = format!("tags {expression:?}");
        s.receive(&step, &by, ask(EMPTY, H).filter(tags(expression)))
            .await;
    }
}

async fn conditions(s: &mut Scene) {
    let by = s.consumer("c", EMPTY, H).await;
    for expression in [
        "",
        " ",
        "*",
        "a",
        "a >> 1",
        "a > ",
        "a > 1",
        "a = 'x' AND b IS NOT NULL",
        "a BETWEEN 1 AND 2 OR TAGS IN ('x', 'y')",
        "a BETWEEN 2 AND 1",
        "a LIKE 'x%'",
        "a CONTAINS 'x'",
        "NOT a STARTSWITH 'x'",
        "a = 'x",
        "(a = 1",
        "a = b",
        "1 = 1",
        "TRUE",
        "a > 'x'",
        "a = 1.5 AND a <> -3",
        "a == 1",
        "a != 1",
    ] {
        let step = format!("SQL {expression:?}");
        s.receive(&step, &by, ask(EMPTY, H).filter(sql(expression)))
            .await;
    }
}

async fn batches(s: &mut Scene) {
    let by = s.consumer("c", FULL, G).await;
    let producer = s.producer("p", &[FULL]).await;
    let all = (0..80).map(|i| message(FULL, &format!("m{i:02}")));
    s.put(&producer, all.collect()).await;
    for size in [-1, 0, 1, 32, 33, 1000] {
        let step = format!("a batch of {size}");
        s.receive(&step, &by, ask(FULL, G).batch(size)).await;
    }
}
