//! What one client sends, the other receives.

use std::{collections::HashMap, time::Duration};

use rocketmq_grpc::{
    Consumer, ConsumerConfig, Filter, Message, MessageView, Producer, ProducerConfig, Resolution,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::peer::{Peer, Received, message, text};
use crate::site::{Kind, Site};

/// How long messages may take, on a busy machine; more than an orphan check's 10 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the commands of the other client, in seconds: it ends as soon as it has what it waits for.
const SECONDS: u64 = 60;
const BODY: &[u8] = "a body: \u{4f60}\u{597d} \u{1f600}\0\u{ff}".as_bytes();

/// Every case on the dev broker and on the real server.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod dev_broker {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::$case(super::Site::dev().await).await })*
        }
        mod real_server {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::$case(super::Site::real().await).await })*
        }
    };
}

on_both!(
    ours_receives_all_of_a_message_of_theirs,
    ours_receives_their_message_groups_in_order,
    ours_receives_their_delayed_messages_when_they_are_due,
    ours_receives_their_committed_transactions_alone,
    their_checker_commits_what_they_left_open,
    their_simple_consumer_receives_all_of_a_message_of_ours,
    their_simple_consumer_receives_compressed_bodies_of_ours,
    their_push_consumer_gets_a_failed_message_of_ours_again,
    their_push_consumer_receives_our_message_groups_in_order,
    their_consumer_receives_our_committed_transaction_alone,
    their_tag_filter_takes_the_tags_of_ours,
    their_sql_filter_takes_the_properties_of_ours,
    a_message_that_they_recalled_never_comes,
);

// === theirs to ours ===

async fn ours_receives_all_of_a_message_of_theirs(site: Site) {
    let (topic, group) = (site.topic(Kind::Normal).await, site.group(false).await);
    let consumer = consumer(&site, &topic, &group).await;
    let mut theirs = message(&topic, BODY);
    theirs["tag"] = json!("paid");
    theirs["keys"] = json!(["order-7", "customer-9"]);
    theirs["properties"] = json!({ "shop": "12", "note": "\u{e4}\u{4f60}" });
    let ids = Peer::send(&site.endpoints(), &[theirs]).await;

    let got = receive(&consumer, &topic, 1).await.remove(0);
    assert_eq!(got.id, ids[0]);
    assert_eq!(got.body, BODY);
    assert_eq!(got.tag.as_deref(), Some("paid"));
    let mut keys = got.keys.clone();
    keys.sort();
    assert_eq!(keys, ["customer-9", "order-7"]);
    let sent = [("shop", "12"), ("note", "\u{e4}\u{4f60}")];
    assert_eq!(
        got.properties,
        HashMap::from(sent.map(|(k, v)| (k.into(), v.into())))
    );
    assert_eq!(got.attempt, 1);
    close(consumer).await;
}

async fn ours_receives_their_message_groups_in_order(site: Site) {
    let (topic, group) = (site.topic(Kind::Fifo).await, site.group(true).await);
    let consumer = consumer(&site, &topic, &group).await;
    let sent: Vec<_> = (0..20).map(|n| ordered(&topic, n)).collect();
    Peer::send(&site.endpoints(), &sent).await;
    let got = receive(&consumer, &topic, sent.len()).await;
    assert_in_order(
        got.iter().map(|it| (it.group.clone(), &*it.body)),
        sent.len(),
    );
    close(consumer).await;
}

async fn ours_receives_their_delayed_messages_when_they_are_due(site: Site) {
    let (topic, group) = (site.topic(Kind::Delay).await, site.group(false).await);
    let consumer = consumer(&site, &topic, &group).await;
    let mut theirs = message(&topic, BODY);
    theirs["delay"] = json!(8);
    let begun = Instant::now();
    let ids = Peer::send(&site.endpoints(), &[theirs]).await;
    let got = receive(&consumer, &topic, 1).await.remove(0);
    assert_eq!(got.id, ids[0]);
    // Their timestamps are in whole seconds.
    assert!(
        begun.elapsed() >= Duration::from_secs(7),
        "came after {:?}",
        begun.elapsed()
    );
    close(consumer).await;
}

async fn ours_receives_their_committed_transactions_alone(site: Site) {
    let (topic, group) = (site.topic(Kind::Transaction).await, site.group(false).await);
    let consumer = consumer(&site, &topic, &group).await;
    let endpoints = site.endpoints();
    let half = |end: &str| json!({ "message": message(&topic, end.as_bytes()), "end": end });
    Peer::start(&endpoints, "transaction", &half("rollback"))
        .finished()
        .await;
    let mut committed = Peer::start(&endpoints, "transaction", &half("commit"));
    let id = text(&committed.next("sent").await);
    committed.finished().await;
    // The rolled back one was first.
    let got = receive(&consumer, &topic, 1).await.remove(0);
    assert_eq!((got.id, &*got.body), (id, &b"commit"[..]));
    close(consumer).await;
}

async fn their_checker_commits_what_they_left_open(site: Site) {
    let (topic, group) = (site.topic(Kind::Transaction).await, site.group(false).await);
    let consumer = consumer(&site, &topic, &group).await;
    let wanted = json!({
        "message": message(&topic, BODY), "end": "unknown", "seconds": SECONDS,
    });
    let mut theirs = Peer::start(&site.endpoints(), "transaction", &wanted);
    let id = text(&theirs.next("sent").await);
    assert_eq!(text(&theirs.next("checked").await), id);
    let got = receive(&consumer, &topic, 1).await.remove(0);
    assert_eq!(got.id, id);
    theirs.finished().await;
    close(consumer).await;
}

// === ours to theirs ===

async fn their_simple_consumer_receives_all_of_a_message_of_ours(site: Site) {
    let (topic, group) = (site.topic(Kind::Normal).await, site.group(false).await);
    let mut peer = Peer::consume(&site.endpoints(), "simple", &wanted(&topic, &group, 1)).await;
    let producer = producer(&site, &topic).await;
    let ours = Message::new(&topic, BODY)
        .tag("paid")
        .key("order-7")
        .key("customer-9")
        .property("shop", "12")
        .property("note", "\u{e4}\u{4f60}");
    let receipt = producer.send(ours).await.unwrap();

    let got = peer.received().await;
    assert_eq!(
        got,
        Received {
            id: receipt.message_id,
            body: BODY.into(),
            tag: Some("paid".into()),
            keys: vec!["customer-9".into(), "order-7".into()],
            group: None,
            properties: json!({ "shop": "12", "note": "\u{e4}\u{4f60}" }),
            attempt: 1,
        }
    );
    peer.finished().await;
}

async fn their_simple_consumer_receives_compressed_bodies_of_ours(site: Site) {
    let (topic, group) = (site.topic(Kind::Normal).await, site.group(false).await);
    let mut peer = Peer::consume(&site.endpoints(), "simple", &wanted(&topic, &group, 1)).await;
    let config = ProducerConfig::new().topic(&topic).compress_above(1024);
    let producer = site.client().producer(config).await.unwrap();
    let body = BODY.repeat(1_000);
    producer
        .send(Message::new(&topic, body.clone()))
        .await
        .unwrap();
    assert_eq!(peer.received().await.body, body);
    peer.finished().await;
}

async fn their_push_consumer_gets_a_failed_message_of_ours_again(site: Site) {
    let (topic, group) = (site.topic(Kind::Normal).await, site.group(false).await);
    let mut wanted = wanted(&topic, &group, 1);
    wanted["fail_first"] = json!(true);
    let mut peer = Peer::consume(&site.endpoints(), "push", &wanted).await;
    let producer = producer(&site, &topic).await;
    let receipt = producer.send(Message::new(&topic, BODY)).await.unwrap();

    let failed = Received::read(&peer.next("failed").await);
    assert_eq!((failed.id, failed.attempt), (receipt.message_id.clone(), 1));
    let again = peer.received().await;
    assert_eq!((again.id, again.attempt), (receipt.message_id, 2));
    peer.finished().await;
}

async fn their_push_consumer_receives_our_message_groups_in_order(site: Site) {
    const MESSAGES: usize = 20;
    let (topic, group) = (site.topic(Kind::Fifo).await, site.group(true).await);
    let mut peer =
        Peer::consume(&site.endpoints(), "push", &wanted(&topic, &group, MESSAGES)).await;
    let producer = producer(&site, &topic).await;
    for n in 0..MESSAGES {
        let ours = Message::new(&topic, format!("{n:02}")).group(format!("g{}", n % 2));
        producer.send(ours).await.unwrap();
    }
    let mut got = Vec::new();
    for _ in 0..MESSAGES {
        got.push(peer.received().await);
    }
    assert_in_order(got.iter().map(|it| (it.group.clone(), &*it.body)), MESSAGES);
    peer.finished().await;
}

async fn their_consumer_receives_our_committed_transaction_alone(site: Site) {
    let (topic, group) = (site.topic(Kind::Transaction).await, site.group(false).await);
    let mut peer = Peer::consume(&site.endpoints(), "push", &wanted(&topic, &group, 1)).await;
    let config = ProducerConfig::new()
        .topic(&topic)
        .transaction_checker(async |_: MessageView| Resolution::Unknown);
    let producer = site.client().producer(config).await.unwrap();
    let half = producer
        .begin(Message::new(&topic, "rolled back"))
        .await
        .unwrap();
    half.rollback().await.unwrap();
    let half = producer
        .begin(Message::new(&topic, "committed"))
        .await
        .unwrap();
    let receipt = half.commit().await.unwrap();
    let got = peer.received().await;
    assert_eq!(
        (got.id, &*got.body),
        (receipt.message_id, &b"committed"[..])
    );
    peer.finished().await;
}

async fn their_tag_filter_takes_the_tags_of_ours(site: Site) {
    let (topic, group) = (site.topic(Kind::Normal).await, site.group(false).await);
    let mut wanted = wanted(&topic, &group, 2);
    wanted["filter"] = json!("a || b");
    let mut peer = Peer::consume(&site.endpoints(), "simple", &wanted).await;
    let producer = producer(&site, &topic).await;
    for tag in ["c", "a", "d", "b"] {
        producer
            .send(Message::new(&topic, BODY).tag(tag))
            .await
            .unwrap();
    }
    let mut tags = vec![peer.received().await.tag, peer.received().await.tag];
    tags.sort();
    assert_eq!(tags, [Some("a".to_owned()), Some("b".to_owned())]);
    peer.finished().await;
}

async fn their_sql_filter_takes_the_properties_of_ours(site: Site) {
    let (topic, group) = (site.topic(Kind::Normal).await, site.group(false).await);
    let mut wanted = wanted(&topic, &group, 1);
    wanted["filter"] = json!("price > 20 AND shop IS NOT NULL");
    wanted["sql"] = json!(true);
    let mut peer = Peer::consume(&site.endpoints(), "simple", &wanted).await;
    let producer = producer(&site, &topic).await;
    for price in ["10", "30", "20"] {
        let ours = Message::new(&topic, price)
            .property("price", price)
            .property("shop", "1");
        producer.send(ours).await.unwrap();
    }
    assert_eq!(&*peer.received().await.body, b"30");
    peer.finished().await;
}

async fn a_message_that_they_recalled_never_comes(site: Site) {
    let (topic, group) = (site.topic(Kind::Delay).await, site.group(false).await);
    let consumer = consumer(&site, &topic, &group).await;
    let mut theirs = message(&topic, BODY);
    theirs["delay"] = json!(6);
    let wanted = json!({ "messages": [theirs], "recall": true });
    let mut peer = Peer::start(&site.endpoints(), "send", &wanted);
    let sent = text(&peer.next("sent").await);
    assert_eq!(text(&peer.next("recalled").await), sent);
    peer.finished().await;
    // Of a later one that is not recalled, nothing else comes.
    let producer = producer(&site, &topic).await;
    let later = Message::new(&topic, BODY).delay(Duration::from_secs(8));
    let receipt = producer.send(later).await.unwrap();
    let got = receive(&consumer, &topic, 1).await.remove(0);
    assert_eq!(got.id, receipt.message_id);
    close(consumer).await;
}

// === our side ===

async fn producer(site: &Site, topic: &str) -> Producer {
    let config = ProducerConfig::new().topic(topic);
    site.client().producer(config).await.unwrap()
}

async fn consumer(site: &Site, topic: &str, group: &str) -> Consumer {
    let config = ConsumerConfig::new(group).subscribe(topic, Filter::all());
    site.client().consumer(config).await.unwrap()
}

/// Receives and acknowledges so many messages.
async fn receive(consumer: &Consumer, topic: &str, count: usize) -> Vec<MessageView> {
    let mut got = Vec::new();
    let all = async {
        while got.len() < count {
            for mut lease in consumer.receive(topic, 32).await.unwrap() {
                got.push(lease.take_message());
                consumer.ack(lease).await.unwrap();
            }
        }
    };
    let in_time = timeout(PATIENCE, all).await;
    assert!(
        in_time.is_ok(),
        "{} of {count} messages within {PATIENCE:?}",
        got.len()
    );
    got
}

async fn close(consumer: Consumer) {
    consumer
        .close(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
}

fn wanted(topic: &str, group: &str, count: usize) -> Value {
    json!({ "topic": topic, "group": group, "count": count, "seconds": SECONDS })
}

/// The n-th of two message groups' messages.
fn ordered(topic: &str, n: usize) -> Value {
    let mut theirs = message(topic, format!("{n:02}").as_bytes());
    theirs["group"] = json!(format!("g{}", n % 2));
    theirs
}

fn assert_in_order<'a>(got: impl Iterator<Item = (Option<String>, &'a [u8])>, count: usize) {
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    for (group, body) in got {
        let body = String::from_utf8_lossy(body).into_owned();
        groups
            .entry(group.expect("a message group"))
            .or_default()
            .push(body);
    }
    assert_eq!(groups.len(), 2, "{groups:?}");
    assert_eq!(
        groups.values().map(Vec::len).sum::<usize>(),
        count,
        "{groups:?}"
    );
    for bodies in groups.values() {
        assert!(bodies.is_sorted(), "{groups:?}");
    }
}
