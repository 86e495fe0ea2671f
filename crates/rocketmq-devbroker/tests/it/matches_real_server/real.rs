//! A real Apache RocketMQ: `make record` and `make e2e` start one.
//!
//! `ROCKETMQ_ENDPOINTS` names the proxy, `ROCKETMQ_NAMESRV` the name server, through which
//! topics and groups are created. With `RECORD=1` the recording is written rather than compared.

use std::{path::Path, time::Duration};

use futures_util::{StreamExt as _, stream};
use rocketmq_admin::{Admin, GroupSpec, TopicSpec};
use rocketmq_proto::v2;
use tonic::transport::Endpoint;

use super::{
    MAX_MESSAGE_BYTES, RECORDED, Stage,
    caller::{Caller, Stub, full, resource},
    play,
    recording::Recording,
    scene::WITNESS,
    script::{self, Part},
};

/// How long a server may take until the proxy knows a topic that the broker has.
const ROUTED_WITHIN: Duration = Duration::from_secs(60);
const CREATED_AT_ONCE: usize = 16;

#[tokio::test]
async fn the_recording_is_what_the_real_server_answers() {
    let acts = script::acts();
    let stage = Real::furnished(acts.iter().flatten()).await;
    let answered = play(acts, &stage).await;
    if std::env::var("RECORD").is_ok_and(|record| record == "1") {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/matches_real_server/recorded.json");
        std::fs::write(file, answered.to_text()).unwrap();
        return;
    }
    let differences = Recording::parse(RECORDED).differences(&answered);
    assert!(
        differences.is_empty(),
        "recorded (-) and answered now (+); `make record` records again:\n{differences}"
    );
}

struct Real;

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} names the server: run `make e2e`"))
}

/// Topics and groups are made by one call each, and there are many.
async fn create(topics: Vec<TopicSpec>, groups: Vec<GroupSpec>) {
    let admin = Admin::new(env("ROCKETMQ_NAMESRV")).unwrap();
    let (admin, limit) = (&admin, CREATED_AT_ONCE);
    let topics = stream::iter(&topics).for_each_concurrent(limit, async |topic| {
        admin.create_topic(topic).await.unwrap();
    });
    let groups = stream::iter(&groups).for_each_concurrent(limit, async |group| {
        admin.create_group(group).await.unwrap();
    });
    tokio::join!(topics, groups);
}

impl Real {
    async fn furnished(parts: impl Iterator<Item = &Part>) -> Self {
        let parts: Vec<&Part> = parts.collect();
        let topics: Vec<_> = parts.iter().flat_map(|part| part.topics).collect();
        let specs = topics.iter().map(|topic| {
            let (name, kind, queues) = (full(topic.name), topic.kind, topic.queues);
            format!("{name}:{kind}:queues={queues}").parse().unwrap()
        });
        let specs: Vec<TopicSpec> = specs.collect();
        let groups = parts.iter().flat_map(|part| part.groups).map(|group| {
            let order = if group.fifo { ":orderly" } else { "" };
            let spec = format!("{}{order}:retry={}", full(group.name), group.retry);
            spec.parse().unwrap()
        });
        let groups = groups.chain([GroupSpec::new(full(WITNESS))]);
        create(specs, groups.collect()).await;
        let caller = Caller::new(Self.connect().await, "furnish");
        let routed = async {
            for topic in topics {
                while !is_routed(&caller, topic.name).await {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        let routed = tokio::time::timeout(ROUTED_WITHIN, routed).await;
        routed.expect("the proxy knows every topic");
        Self
    }
}

impl Stage for Real {
    const BROKER: &str = "broker-a";

    async fn connect(&self) -> Stub {
        let endpoint = Endpoint::from_shared(format!("http://{}", env("ROCKETMQ_ENDPOINTS")));
        let channel = endpoint.unwrap().connect().await.unwrap();
        Stub::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

async fn is_routed(caller: &Caller, topic: &str) -> bool {
    let request = v2::QueryRouteRequest {
        topic: resource(topic),
        endpoints: None,
    };
    let answer = caller
        .stub
        .clone()
        .query_route(caller.request(request))
        .await;
    !answer.unwrap().into_inner().message_queues.is_empty()
}
