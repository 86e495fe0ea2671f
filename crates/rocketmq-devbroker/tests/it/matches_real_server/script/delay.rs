//! Delayed messages and their recall.

use rocketmq_devbroker::TopicType;

use super::{Part, Topic, group, topic};
use crate::matches_real_server::{
    caller::{Edit, ask, message},
    scene::Scene,
};

const T: &str = "delay-t";
const NORMAL: &str = "delay-normal";
const G: &str = "delay-g";
const TOPICS: &[Topic] = &[
    topic(T, TopicType::Delay, 1),
    topic(NORMAL, TopicType::Normal, 1),
];

pub(crate) const PART: Part = Part {
    name: "delay",
    topics: TOPICS,
    groups: &[group(G)],
    run: |s| Box::pin(run(s)),
};

async fn run(s: &mut Scene) {
    let by = s.producer("p", &[T]).await;
    let consumer = s.consumer("c", T, G).await;
    let at = s.in_seconds(3);
    let later = s.in_seconds(3600);
    let tagged = message(T, "m1").tag("t").property("p", "v").deliver_at(at);
    let sent = s.send("in 3 s", &by, vec![tagged]).await;
    let due = sent.entries.first().map(|e| e.recall_handle.clone());
    let sent = s
        .send("in an hour", &by, vec![message(T, "m2").deliver_at(later)])
        .await;
    let far = sent.entries.first().map(|e| e.recall_handle.clone());
    let (due, far) = (due.unwrap_or_default(), far.unwrap_or_default());
    s.recall("recall with another topic", &by, NORMAL, &far)
        .await;
    s.recall("recall with an unknown topic", &by, "nosuch", &far)
        .await;
    s.recall("recall", &by, T, &far).await;
    s.recall("recall again", &by, T, &far).await;
    s.recall("recall of garbage", &by, T, "garbage").await;
    s.recall("recall of nothing", &by, T, "").await;
    s.recall("recall of base64", &by, T, "Z2FyYmFnZQ==").await;
    s.receive_whole_soon("what is delivered", &consumer, ask(T, G))
        .await;
    s.recall("recall of what was delivered", &by, T, &due).await;
    s.receive("the recalled one never comes", &consumer, ask(T, G))
        .await;
}
