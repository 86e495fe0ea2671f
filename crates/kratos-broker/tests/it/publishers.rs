//! Typed publishers, and many messages at once.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use kratos_broker::{
    Bytes, CONTENT_TYPE, Delivery, Encode, Error, ErrorKind, Json, Message, Publisher,
    RecallHandle, Receipt, Result, Router, State, TopicPublisher,
    driver::{Capabilities, Driver, GroupSpec},
    memory::Broker,
    testing::{Started, trace::spans},
};
use opentelemetry_sdk::trace::SpanData;
use tokio::time::sleep;
use tracing::Instrument;

use crate::support::{Log, millis, secs, server, text, until};

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    id: String,
    shop: String,
}

fn order(id: &str) -> Order {
    Order {
        id: id.to_owned(),
        shop: "s1".to_owned(),
    }
}

/// What arrives at `topic`, in the order it does.
async fn listen(broker: &Broker, topic: &str) -> (Log<Delivery>, Started) {
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move { log.add(delivery) }
        }
    };
    let router = Router::new().subscribe(topic, "listener", handler);
    (log, Started::start(server(broker, router)).await)
}

#[tokio::test(start_paused = true)]
async fn a_value_becomes_a_message_with_what_was_said_once() {
    let broker = Broker::new();
    let (log, started) = listen(&broker, "orders").await;
    let orders = TopicPublisher::json(Publisher::new(broker.clone()), "orders")
        .key(|order: &Order| order.id.clone())
        .group(|order: &Order| order.shop.clone())
        .tag("created")
        .with(|message, order| message.header("shop", order.shop.clone()));
    let receipt = orders.publish(&order("o1")).await.unwrap();
    until("it arrives", || log.len() == 1).await;
    let seen = &log.all()[0];
    assert_eq!(*seen.id(), receipt.id);
    assert_eq!(seen.keys(), ["o1"]);
    assert_eq!(seen.message_group(), Some("s1"));
    assert_eq!(seen.tag(), Some("created"));
    assert_eq!(seen.headers().get(CONTENT_TYPE), Some("application/json"));
    assert_eq!(seen.headers().get("shop"), Some("s1"));
    assert_eq!(text(seen), r#"{"id":"o1","shop":"s1"}"#);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn options_are_of_one_message_and_replace_what_was_said_once() {
    let broker = Broker::new();
    let (log, started) = listen(&broker, "orders").await;
    let orders = TopicPublisher::json(Publisher::new(broker.clone()), "orders").tag("created");
    let late = |message: Message| message.tag("late").delay(secs(60)).header("why", "unpaid");
    orders.publish_with(&order("o1"), late).await.unwrap();
    orders.publish(&order("o2")).await.unwrap();
    until("both arrive", || log.len() == 2).await;
    let tags: Vec<_> = log
        .all()
        .iter()
        .map(|d| d.tag().map(str::to_owned))
        .collect();
    assert_eq!(tags, [Some("created".to_owned()), Some("late".to_owned())]);
    assert_eq!(log.all()[1].headers().get("why"), Some("unpaid"));
    started.stop(secs(5)).await.unwrap();
}

struct Csv;

impl Encode<Vec<String>> for Csv {
    fn content_type(&self) -> &str {
        "text/csv"
    }

    fn encode(&self, row: &Vec<String>) -> Result<Bytes, Box<dyn StdError + Send + Sync>> {
        if row.iter().any(|cell| cell.contains(',')) {
            return Err("a cell has a comma".into());
        }
        Ok(row.join(",").into())
    }
}

#[tokio::test(start_paused = true)]
async fn protobuf_and_codecs_of_ones_own_say_what_they_are() {
    let broker = Broker::new();
    let (log, started) = listen(&broker, "t").await;
    let publisher = Publisher::new(broker.clone());
    let words = TopicPublisher::<_, String>::protobuf(publisher.clone(), "t");
    words.publish(&"hello".to_owned()).await.unwrap();
    let rows = TopicPublisher::new(publisher, "t", Csv);
    rows.publish(&vec!["a".to_owned(), "b".to_owned()])
        .await
        .unwrap();
    let error = rows.publish(&vec![",".to_owned()]).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
    let words = error.to_string();
    assert!(
        words.contains("text/csv") && words.contains("topic t"),
        "{words}"
    );
    assert!(error.source().unwrap().to_string().contains("comma"));
    until("both arrive", || log.len() == 2).await;
    let types: Vec<_> = log
        .all()
        .iter()
        .map(|d| d.headers().get(CONTENT_TYPE).unwrap().to_owned())
        .collect();
    assert_eq!(types, ["application/protobuf", "text/csv"]);
    started.stop(secs(5)).await.unwrap();
}

fn find(name: &str) -> Vec<SpanData> {
    let spans = spans("trace-in").get_finished_spans().unwrap();
    spans.into_iter().filter(|span| span.name == name).collect()
}

/// The trace goes `conformance` → `send t-in` → `process t-in` → `send t-out` → `process t-out`.
#[tokio::test(start_paused = true)]
async fn a_value_published_inside_a_handler_belongs_to_the_trace_of_its_message() {
    spans("trace-in");
    spans("trace-out");
    let broker = Broker::new();
    let onward = TopicPublisher::json(Publisher::new(broker.clone()), "trace-out");
    let pass_on = |State(onward): State<TopicPublisher<Broker, Order>>,
                   Json(order): Json<Order>| {
        async move {
            onward
                .publish(&order)
                .await
                .map(drop)
                .map_err(kratos_broker::AnyError::from)
        }
    };
    let router = Router::new()
        .subscribe("trace-in", "g", pass_on)
        .with_state(onward);
    let passing = Started::start(server(&broker, router)).await;
    let (log, listening) = listen(&broker, "trace-out").await;
    let first = TopicPublisher::json(Publisher::new(broker.clone()), "trace-in");
    let root = tracing::info_span!(parent: None, "conformance");
    let sent = order("o1");
    first.publish(&sent).instrument(root).await.unwrap();
    until("it arrives", || log.len() == 1).await;
    passing.stop(secs(5)).await.unwrap();
    listening.stop(secs(5)).await.unwrap();

    let names = [
        "send trace-in",
        "process trace-in",
        "send trace-out",
        "process trace-out",
    ];
    let chain: Vec<SpanData> = names
        .iter()
        .map(|name| {
            let mut found = find(name);
            assert_eq!(found.len(), 1, "{name}");
            found.remove(0)
        })
        .collect();
    for pair in chain.windows(2) {
        let (parent, child) = (&pair[0], &pair[1]);
        assert_eq!(
            child.parent_span_id,
            parent.span_context.span_id(),
            "{} is a child of {}",
            child.name,
            parent.name
        );
        assert_eq!(
            child.span_context.trace_id(),
            parent.span_context.trace_id()
        );
    }
    let root = find("conformance");
    let ids: Vec<_> = root
        .iter()
        .map(|span| span.span_context.span_id())
        .collect();
    assert!(
        ids.contains(&chain[0].parent_span_id),
        "the first is a child of the caller's span"
    );
}

/// A driver that notes what it is given, and fails or waits on demand.
#[derive(Clone, Default)]
struct Note {
    log: Log<String>,
    busy: Arc<std::sync::atomic::AtomicUsize>,
    most: Arc<std::sync::atomic::AtomicUsize>,
}

impl Driver for Note {
    const SYSTEM: &'static str = "note";
    type Consumer = <Broker as Driver>::Consumer;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none().ordering(true)
    }

    async fn publish(&self, message: Message) -> Result<Receipt> {
        use std::sync::atomic::Ordering::SeqCst;
        let body = String::from_utf8(message.body().to_vec()).unwrap();
        let busy = self.busy.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(busy, SeqCst);
        sleep(millis(10)).await;
        self.busy.fetch_sub(1, SeqCst);
        if body.starts_with("bad") {
            return Err(Error::new(ErrorKind::Transient, "on purpose"));
        }
        self.log.add(body.clone());
        Ok(Receipt::new(body))
    }

    async fn recall(&self, _: &RecallHandle) -> Result<()> {
        unreachable!("not tried")
    }

    async fn consumer(&self, group: GroupSpec, cx: kratos::StartContext) -> Result<Self::Consumer> {
        Broker::new().consumer(group, cx).await
    }
}

#[tokio::test(start_paused = true)]
async fn many_are_sent_at_once_and_never_more_than_allowed() {
    let driver = Note::default();
    let publisher = Publisher::new(driver.clone());
    let messages = (0..100).map(|n| Message::new("t", n.to_string()));
    let began = tokio::time::Instant::now();
    let results = publisher.publish_all(messages, 10).await;
    let ids: Vec<String> = results
        .into_iter()
        .map(|r| r.unwrap().id.to_string())
        .collect();
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(ids, expected, "a result for each, in their order");
    assert_eq!(driver.most.load(std::sync::atomic::Ordering::SeqCst), 10);
    assert_eq!(began.elapsed(), Duration::from_millis(100));
}

/// Its first part is a message group, its second the body; of some there is none.
#[derive(Clone)]
struct Second;

impl Encode<(String, String)> for Second {
    fn content_type(&self) -> &str {
        "text/plain"
    }

    fn encode(&self, it: &(String, String)) -> Result<Bytes, Box<dyn StdError + Send + Sync>> {
        if it.1.starts_with("none") {
            return Err("nothing to encode".into());
        }
        Ok(it.1.clone().into())
    }
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(g, v)| (g.to_owned(), v.to_owned())).into()
}

#[tokio::test(start_paused = true)]
async fn behind_a_value_that_cannot_be_encoded_nothing_of_its_group_is_sent() {
    let values = pairs([
        ("b", "none"),
        ("a", "a1"),
        ("b", "b2"),
        ("c", "c1"),
        ("b", "none"),
    ]);
    let grouped = |driver: &Note| {
        let publisher = TopicPublisher::new(Publisher::new(driver.clone()), "t", Second);
        let by = |value: &(String, String)| value.0.clone();
        [
            publisher.clone().group(by),
            publisher.with(move |message, value: &(String, String)| message.group(by(value))),
        ]
    };
    for which in 0..2 {
        let driver = Note::default();
        let publisher = grouped(&driver)[which].clone();
        let results = publisher.publish_all(&values, 8).await;
        let ok: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [false, true, false, true, false]);
        assert!(results[0].as_ref().unwrap_err().is_invalid());
        let behind = results[2].as_ref().unwrap_err().to_string();
        assert!(behind.contains("message 0 of the same call"), "{behind}");
        let mut sent = driver.log.all();
        sent.sort();
        assert_eq!(sent, ["a1", "c1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_group_are_sent_in_order_and_none_after_one_that_failed() {
    let driver = Note::default();
    let values = pairs([
        ("a", "a1"),
        ("b", "b1"),
        ("a", "bad"),
        ("b", "b2"),
        ("a", "a3"),
        ("b", "b3"),
    ]);
    let publisher = TopicPublisher::new(Publisher::new(driver.clone()), "t", Second)
        .group(|value: &(String, String)| value.0.clone());
    let results = publisher.publish_all(&values, 8).await;
    let ok: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, true, false, true, false, true]);
    assert!(results[2].as_ref().unwrap_err().is_transient());
    let behind = results[4].as_ref().unwrap_err();
    assert!(behind.to_string().contains("not sent"), "{behind}");
    let sent = driver.log.all();
    let of = |group: &str| -> Vec<String> {
        sent.iter()
            .filter(|it| it.starts_with(group))
            .cloned()
            .collect()
    };
    assert_eq!(of("a"), ["a1"]);
    assert_eq!(of("b"), ["b1", "b2", "b3"]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_is_cheap_to_clone_and_a_clone_goes_its_own_way() {
    let broker = Broker::new();
    let (log, started) = listen(&broker, "orders").await;
    let plain = TopicPublisher::json(Publisher::new(broker.clone()), "orders");
    let tagged = plain.clone().tag("vip");
    plain.publish(&order("o1")).await.unwrap();
    tagged.publish(&order("o2")).await.unwrap();
    until("both arrive", || log.len() == 2).await;
    let tags: Vec<_> = log.all().iter().map(|d| d.tag().is_some()).collect();
    assert_eq!(tags, [false, true]);
    started.stop(secs(5)).await.unwrap();
}
