//! Settings, heartbeats and good-byes.

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2::{self, ClientType, settings::PubSub, telemetry_command::Command};

use super::{Group, Part, Topic, group, ordered, topic};
use crate::matches_real_server::{
    caller::{
        literal, publishing, resource, seconds, settings_command, sql, subscribed, subscription,
        tags,
    },
    scene::Scene,
};

const T: &str = "register-t";
const G: &str = "register-g";
const FIFO: &str = "register-fifo-g";
const FEW: &str = "register-few-g";
const TOPICS: &[Topic] = &[topic(T, TopicType::Normal, 1)];
const GROUPS: &[Group] = &[
    group(G),
    ordered(FIFO),
    Group {
        name: FEW,
        fifo: false,
        retry: 0,
    },
];

pub(crate) const SETTINGS: Part = Part {
    name: "settings",
    topics: TOPICS,
    groups: GROUPS,
    run: |s| Box::pin(settings(s)),
};

pub(crate) const HEARTBEAT: Part = Part {
    name: "heartbeat",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(heartbeat(s)),
};

pub(crate) const TERMINATION: Part = Part {
    name: "termination",
    topics: &[],
    groups: &[],
    run: |s| Box::pin(termination(s)),
};

fn typed(kind: Option<i32>, settings: v2::Settings) -> v2::Settings {
    v2::Settings {
        client_type: kind,
        ..settings
    }
}

fn of(kind: ClientType) -> Option<i32> {
    Some(kind.into())
}

/// A subscription by a group of this name on the wire.
fn of_group(group: Option<v2::Resource>) -> v2::Settings {
    subscribed(subscription(T, G), |s| s.group = group)
}

fn of_topic(topic: Option<v2::Resource>, filter: Option<v2::FilterExpression>) -> v2::Settings {
    subscribed(subscription(T, G), |s| {
        s.subscriptions = vec![v2::SubscriptionEntry {
            topic,
            expression: filter,
        }];
    })
}

fn publishing_as(topic: Option<v2::Resource>) -> v2::Settings {
    v2::Settings {
        pub_sub: Some(PubSub::Publishing(v2::Publishing {
            topics: topic.into_iter().collect(),
            ..Default::default()
        })),
        ..publishing(&[])
    }
}

fn cases() -> Vec<(&'static str, v2::Settings)> {
    let push = || subscription(T, G);
    let none = v2::Settings::default();
    vec![
        ("of a producer", publishing(&[T])),
        ("of a producer without topics", publishing(&[])),
        ("of a producer of an unknown topic", publishing(&["nobody"])),
        (
            "of a producer of an illegal topic",
            publishing_as(literal("a b")),
        ),
        (
            "of a producer of an empty topic",
            publishing_as(literal("")),
        ),
        (
            "of a producer of a system topic",
            publishing_as(literal("TBW102")),
        ),
        (
            "of a producer with its own wishes",
            wishes(publishing(&[T])),
        ),
        ("of no type, publishing", typed(None, publishing(&[T]))),
        (
            "of type PUSH_CONSUMER, publishing",
            typed(of(ClientType::PushConsumer), publishing(&[T])),
        ),
        ("of nobody", none.clone()),
        (
            "of type PRODUCER and nothing else",
            typed(of(ClientType::Producer), none.clone()),
        ),
        (
            "of type PUSH_CONSUMER and nothing else",
            typed(of(ClientType::PushConsumer), none),
        ),
        ("of a push consumer", push()),
        ("of a push consumer with its own wishes", wishes(push())),
        (
            "of a simple consumer",
            typed(of(ClientType::SimpleConsumer), push()),
        ),
        (
            "of a pull consumer",
            typed(of(ClientType::PullConsumer), push()),
        ),
        (
            "of a lite push consumer",
            typed(of(ClientType::LitePushConsumer), push()),
        ),
        (
            "of a lite simple consumer",
            typed(of(ClientType::LiteSimpleConsumer), push()),
        ),
        (
            "of type PRODUCER, subscribing",
            typed(of(ClientType::Producer), push()),
        ),
        ("of no type, subscribing", typed(None, push())),
        ("of type 99, subscribing", typed(Some(99), push())),
        ("of an ordered group", subscription(T, FIFO)),
        ("of a group without retries", subscription(T, FEW)),
        ("of an unknown group", subscription(T, "nobody")),
        ("of an absent group", of_group(None)),
        ("of an empty group", of_group(literal(""))),
        ("of a group with a blank", of_group(literal("a b"))),
        ("of a group with a dot", of_group(literal("a.b"))),
        (
            "of a group of 121 bytes",
            of_group(literal(&"g".repeat(121))),
        ),
        (
            "of a group of the system",
            of_group(literal("DEFAULT_CONSUMER")),
        ),
        (
            "of a group of the system by prefix",
            of_group(literal("CID_RMQ_SYS_x")),
        ),
        (
            "without subscriptions",
            subscribed(push(), |s| s.subscriptions.clear()),
        ),
        (
            "of an unknown topic",
            of_topic(resource("nobody"), tags("*")),
        ),
        ("of an absent topic", of_topic(None, tags("*"))),
        ("of an illegal topic", of_topic(literal("a b"), tags("*"))),
        ("without a filter", of_topic(resource(T), None)),
        ("with a filter of no tags", of_topic(resource(T), tags(""))),
        ("with a filter of bars", of_topic(resource(T), tags("||"))),
        (
            "with a good SQL filter",
            of_topic(resource(T), sql("a > 1")),
        ),
        (
            "with a bad SQL filter",
            of_topic(resource(T), sql("a >> 1")),
        ),
    ]
}

/// What the server decides, whatever the client says.
fn wishes(settings: v2::Settings) -> v2::Settings {
    let settings = v2::Settings {
        access_point: Some(v2::Endpoints {
            scheme: v2::AddressScheme::IPv4.into(),
            addresses: vec![v2::Address {
                host: "127.0.0.1".to_owned(),
                port: 1,
            }],
        }),
        backoff_policy: Some(v2::RetryPolicy {
            max_attempts: 7,
            strategy: None,
        }),
        request_timeout: seconds(9),
        user_agent: Some(v2::Ua {
            language: v2::Language::Rust.into(),
            version: "1".to_owned(),
            platform: "p".to_owned(),
            hostname: "h".to_owned(),
        }),
        metric: Some(v2::Metric {
            on: true,
            endpoints: None,
        }),
        client_properties: [("k".to_owned(), "v".to_owned())].into(),
        ..settings
    };
    subscribed(settings, |s| {
        s.fifo = Some(true);
        s.receive_batch_size = Some(1000);
        s.long_polling_timeout = seconds(60);
    })
}

async fn settings(s: &mut Scene) {
    for (i, (step, settings)) in cases().into_iter().enumerate() {
        let mut by = s.stranger(&format!("c{i}"));
        s.settings(step, &mut by, settings).await;
    }
    let mut by = s.stranger("odd");
    let command = |command| v2::TelemetryCommand {
        status: None,
        command,
    };
    let trace = Command::ThreadStackTrace(v2::ThreadStackTrace::default());
    let verified = Command::VerifyMessageResult(v2::VerifyMessageResult::default());
    for (step, first) in [
        ("nothing in the first command", None),
        ("a stack trace that nobody asked for", Some(trace)),
        ("a verification that nobody asked for", Some(verified)),
    ] {
        let commands = vec![command(first), settings_command(publishing(&[T]))];
        s.telemetry(step, &mut by, commands).await;
    }
}

async fn heartbeat(s: &mut Scene) {
    let stranger = s.stranger("stranger");
    s.heartbeat("of a stranger", &stranger, resource(G)).await;
    let consumer = s.consumer("c", T, G).await;
    s.heartbeat("of a consumer", &consumer, resource(G)).await;
    s.heartbeat("of a consumer, again", &consumer, resource(G))
        .await;
    s.heartbeat("of a consumer, without a group", &consumer, None)
        .await;
    s.heartbeat("of a consumer, another group", &consumer, resource(FEW))
        .await;
    s.heartbeat(
        "of a consumer, an unknown group",
        &consumer,
        resource("nobody"),
    )
    .await;
    s.heartbeat("of a consumer, an empty group", &consumer, literal(""))
        .await;
    s.heartbeat("of a consumer, an illegal group", &consumer, literal("a b"))
        .await;
    let kind = ClientType::Producer;
    s.heartbeat_as("of a consumer as a producer", &consumer, resource(G), kind)
        .await;
    let kind = ClientType::Unspecified;
    s.heartbeat_as("of a consumer of no type", &consumer, resource(G), kind)
        .await;
    let producer = s.producer("p", &[T]).await;
    let kind = ClientType::Producer;
    s.heartbeat_as("of a producer", &producer, None, kind).await;
    s.heartbeat_as(
        "of a producer with a group",
        &producer,
        resource("nobody"),
        kind,
    )
    .await;
    s.heartbeat("of a producer as a consumer", &producer, resource(G))
        .await;
    let empty = s.producer("e", &[]).await;
    s.heartbeat_as("of a producer without topics", &empty, None, kind)
        .await;
    let simple = typed(of(ClientType::SimpleConsumer), subscription(T, G));
    let simple = s.introduce("s", simple).await;
    let kind = ClientType::SimpleConsumer;
    s.heartbeat_as("of a simple consumer", &simple, resource(G), kind)
        .await;
}

async fn termination(s: &mut Scene) {
    let stranger = s.stranger("stranger");
    s.terminate("of a stranger", &stranger, resource(G)).await;
    let consumer = s.consumer("c", T, G).await;
    s.terminate("of a consumer", &consumer, resource(G)).await;
    s.terminate("of a consumer, again", &consumer, resource(G))
        .await;
    s.heartbeat("heartbeat after it", &consumer, resource(G))
        .await;
    let consumer = s.consumer("c2", T, G).await;
    s.terminate("of a consumer without a group", &consumer, None)
        .await;
    let consumer = s.consumer("c3", T, G).await;
    s.terminate(
        "of a consumer of an unknown group",
        &consumer,
        resource("nobody"),
    )
    .await;
    let consumer = s.consumer("c4", T, G).await;
    s.terminate(
        "of a consumer of an illegal group",
        &consumer,
        literal("a b"),
    )
    .await;
    s.heartbeat("heartbeat after that", &consumer, resource(G))
        .await;
    let producer = s.producer("p", &[T]).await;
    s.terminate("of a producer", &producer, None).await;
    let producer = s.producer("p2", &[T]).await;
    s.terminate("of a producer with a group", &producer, resource(G))
        .await;
    let empty = s.producer("e", &[]).await;
    s.terminate("of a producer without topics", &empty, None)
        .await;
}
