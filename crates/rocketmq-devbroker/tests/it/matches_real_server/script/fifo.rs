//! Consumption in order: the batch of a queue is one unit.

use rocketmq_devbroker::TopicType;

use super::{Group, Part, Topic, ordered, seconds, topic};
use crate::matches_real_server::{
    caller::{Ask, Caller, Edit, ask, message},
    scene::{Received, Scene},
};

const TOPICS: &[Topic] = &[
    topic("fifo-held", TopicType::Fifo, 1),
    topic("fifo-nameless", TopicType::Fifo, 1),
    topic("fifo-empty", TopicType::Fifo, 1),
    topic("fifo-back", TopicType::Fifo, 1),
    topic("fifo-behind", TopicType::Fifo, 1),
    topic("fifo-lapse", TopicType::Fifo, 1),
    topic("fifo-first", TopicType::Fifo, 1),
    topic("fifo-extend", TopicType::Fifo, 1),
    topic("fifo-dead", TopicType::Fifo, 1),
    topic("fifo-normal", TopicType::Normal, 1),
];
const G: &str = "fifo-g";
const GROUPS: &[Group] = &[ordered(G)];

pub(crate) fn parts() -> [Part; 10] {
    let part = |name, run| Part {
        name,
        topics: &[],
        groups: &[],
        run,
    };
    [
        Part {
            topics: TOPICS,
            groups: GROUPS,
            ..part("fifo: held", |s| Box::pin(held(s)))
        },
        part("fifo: no attempt id", |s| Box::pin(nameless(s))),
        part("fifo: empty attempt id", |s| Box::pin(empty(s))),
        part("fifo: handed back", |s| Box::pin(back(s))),
        part("fifo: acked behind a hand-back", |s| Box::pin(behind(s))),
        part("fifo: lapse", |s| Box::pin(lapse(s))),
        part("fifo: handed back first", |s| Box::pin(first(s))),
        part("fifo: extended", |s| Box::pin(extend(s))),
        part("fifo: dead letter", |s| Box::pin(dead(s))),
        part("fifo: a topic without order", |s| Box::pin(normal(s))),
    ]
}

fn get(topic: &str, attempt: &str) -> Ask {
    ask(topic, G).attempt(attempt)
}

/// Stores messages of two groups and lets a consumer hold them all; another one is there, too.
async fn hold(
    s: &mut Scene,
    topic: &str,
    all: &[(&str, &str)],
    ask: Ask,
) -> (Caller, Caller, Received) {
    let producer = s.producer("p", &[topic]).await;
    let a = s.consumer("a", topic, G).await;
    let b = s.consumer("b", topic, G).await;
    let all = all
        .iter()
        .map(|(id, group)| message(topic, id).group(group));
    s.put(&producer, all.collect()).await;
    let held = s.receive("a holds", &a, ask).await;
    (a, b, held)
}

const SIX: [(&str, &str); 6] = [
    ("k1-1", "k1"),
    ("k1-2", "k1"),
    ("k1-3", "k1"),
    ("k2-1", "k2"),
    ("k2-2", "k2"),
    ("k2-3", "k2"),
];
const TWO: [(&str, &str); 2] = [("k1-1", "k1"), ("k2-1", "k2")];

async fn held(s: &mut Scene) {
    let t = "fifo-held";
    let (a, b, held) = hold(s, t, &SIX, get(t, "a1")).await;
    let h = held.handles();
    s.receive("b receives meanwhile", &b, get(t, "b1")).await;
    s.receive("a receives meanwhile, another attempt", &a, get(t, "a2"))
        .await;
    let again = s
        .receive("a receives meanwhile, the same attempt", &a, get(t, "a1"))
        .await;
    let h2 = again.handles();
    let h = if h2.len() == 6 { h2 } else { h };
    s.ack(
        "a acks the last three",
        &a,
        t,
        G,
        h.get(3..).unwrap_or_default(),
    )
    .await;
    s.receive("b receives after that", &b, get(t, "b2")).await;
    let producer = s.producer("p2", &[t]).await;
    s.put(&producer, vec![message(t, "k2-4").group("k2")]).await;
    s.receive("b receives although another one was sent", &b, get(t, "b3"))
        .await;
    s.ack(
        "a acks the first three",
        &a,
        t,
        G,
        h.get(..3).unwrap_or_default(),
    )
    .await;
    let next = s
        .receive_soon("b receives the next", &b, get(t, "b4"))
        .await;
    s.ack("b acks it", &b, t, G, &next.handles()).await;
    s.receive("nothing is left", &a, get(t, "a9")).await;
}

async fn nameless(s: &mut Scene) {
    let t = "fifo-nameless";
    let (a, b, held) = hold(s, t, &SIX, ask(t, G)).await;
    let h = held.handles();
    s.ack(
        "a acks the last three",
        &a,
        t,
        G,
        h.get(3..).unwrap_or_default(),
    )
    .await;
    let again = s.receive("b receives", &b, ask(t, G)).await;
    s.ack(
        "a acks the first three",
        &a,
        t,
        G,
        h.get(..3).unwrap_or_default(),
    )
    .await;
    s.ack("b acks all", &b, t, G, &again.handles()).await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

/// An empty attempt id is one as any other.
async fn empty(s: &mut Scene) {
    let t = "fifo-empty";
    let (a, b, held) = hold(s, t, &SIX, get(t, "")).await;
    let h = held.handles();
    s.ack(
        "a acks the last three",
        &a,
        t,
        G,
        h.get(3..).unwrap_or_default(),
    )
    .await;
    let again = s.receive("b receives", &b, get(t, "")).await;
    s.ack(
        "a acks the first three",
        &a,
        t,
        G,
        h.get(..3).unwrap_or_default(),
    )
    .await;
    s.ack("b acks all", &b, t, G, &again.handles()).await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

async fn back(s: &mut Scene) {
    let t = "fifo-back";
    let (a, b, held) = hold(s, t, &SIX, get(t, "a1").batch(2)).await;
    s.ack("a acks the first", &a, t, G, &[held.handle(0)]).await;
    s.change(
        "a hands back the second",
        &a,
        (t, G),
        &held.handle(1),
        seconds(0),
    )
    .await;
    let rest = s.receive_soon("b receives", &b, get(t, "b1")).await;
    s.ack("a acks what it handed back", &a, t, G, &[held.handle(1)])
        .await;
    s.ack("b acks all", &b, t, G, &rest.handles()).await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

async fn behind(s: &mut Scene) {
    let t = "fifo-behind";
    let (a, b, held) = hold(s, t, &TWO, get(t, "a1")).await;
    s.ack("a acks the second", &a, t, G, &[held.handle(1)])
        .await;
    s.change(
        "a hands back the first",
        &a,
        (t, G),
        &held.handle(0),
        seconds(0),
    )
    .await;
    let both = s.receive_soon("b receives", &b, get(t, "b1")).await;
    s.ack("b acks all", &b, t, G, &both.handles()).await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

async fn first(s: &mut Scene) {
    let t = "fifo-first";
    let ask = get(t, "a1").invisible(seconds(10));
    let (a, b, held) = hold(s, t, &TWO, ask).await;
    s.change(
        "a hands back the first",
        &a,
        (t, G),
        &held.handle(0),
        seconds(0),
    )
    .await;
    s.ack("a acks the second", &a, t, G, &[held.handle(1)])
        .await;
    let both = s.receive_soon("b receives", &b, get(t, "b1")).await;
    s.ack("b acks all", &b, t, G, &both.handles()).await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

async fn lapse(s: &mut Scene) {
    let t = "fifo-lapse";
    let ask = get(t, "a1").invisible(seconds(10));
    let (a, b, held) = hold(s, t, &TWO, ask).await;
    s.ack("a acks the second", &a, t, G, &[held.handle(1)])
        .await;
    let both = s.receive_soon("b receives", &b, get(t, "b1")).await;
    s.ack("a acks what lapsed", &a, t, G, &[held.handle(0)])
        .await;
    s.change(
        "a extends what lapsed",
        &a,
        (t, G),
        &held.handle(0),
        seconds(10),
    )
    .await;
    s.ack("b acks all", &b, t, G, &both.handles()).await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

async fn extend(s: &mut Scene) {
    let t = "fifo-extend";
    let ask = get(t, "a1").invisible(seconds(10));
    let (a, b, held) = hold(s, t, &TWO, ask).await;
    let place = (t, G);
    let first = s
        .change(
            "a extends the first",
            &a,
            place,
            &held.handle(0),
            seconds(30),
        )
        .await;
    let second = s
        .change(
            "a extends the second",
            &a,
            place,
            &held.handle(1),
            seconds(30),
        )
        .await;
    for i in 1..=3 {
        let step = format!("b receives nothing, {i}");
        s.receive(&step, &b, get(t, &format!("b{i}"))).await;
    }
    s.ack("a acks with an old handle", &a, t, G, &[held.handle(0)])
        .await;
    s.ack("a acks with the new handles", &a, t, G, &[first, second])
        .await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

async fn dead(s: &mut Scene) {
    let t = "fifo-dead";
    let (a, b, held) = hold(s, t, &SIX, get(t, "a1").batch(2)).await;
    s.forward("the first to the dead letters", &a, (t, G), &held.handle(0))
        .await;
    s.receive("b receives meanwhile", &b, get(t, "b1")).await;
    s.ack("a acks the second", &a, t, G, &[held.handle(1)])
        .await;
    let rest = s.receive_soon("b receives", &b, get(t, "b2")).await;
    s.ack("b acks all", &b, t, G, &rest.handles()).await;
    s.receive("nothing is left", &b, get(t, "b9")).await;
}

/// An ordered group on a topic whose messages have no group.
async fn normal(s: &mut Scene) {
    let t = "fifo-normal";
    let producer = s.producer("p", &[t]).await;
    let a = s.consumer("a", t, G).await;
    s.put(
        &producer,
        vec![message(t, "m1"), message(t, "m2"), message(t, "m3")],
    )
    .await;
    let held = s.receive("a holds one", &a, get(t, "a1").batch(1)).await;
    s.receive("a receives meanwhile", &a, get(t, "a2")).await;
    s.ack("a acks it", &a, t, G, &held.handles()).await;
    let rest = s
        .receive_soon("a receives the rest", &a, get(t, "a3"))
        .await;
    s.ack("a acks the rest", &a, t, G, &rest.handles()).await;
}
