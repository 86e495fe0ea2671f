//! Dead letters of a real server, sent back.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use kratos_broker::{
    Backoff, DeadLetter, Delivery, Message, Policy, REPLAYED_ID, Rejection, Replay, Server, State,
    Subscription,
    testing::{Harness, Started, TopicKind, eventually},
};
use kratos_rocketmq::replay;
use tokio::time::sleep;

use crate::{INVISIBLE, Real, admin};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Default)]
struct Seen {
    mended: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Delivery>>>,
}

/// Gives up by request and by exhausted attempts, until it is mended.
async fn handle(State(seen): State<Seen>, delivery: Delivery) -> Result<(), Rejection> {
    if seen.mended.load(SeqCst) {
        seen.log.lock().unwrap().push(delivery);
        return Ok(());
    }
    match &delivery.body()[..] {
        b"retried" => Err(Rejection::retry("on purpose")),
        _ => Err(Rejection::poison("on purpose")),
    }
}

/// Letters of both kinds go back to an ordered topic with all they had; what is not wanted stays,
/// and is there for the next run, and the one after that.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_and_go_back_to_their_topic_once() {
    let h = Real::default();
    let topic = h.special_topic(TopicKind::Ordered, "replay").await.unwrap();
    let group = h.group("replay").await;
    let driver = h.driver().await;
    let seen = Seen::default();
    let policy = Policy::new()
        .max_attempts(2)
        .backoff(Backoff::fixed(Duration::from_secs(1)));
    let subscription = Subscription::new(&topic, &group)
        .policy(policy)
        .invisible_duration(INVISIBLE);
    let server = Server::new(driver.clone())
        .subscribe_with(subscription, handle)
        .with_state(seen.clone());
    let counters = server.counters();
    let started = Started::start(server).await;
    let publisher = driver.publisher();
    for (body, tag) in [("poison", "a"), ("retried", "b"), ("poison", "b")] {
        let message = Message::new(&topic, body)
            .key("k1")
            .key("k2")
            .tag(tag)
            .group("g1")
            .header("shop", "12");
        publisher.publish(message).await.unwrap();
    }
    eventually("all are dead", PATIENCE, || {
        counters.stats().dead_lettered >= 3
    })
    .await;
    seen.mended.store(true, SeqCst);
    // Their topic is made with the first of them.
    let letters = replay(&group);
    let known = admin().wait_for_topic(letters.from_topic(), PATIENCE).await;
    known.unwrap();
    sleep(Duration::from_secs(5)).await; // the confirmation of the last one

    driver.prepare_replay(&letters).await.unwrap();
    let mut shown = Vec::new();
    let listed = letters
        .list(&driver, pending(), |it| shown.push(it.id().clone()))
        .await
        .unwrap();
    assert_eq!((listed.seen, listed.matched), (3, 3), "{listed:?}");
    // The server says nothing about where they came from.
    let nowhere = letters.run(&publisher, pending(), |_| {}).await;
    assert!(nowhere.unwrap_err().is_invalid());

    // Its place is kept: what was read does not come a second time beside what was handed back.
    driver.prepare_replay(&letters).await.unwrap();
    let some = letters.clone().to(&topic).tag("b");
    let report = some.run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(
        (report.seen, report.replayed, report.unconfirmed),
        (3, 2, 0)
    );
    let all = letters.clone().to(&topic);
    driver.prepare_replay(&all).await.unwrap();
    let report = all.run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(
        (report.seen, report.replayed, report.unconfirmed),
        (1, 1, 0),
        "the one that is left"
    );
    let report = all.run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(report.seen, 0, "none twice");

    let log = || seen.log.lock().unwrap().clone();
    eventually("all are back", PATIENCE, || log().len() == 3).await;
    for back in log() {
        assert_eq!((back.keys().len(), back.message_group()), (2, Some("g1")));
        assert_eq!(back.headers().get("shop"), Some("12"));
        let old = back.headers().get(REPLAYED_ID).unwrap();
        assert!(shown.iter().any(|id| *id == *old), "{old} was listed");
        assert_eq!(back.attempt(), 1);
    }
    started.stop(PATIENCE).await.unwrap();
}

/// A reader's place is one for each topic; one that was made, and given no place, is given it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_at_the_start_of_each_topic_that_it_is_prepared_for() {
    let h = Real::default();
    let (one, two) = (h.topic("dead-one").await, h.topic("dead-two").await);
    let driver = h.driver().await;
    let publisher = driver.publisher();
    for topic in [&one, &two] {
        for n in 0..2 {
            let letter =
                Message::new(topic, n.to_string()).header(DeadLetter::ORIGIN_TOPIC, "none");
            publisher.publish(letter).await.unwrap();
        }
    }
    // A crash after the first step.
    let reader = h.group("half-made").await;
    let spec = rocketmq_admin::GroupSpec::new(&*reader).retry_max_times(1_000);
    admin().create_group(&spec).await.unwrap();
    for topic in [&one, &two] {
        let replay = Replay::new(topic, &reader);
        for _ in 0..2 {
            driver.prepare_replay(&replay).await.unwrap();
            let listed = replay.list(&driver, pending(), |_| {}).await.unwrap();
            assert_eq!(listed.seen, 2, "{topic}: {listed:?}");
        }
    }
}
