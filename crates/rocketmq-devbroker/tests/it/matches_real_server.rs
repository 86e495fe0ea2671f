//! The dev broker's answers beside those of a real Apache RocketMQ.
//!
//! [`script`] makes raw calls with right and odd arguments. What the real server answered is in
//! `matches_real_server/recorded.json`, one line a call; `make record` writes it again. Here the
//! dev broker is asked the same.

mod allowed;
mod caller;
#[cfg(feature = "real-server")]
mod real;
mod recording;
mod scene;
mod script;
mod view;

use rocketmq_devbroker::{DevBroker, GroupConfig};
use tonic::transport::Endpoint;

use self::{
    caller::{Stub, full},
    recording::Recording,
    scene::{Scene, WITNESS},
    script::Part,
};

const RECORDED: &str = include_str!("matches_real_server/recorded.json");

/// Bytes of a message that our side takes: the largest body and its properties fit.
const MAX_MESSAGE_BYTES: usize = 200 << 20;

#[tokio::test(start_paused = true)]
async fn the_dev_broker_answers_as_the_real_server_did() {
    let acts = script::acts();
    let stage = Embedded::furnished(acts.iter().flatten()).await;
    let answered = play(acts, &stage).await;
    let mut recorded = Recording::parse(RECORDED);
    allowed::accept(&mut recorded, &answered);
    let differences = recorded.differences(&answered);
    assert!(
        differences.is_empty(),
        "the real server answered otherwise (-) than the dev broker (+):\n{differences}"
    );
}

/// A server that has the topics and groups of the script.
trait Stage {
    /// The name of the only broker in its routes.
    const BROKER: &str;

    async fn connect(&self) -> Stub;
}

/// Plays one act after the other, the parts of each at the same time.
async fn play<S: Stage>(acts: impl IntoIterator<Item = Vec<Part>>, stage: &S) -> Recording {
    let mut answers = Vec::new();
    for act in acts {
        let playing = act.into_iter().map(async |part| {
            let mut scene = Scene::new(part.name, stage.connect().await, S::BROKER);
            (part.run)(&mut scene).await;
            (part.name.to_owned(), scene.into_steps())
        });
        answers.extend(futures_util::future::join_all(playing).await);
    }
    answers.into_iter().collect()
}

struct Embedded(DevBroker);

impl Embedded {
    async fn furnished(parts: impl Iterator<Item = &Part>) -> Self {
        let witnessed = DevBroker::builder()
            .strict(true)
            .group(full(WITNESS), GroupConfig::new());
        let builder = parts.fold(witnessed, |builder, part| {
            let builder = part.topics.iter().fold(builder, |builder, topic| {
                builder.topic_with_queues(full(topic.name), topic.kind, topic.queues)
            });
            part.groups.iter().fold(builder, |builder, group| {
                let config = GroupConfig::new()
                    .fifo(group.fifo)
                    .retry_max_times(group.retry);
                builder.group(full(group.name), config)
            })
        });
        Self(builder.start().await.unwrap())
    }
}

impl Stage for Embedded {
    const BROKER: &str = "devbroker";

    async fn connect(&self) -> Stub {
        let endpoint = Endpoint::from_static("http://devbroker.invalid");
        let channel = endpoint.connect_with_connector(self.0.connector()).await;
        Stub::new(channel.unwrap()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}
