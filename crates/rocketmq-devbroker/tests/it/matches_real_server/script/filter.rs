//! Which messages a filter lets through.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Group, Part, Topic, group, topic};
use crate::matches_real_server::{
    caller::{Edit, ask, message, sql, tags},
    scene::Scene,
};

const TAGS: &str = "filter-tags";
const SQL: &str = "filter-sql";
const TOPICS: &[Topic] = &[
    topic(TAGS, TopicType::Normal, 1),
    topic(SQL, TopicType::Normal, 1),
];
/// A group for each filter, so that each sees every message.
const GROUPS: &[Group] = &[
    group("filter-0"),
    group("filter-1"),
    group("filter-2"),
    group("filter-3"),
    group("filter-4"),
    group("filter-5"),
    group("filter-6"),
    group("filter-7"),
    group("filter-8"),
    group("filter-9"),
    group("filter-10"),
    group("filter-11"),
    group("filter-12"),
    group("filter-13"),
    group("filter-14"),
    group("filter-15"),
];

pub(crate) const BY_TAG: Part = Part {
    name: "filter by tag",
    topics: TOPICS,
    groups: GROUPS,
    run: |s| Box::pin(by_tag(s)),
};

pub(crate) const BY_SQL: Part = Part {
    name: "filter by SQL",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(by_sql(s)),
};

/// Receives with one filter after the other, each by a group of its own.
async fn all(s: &mut Scene, topic: &str, filters: &[&str], read: Read) {
    for (i, expression) in filters.iter().enumerate() {
        let group = GROUPS[i].name;
        let by = s.consumer(&format!("c{i}"), topic, group).await;
        let ask = ask(topic, group).filter(read(expression));
        s.receive(&format!("{expression:?}"), &by, ask).await;
    }
}

type Read = fn(&str) -> Option<v2::FilterExpression>;

async fn by_tag(s: &mut Scene) {
    let by = s.producer("p", &[TAGS]).await;
    let m = |id| message(TAGS, id);
    let messages = vec![
        m("none"),
        m("a").tag("a"),
        m("b").tag("b"),
        m("A").tag("A"),
        m("blanks").tag(" a "),
        m("star").tag("*"),
        // Two tags of one hash code.
        m("AaAa").tag("AaAa"),
        m("BBBB").tag("BBBB"),
    ];
    s.put(&by, messages).await;
    let filters = ["*", "a", "a || b", " a ", "c", "A||b", "BBBB", "", "a||*"];
    all(s, TAGS, &filters, tags).await;
}

async fn by_sql(s: &mut Scene) {
    let by = s.producer("p", &[SQL]).await;
    let m = |id| message(SQL, id);
    let messages = vec![
        m("none"),
        m("5").property("n", "5"),
        m("20").property("n", "20"),
        m("30.5").property("n", "30.5"),
        m("word").property("n", "word"),
        m("tagged").tag("x").property("s", "abc"),
    ];
    s.put(&by, messages).await;
    let filters = [
        "n > 10",
        "n BETWEEN 5 AND 20",
        "n IS NULL",
        "n IS NOT NULL AND n <> 5",
        "n IN ('5', 'word')",
        "TAGS = 'x'",
        "s = 'abc' OR n = 20",
        "NOT (n = 5)",
        "s CONTAINS 'b'",
        "s STARTSWITH 'a' AND s ENDSWITH 'c'",
        "m > 1",
        "n = 'word'",
        "n >= 30.5",
        "TRUE",
        "n > 1 AND n < 10 OR s IS NOT NULL",
        "n NOT BETWEEN 5 AND 20",
    ];
    all(s, SQL, &filters, sql).await;
}
