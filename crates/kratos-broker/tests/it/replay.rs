//! Dead letters, sent back.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use kratos_broker::{
    DeadLetter, Delivery, Message, Publisher, REPLAYED_ID, Rejection, Replay, ReplayEnded, Router,
    Subscription, memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};

use crate::support::{Log, publish, secs, server, text, until};

const ORIGIN: &str = "x-dead-letter-origin-topic";
const ERROR_TYPE: &str = "x-dead-letter-error-type";

fn letter(body: &str) -> Message {
    Message::new("dead", body.to_owned()).header(ORIGIN, "orders")
}

fn replay() -> Replay {
    Replay::new("dead", "replay")
}

/// What comes back to `orders`.
async fn listen(broker: &Broker) -> (Log<Delivery>, Started) {
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move { log.add(delivery) }
        }
    };
    let router = Router::new().subscribe("orders", "g", handler);
    (log, Started::start(server(broker, router)).await)
}

fn bodies(log: &Log<Delivery>) -> Vec<String> {
    log.all().iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn letters_go_back_once_with_all_they_had() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    let (log, started) = listen(&broker).await;
    let whole = letter("whole")
        .key("k1")
        .key("k2")
        .tag("eu")
        .group("g1")
        .header("shop", "12")
        .header(ERROR_TYPE, "decode");
    let id = publish(&broker, whole).await;
    let mut shown = Vec::new();
    let report = replay()
        .run(&publisher, pending(), |letter| {
            shown.push(letter.id().to_string())
        })
        .await
        .unwrap();
    assert_eq!(
        (report.seen, report.replayed, report.unconfirmed),
        (1, 1, 0)
    );
    assert_eq!(report.ended, ReplayEnded::Exhausted);
    assert_eq!(shown, [id.as_str()]);
    until("it is back", || log.len() == 1).await;
    let back = &log.all()[0];
    assert_eq!(
        (back.keys().len(), back.tag(), back.message_group()),
        (2, Some("eu"), Some("g1"))
    );
    assert_eq!(back.headers().get("shop"), Some("12"));
    assert_eq!(back.headers().get(REPLAYED_ID), Some(id.as_str()));
    assert!(!back.headers().contains(ERROR_TYPE) && !back.headers().contains(ORIGIN));
    let again = replay().run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(again.seen, 0, "what was replayed is not read again");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_list_leaves_everything_where_it_is() {
    let broker = Broker::new();
    for n in 0..50 {
        publish(&broker, letter(&n.to_string())).await;
    }
    for _ in 0..2 {
        let mut shown = 0;
        let report = replay()
            .list(&broker, pending(), |_| shown += 1)
            .await
            .unwrap();
        assert_eq!((shown, report.matched, report.replayed), (50, 50, 0));
        assert_eq!(broker.held("dead", "replay"), 0, "all are handed back");
    }
    assert_eq!(broker.backlog("dead", "replay"), 50);
    let hasty = replay().idle(Duration::ZERO);
    let report = hasty.list(&broker, pending(), |_| {}).await.unwrap();
    assert_eq!(report.seen, 50, "it looks at least once");
}

#[tokio::test(start_paused = true)]
async fn every_condition_must_hold_and_the_others_stay() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    let (log, started) = listen(&broker).await;
    let mut ids = Vec::new();
    for (body, key, tag, error) in [
        ("both", "k", "eu", "timeout"),
        ("key", "k", "us", "timeout"),
        ("tag", "other", "eu", "timeout"),
        ("none", "other", "us", "decode"),
    ] {
        let letter = letter(body).key(key).tag(tag).header(ERROR_TYPE, error);
        ids.push(publish(&broker, letter).await);
    }
    let run = async |replay: Replay| replay.run(&publisher, pending(), |_| {}).await.unwrap();
    let report = run(replay().key("k").tag("eu").error_type("timeout")).await;
    assert_eq!((report.seen, report.matched), (4, 1));
    until("one is back", || bodies(&log) == ["both"]).await;
    run(replay().id(&ids[3])).await;
    until("the other is back", || bodies(&log) == ["both", "none"]).await;
    let future = SystemTime::now() + Duration::from_secs(3600);
    assert_eq!(run(replay().born_after(future)).await.matched, 0);
    let report = run(replay().born_before(future)).await;
    assert_eq!(
        (report.seen, report.replayed),
        (2, 2),
        "those that were left"
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_throttled_and_ends_after_so_many() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    for n in 0..100 {
        publish(&broker, letter(&n.to_string())).await;
    }
    let began = Instant::now();
    let slow = replay().per_second(2).at_most(60);
    let report = slow.run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!((report.replayed, report.ended), (60, ReplayEnded::AtMost));
    let took = began.elapsed();
    assert!((secs(29)..secs(32)).contains(&took), "{took:?}");
    assert_eq!(broker.backlog("dead", "replay"), 40);
    assert_eq!(broker.held("dead", "replay"), 0);
}

/// Letters that nobody wants are kept for longer than a lease: they are not read twice.
#[tokio::test(start_paused = true)]
async fn what_is_held_for_long_is_extended() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    for n in 0..20 {
        publish(&broker, letter(&n.to_string()).tag("unwanted")).await;
    }
    for n in 0..200 {
        publish(&broker, letter(&n.to_string()).tag("wanted")).await;
    }
    let slow = replay().tag("wanted").per_second(1);
    let report = slow.run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!((report.seen, report.replayed), (220, 200));
    assert_eq!(broker.backlog("dead", "replay"), 20);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_sent_stays_and_ends_the_run() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    let (log, started) = listen(&broker).await;
    for n in 0..3 {
        publish(&broker, letter(&n.to_string())).await;
    }
    broker.fail_publishes(1);
    let error = replay()
        .run(&publisher, pending(), |_| {})
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("orders"), "{error}");
    assert_eq!(broker.backlog("dead", "replay"), 3, "nothing is lost");
    let report = replay().run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(report.replayed, 3);
    until("all are back", || log.len() == 3).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_does_not_say_where_it_came_from_needs_to_be_told() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    let (log, started) = listen(&broker).await;
    publish(&broker, Message::new("dead", "x")).await;
    let error = replay()
        .run(&publisher, pending(), |_| {})
        .await
        .unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().contains("Replay::to"),
        "{error}"
    );
    let report = replay()
        .to("orders")
        .run(&publisher, pending(), |_| {})
        .await
        .unwrap();
    assert_eq!(report.replayed, 1);
    until("it is back", || log.len() == 1).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_was_refused_is_counted_and_the_letter_comes_again() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    publish(&broker, letter("x")).await;
    broker.refuse_settlements(1);
    let report = replay().run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!((report.replayed, report.unconfirmed), (1, 1));
    sleep(secs(61)).await;
    let report = replay().run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(
        (report.replayed, report.unconfirmed),
        (1, 0),
        "at least once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_told_to_stop_hands_back_and_one_that_is_dropped_loses_nothing() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    for n in 0..30 {
        publish(&broker, letter(&n.to_string())).await;
    }
    let slow = replay().per_second(1);
    let report = slow
        .run(&publisher, sleep(Duration::from_millis(4_500)), |_| {})
        .await
        .unwrap();
    assert_eq!((report.replayed, report.ended), (5, ReplayEnded::Stopped));
    assert_eq!(
        (
            broker.backlog("dead", "replay"),
            broker.held("dead", "replay")
        ),
        (25, 0)
    );
    let dropped = tokio::time::timeout(Duration::from_millis(4_500), async {
        slow.run(&publisher, pending(), |_| {}).await
    });
    assert!(dropped.await.is_err());
    sleep(secs(61)).await;
    let report = replay().run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!(report.replayed, 20);
}

/// The whole way: given up by the engine to a topic, sent back without being told where to.
#[tokio::test(start_paused = true)]
async fn what_the_engine_gave_up_to_a_topic_finds_its_way_back() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move {
                if delivery.headers().contains(REPLAYED_ID) {
                    log.add(delivery);
                    return Ok(());
                }
                Err(Rejection::poison("on purpose"))
            }
        }
    };
    let subscription = Subscription::new("orders", "g").dead_letter(DeadLetter::topic("dead"));
    let router = Router::new().subscribe_with(subscription, handler);
    let started = Started::start(server(&broker, router)).await;
    let order = Message::new("orders", "o1").key("k").group("g1");
    let id = publish(&broker, order).await;
    until("it is given up", || broker.backlog("orders", "g") == 0).await;
    let report = replay()
        .id(&id)
        .error_type(std::any::type_name::<Rejection>())
        .only(|letter| letter.reason() == Some("poison"))
        .run(&publisher, pending(), |_| {})
        .await
        .unwrap();
    assert_eq!(report.replayed, 1);
    until("it is back", || log.len() == 1).await;
    let back = &log.all()[0];
    assert_eq!(
        (text(back).as_str(), back.message_group()),
        ("o1", Some("g1"))
    );
    assert_eq!(back.headers().get(REPLAYED_ID), Some(id.as_str()));
    assert!(!back.headers().contains(DeadLetter::REASON));
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_dies_again_is_sent_once_in_a_run() {
    let broker = Broker::new();
    let publisher = Publisher::new(broker.clone());
    let handler = |_: Delivery| async { Err::<(), _>(Rejection::poison("still")) };
    let subscription = Subscription::new("orders", "g").dead_letter(DeadLetter::topic("dead"));
    let router = Router::new().subscribe_with(subscription, handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("orders", "x")).await;
    until("it is given up", || broker.backlog("orders", "g") == 0).await;
    let report = replay().run(&publisher, pending(), |_| {}).await.unwrap();
    assert_eq!((report.replayed, report.died_again), (1, 1));
    assert_eq!(report.ended, ReplayEnded::Exhausted);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn letters_cannot_be_sent_to_the_topic_that_they_are_read_from() {
    let publisher = Publisher::new(Broker::new());
    let error = replay().to("dead").run(&publisher, pending(), |_| {}).await;
    assert!(error.unwrap_err().is_invalid());
}
