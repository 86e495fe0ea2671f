//! Routes and assignments.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Group, Part, Topic, group, ordered, topic};
use crate::matches_real_server::{
    caller::{literal, resource},
    scene::Scene,
};

const G: &str = "route-g";
const FIFO: &str = "route-fifo-g";
const TOPICS: &[Topic] = &[
    topic("route-normal", TopicType::Normal, 4),
    topic("route-fifo", TopicType::Fifo, 4),
    topic("route-delay", TopicType::Delay, 4),
    topic("route-transaction", TopicType::Transaction, 4),
];
const GROUPS: &[Group] = &[group(G), ordered(FIFO)];

pub(crate) const PART: Part = Part {
    name: "route",
    topics: TOPICS,
    groups: GROUPS,
    run: |s| Box::pin(run(s)),
};

fn names() -> Vec<(&'static str, Option<v2::Resource>)> {
    vec![
        ("unknown", resource("nosuch")),
        ("absent", None),
        ("empty", literal("")),
        ("blank", literal("  ")),
        ("with a dot", literal("a.b")),
        ("with a blank", literal("a b")),
        ("not ASCII", literal("töpic")),
        ("with a control character", literal("a\u{1}b")),
        ("with a slash", literal("a/b")),
        ("with a bar", literal("a|b")),
        ("of 127 bytes", literal(&"x".repeat(127))),
        ("of 128 bytes", literal(&"x".repeat(128))),
        ("of 255 bytes", literal(&"x".repeat(255))),
        ("of 256 bytes", literal(&"x".repeat(256))),
        ("of the system", literal("SCHEDULE_TOPIC_XXXX")),
        ("that is copied", literal("TBW102")),
        ("of a trace", literal("RMQ_SYS_TRACE_TOPIC")),
        ("of the system by prefix", literal("rmq_sys_x")),
        (
            "of a trace, in another case",
            literal("rmq_sys_trace_topic"),
        ),
        ("like one of the system", literal("RMQ_SYS_x")),
        ("of benchmarks", literal("BenchmarkTest")),
        ("of checks", literal("TRANS_CHECK_MAX_TIME_TOPIC")),
        ("of half messages", literal("RMQ_SYS_TRANS_HALF_TOPIC")),
        ("of self-tests", literal("SELF_TEST_TOPIC")),
        ("of moved offsets", literal("OFFSET_MOVED_EVENT")),
        ("of replies", literal("DefaultCluster_REPLY_TOPIC")),
        (
            "of dead letters of 127 bytes",
            literal(&format!("%DLQ%{}", "x".repeat(122))),
        ),
        (
            "of dead letters of 128 bytes",
            literal(&format!("%DLQ%{}", "x".repeat(123))),
        ),
        (
            "of dead letters of 255 bytes",
            literal(&format!("%DLQ%{}", "x".repeat(250))),
        ),
        (
            "of dead letters of 256 bytes",
            literal(&format!("%DLQ%{}", "x".repeat(251))),
        ),
        (
            "of retries of 255 bytes",
            literal(&format!("%RETRY%{}", "x".repeat(248))),
        ),
        ("of dead letters of nobody", literal("%DLQ%nosuch")),
        ("of retries of nobody", literal("%RETRY%nosuch")),
        ("of the cluster", literal("DefaultCluster")),
    ]
}

fn endpoints(host: &str, port: i32) -> Option<v2::Endpoints> {
    Some(v2::Endpoints {
        scheme: v2::AddressScheme::DomainName.into(),
        addresses: vec![v2::Address {
            host: host.to_owned(),
            port,
        }],
    })
}

async fn run(s: &mut Scene) {
    let by = s.stranger("a");
    for topic in TOPICS {
        let request = v2::QueryRouteRequest {
            topic: resource(topic.name),
            endpoints: None,
        };
        let step = format!("route of a topic of type {}", topic.kind);
        s.route(&step, &by, request).await;
    }
    for (what, topic) in names() {
        let request = v2::QueryRouteRequest {
            topic: topic.clone(),
            endpoints: None,
        };
        s.route(&format!("route of a topic {what}"), &by, request)
            .await;
        let request = v2::QueryAssignmentRequest {
            topic,
            group: resource(G),
            endpoints: None,
        };
        s.assignment(&format!("assignment of a topic {what}"), &by, request)
            .await;
    }
    for (what, endpoints) in [
        (
            "with endpoints of no address",
            Some(v2::Endpoints::default()),
        ),
        (
            "with endpoints elsewhere",
            endpoints("elsewhere.invalid", 1),
        ),
        (
            "with a port out of range",
            endpoints("elsewhere.invalid", 70_000),
        ),
    ] {
        let request = v2::QueryRouteRequest {
            topic: resource("route-normal"),
            endpoints: endpoints.clone(),
        };
        s.route(&format!("route {what}"), &by, request).await;
        let request = v2::QueryAssignmentRequest {
            topic: resource("route-normal"),
            group: resource(G),
            endpoints,
        };
        s.assignment(&format!("assignment {what}"), &by, request)
            .await;
    }
    let request = v2::QueryRouteRequest {
        topic: Some(v2::Resource {
            resource_namespace: "elsewhere".to_owned(),
            ..resource("route-normal").unwrap()
        }),
        endpoints: None,
    };
    s.route("route of a topic of another namespace", &by, request)
        .await;
    for topic in ["route-normal", "route-fifo"] {
        for (what, group) in [
            ("a group", resource(G)),
            ("an ordered group", resource(FIFO)),
            ("an unknown group", resource("nosuch")),
            ("an absent group", None),
            ("an empty group", literal("")),
            ("a group with a blank", literal("a b")),
            ("a group of 120 bytes", literal(&"g".repeat(120))),
            ("a group of 121 bytes", literal(&"g".repeat(121))),
            ("a group of the system by prefix", literal("CID_RMQ_SYS_x")),
            ("a group of the system", literal("DEFAULT_CONSUMER")),
        ] {
            let request = v2::QueryAssignmentRequest {
                topic: resource(topic),
                group,
                endpoints: None,
            };
            let step = format!("assignment of {topic} for {what}");
            s.assignment(&step, &by, request).await;
        }
    }
}
