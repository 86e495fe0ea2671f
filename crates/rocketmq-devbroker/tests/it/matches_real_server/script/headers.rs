//! Calls with missing, odd and wrong headers.

use std::time::Duration;

use rocketmq_devbroker::TopicType;
use rocketmq_proto::v2;

use super::{Part, Topic, topic};
use crate::matches_real_server::{
    caller::{Caller, ask, message, publishing, resource, seconds},
    scene::Scene,
};

const T: &str = "headers-t";
const G: &str = "headers-g";
const TOPICS: &[Topic] = &[topic(T, TopicType::Normal, 1)];

pub(crate) const PART: Part = Part {
    name: "headers",
    topics: TOPICS,
    groups: &[super::group(G)],
    run: |s| Box::pin(run(s)),
};

fn route() -> v2::QueryRouteRequest {
    v2::QueryRouteRequest {
        topic: resource(T),
        endpoints: None,
    }
}

async fn run(s: &mut Scene) {
    let by = s.stranger("a");
    s.route("all headers", &by, route()).await;
    for language in ["GO", "java", "KLINGON", ""] {
        let mut by = by.clone().with("x-mq-language", language);
        s.route(&format!("route in language {language:?}"), &by, route())
            .await;
        let step = format!("settings in language {language:?}");
        s.settings(&step, &mut by, publishing(&[T])).await;
        let step = format!("heartbeat in language {language:?}");
        s.heartbeat(&step, &by, resource(G)).await;
        let step = format!("send in language {language:?}");
        s.send(&step, &by, vec![message(T, "m")]).await;
    }
    let mut silent = by.clone().without("x-mq-language");
    s.settings(
        "settings without x-mq-language",
        &mut silent,
        publishing(&[T]),
    )
    .await;
    for header in ["x-mq-language", "x-mq-protocol", "x-mq-client-version"] {
        let by = by.clone().without(header);
        s.route(&format!("without {header}"), &by, route()).await;
    }
    let other = by.clone().with("x-mq-protocol", "v9");
    s.route("protocol v9", &other, route()).await;
    let other = by.clone().with("x-mq-namespace", "elsewhere");
    s.route("a namespace in the header alone", &other, route())
        .await;
    for id in ["", " ", "with blank", "ümlaut", &"x".repeat(1000)] {
        let name: String = id.chars().take(12).collect();
        let step = format!("client id {name:?} of {} bytes", id.len());
        s.route(&step, &by.clone().named(id), route()).await;
    }
    old_versions(s).await;
    anonymous(s, by.anonymous()).await;
}

async fn old_versions(s: &mut Scene) {
    let by = s.consumer("c", T, G).await;
    let short = ask(T, G).deadline(Some(Duration::from_secs(4)));
    s.receive("too short a deadline", &by, short.clone()).await;
    for version in ["5.0.2", "5.0.3", "10.0", ""] {
        let by = by.clone().with("x-mq-client-version", version);
        let step = format!("too short a deadline in version {version:?}");
        s.receive(&step, &by, short.clone()).await;
    }
    let by = by.without("x-mq-client-version");
    s.receive("too short a deadline without a version", &by, short)
        .await;
}

/// No client id, in every call.
async fn anonymous(s: &mut Scene, mut by: Caller) {
    s.route("route without a client id", &by, route()).await;
    s.heartbeat("heartbeat without a client id", &by, resource(G))
        .await;
    s.send("send without a client id", &by, vec![message(T, "m")])
        .await;
    s.receive("receive without a client id", &by, ask(T, G))
        .await;
    let handles = ["garbage".to_owned()];
    s.ack("ack without a client id", &by, T, G, &handles).await;
    s.change(
        "change without a client id",
        &by,
        (T, G),
        "garbage",
        seconds(10),
    )
    .await;
    s.forward("forward without a client id", &by, (T, G), "garbage")
        .await;
    s.recall("recall without a client id", &by, T, "garbage")
        .await;
    s.end("end without a client id", &by, Default::default())
        .await;
    let request = v2::QueryAssignmentRequest {
        topic: resource(T),
        group: resource(G),
        endpoints: None,
    };
    s.assignment("assignment without a client id", &by, request)
        .await;
    s.terminate("termination without a client id", &by, resource(G))
        .await;
    s.settings("settings without a client id", &mut by, publishing(&[T]))
        .await;
}
