//! Layers, extractors, state, tags.

use kratos::AppInfo;
use kratos_broker::{
    Bytes, Delivery, Extension, FromRef, Headers, Json, Key, Message, MessageId, Protobuf, Router,
    State, Tag, memory::Broker, testing::Started,
};
use tower::{ServiceBuilder, timeout::TimeoutLayer, util::MapRequestLayer};

use crate::support::{Log, publish, secs, server, subscription, text, until};

#[derive(Clone, Debug)]
struct Trail(Vec<&'static str>);

/// A layer that notes its name on each message.
fn note(name: &'static str) -> MapRequestLayer<impl Fn(Delivery) -> Delivery + Clone> {
    MapRequestLayer::new(move |mut delivery: Delivery| {
        let mut trail = delivery
            .extension::<Trail>()
            .cloned()
            .unwrap_or(Trail(Vec::new()));
        trail.0.push(name);
        delivery.insert_extension(trail);
        delivery
    })
}

#[tokio::test(start_paused = true)]
async fn layers_apply_to_subscriptions_added_after_them_outermost_first() {
    let broker = Broker::new();
    let seen = Log::default();
    let handler = {
        let seen = seen.clone();
        move |delivery: Delivery| {
            let seen = seen.clone();
            async move {
                let trail = delivery.extension::<Trail>().cloned();
                seen.add((
                    delivery.topic().to_string(),
                    trail.map(|t| t.0).unwrap_or_default(),
                ));
            }
        }
    };
    let router = Router::new()
        .subscribe("none", "g", handler.clone())
        .layer(note("a"))
        .subscribe("one", "g", handler.clone())
        .layer(
            ServiceBuilder::new()
                .layer(note("b"))
                .layer(TimeoutLayer::new(secs(60))),
        )
        .subscribe("two", "g", handler);
    let started = Started::start(server(&broker, Router::new().merge(router))).await;
    for topic in ["none", "one", "two"] {
        publish(&broker, Message::new(topic, "x")).await;
        until("it is seen", || {
            seen.all().iter().any(|(seen, _)| seen == topic)
        })
        .await;
    }
    let expected = [
        ("none", vec![]),
        ("one", vec!["a"]),
        ("two", vec!["a", "b"]),
    ];
    assert_eq!(
        seen.all(),
        expected.map(|(topic, trail)| (topic.to_owned(), trail))
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn disjoint_tags_of_one_topic_and_group_go_to_their_own_handlers() {
    let broker = Broker::new();
    let (paid, other) = (Log::default(), Log::default());
    let note = |log: &Log<String>| {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move { log.add(text(&delivery)) }
        }
    };
    let router = Router::new()
        .subscribe_with(subscription().tags(["paid"]), note(&paid))
        .subscribe_with(subscription().tags(["refunded", "lost"]), note(&other));
    let started = Started::start(server(&broker, router)).await;
    for tag in ["paid", "unwanted", "lost", "refunded", "paid"] {
        publish(&broker, Message::new("t", tag).tag(tag)).await;
    }
    until("all are handled", || paid.len() + other.len() == 4).await;
    assert_eq!(paid.all(), ["paid", "paid"]);
    let mut others = other.all();
    others.sort();
    assert_eq!(others, ["lost", "refunded"]);
    started.stop(secs(5)).await.unwrap();
}

#[derive(Clone)]
struct App {
    name: &'static str,
}

#[derive(Clone)]
struct Name(&'static str);

impl FromRef<App> for Name {
    fn from_ref(app: &App) -> Self {
        Self(app.name)
    }
}

#[tokio::test(start_paused = true)]
async fn extractors_come_in_any_order_eight_at_a_time() {
    let broker = Broker::new();
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |Json(body): Json<Vec<u8>>,
              State(Name(name)): State<Name>,
              id: MessageId,
              Key(key): Key,
              tag: Option<Tag>,
              headers: Headers,
              Extension(info): Extension<AppInfo>,
              raw: Bytes| {
            let log = log.clone();
            async move {
                let header = headers.get("h").map(str::to_owned);
                log.add((
                    body,
                    name,
                    id.to_string(),
                    key,
                    tag,
                    header,
                    info.name().to_owned(),
                    raw,
                ));
            }
        }
    };
    let router = Router::new()
        .subscribe_with(subscription(), handler)
        .with_state(App { name: "app" });
    let started = Started::start(server(&broker, router)).await;
    let message = Message::json("t", &[1, 2])
        .unwrap()
        .key("k")
        .header("h", "v");
    let id = publish(&broker, message).await;
    until("it is handled", || log.len() == 1).await;
    let expected = (
        vec![1, 2],
        "app",
        id,
        "k".to_owned(),
        None,
        Some("v".to_owned()),
        "conformance".to_owned(),
        Bytes::from_static(b"[1,2]"),
    );
    assert_eq!(log.all(), [expected]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn protobuf_bodies_are_decoded_and_bad_ones_are_dead_letters() {
    let broker = Broker::new();
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |Protobuf(value): Protobuf<String>| {
            let log = log.clone();
            async move { log.add(value) }
        }
    };
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    ))
    .await;
    publish(&broker, Message::new("t", "\u{7f}nonsense")).await;
    publish(&broker, Message::protobuf("t", &"hello".to_owned())).await;
    until("both are settled", || {
        broker.backlog("t", "g") == 0 && log.len() == 1
    })
    .await;
    assert_eq!(log.all(), ["hello"]);
    assert_eq!(broker.dead_letters("g")[0].body(), "\u{7f}nonsense");
    started.stop(secs(5)).await.unwrap();
}
