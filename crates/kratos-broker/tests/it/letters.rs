//! Dead letters, listed and sent back by hand while the server runs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use kratos::Live;
use kratos_broker::{
    AnyError, Controls, DeadLetter, Delivery, Disposition, Message, Publisher, Router,
    Subscription, memory::Broker, testing::Started,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::{Log, millis, publish, secs, server, subscription, text, until};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A server whose handler gives up everything, until it is mended.
struct Site {
    broker: Broker,
    controls: Controls,
    back: Log<Delivery>,
    mended: Arc<AtomicBool>,
    started: Started,
}

impl Site {
    async fn new(subscriptions: impl IntoIterator<Item = Subscription>) -> Self {
        let (broker, back) = (Broker::new(), Log::default());
        let mended = Arc::new(AtomicBool::new(false));
        let mut router = Router::new();
        for subscription in subscriptions {
            let (mended, back) = (mended.clone(), back.clone());
            let handler = move |delivery: Delivery| {
                std::future::ready(match mended.load(Relaxed) {
                    true => {
                        back.add(delivery);
                        Ok(())
                    }
                    false => Err(AnyError::msg("on purpose")),
                })
            };
            let poison = subscription.classify(|_: &AnyError| Disposition::Poison);
            router = router.subscribe_with(poison, handler);
        }
        let server = server(&broker, router);
        let controls = server.controls();
        let started = Started::start(server).await;
        Self {
            broker,
            controls,
            back,
            mended,
            started,
        }
    }

    /// Publishes bodies `0`, `1`, .. to `topic`, one each second, and waits until all are given up.
    async fn with_letters(self, topic: &str, count: usize) -> Self {
        let before = self.given_up();
        for n in 0..count {
            let message = Message::new(topic, n.to_string()).header("traceparent", TRACE);
            publish(&self.broker, message).await;
        }
        until("they are given up", || self.given_up() == before + count).await;
        self
    }

    fn given_up(&self) -> usize {
        let all = self.controls.subscriptions();
        let given_up = all.iter().map(|it| it.dead_lettered).sum::<u64>();
        usize::try_from(given_up).unwrap()
    }

    fn id(&self) -> String {
        self.controls.subscriptions()[0].id.clone()
    }

    async fn list(&self, max: usize) -> Value {
        self.controls.dead_letters(&self.id(), max).await.unwrap()
    }

    async fn replay(&self, max: usize) -> Value {
        self.controls.replay(&self.id(), max).await.unwrap()
    }

    async fn stop(self) {
        self.started.stop(secs(5)).await.unwrap();
    }
}

fn ids(list: &Value) -> Vec<&str> {
    let letters = list["dead_letters"].as_array().unwrap();
    letters
        .iter()
        .map(|it| it["message_id"].as_str().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_keeps_is_listed_and_stays_and_goes_back_once() {
    let site = Site::new([subscription()]).await.with_letters("t", 5).await;
    let all = site.list(100).await;
    assert_eq!((ids(&all).len(), &all["complete"]), (5, &json!(true)));
    let first = &all["dead_letters"][0];
    assert_eq!(
        first["message_id"],
        site.broker.dead_letters("g")[0].id().as_str()
    );
    assert_eq!(first["topic"], "t");
    assert_eq!(first["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert!(first["age_ms"].is_u64(), "{first}");
    for unknown in ["attempts", "error_type", "error"] {
        assert_eq!(first[unknown], Value::Null, "{unknown}");
    }
    let some = site.list(3).await;
    assert_eq!((ids(&some).len(), &some["complete"]), (3, &json!(false)));
    assert_eq!(site.list(5).await["complete"], true, "there are no more");

    site.mended.store(true, Relaxed);
    let done = site.replay(2).await;
    let expected = json!({"replayed": 2, "unconfirmed": 0, "died_again": 0, "complete": false});
    assert_eq!(done, expected);
    until("two are back", || site.back.len() == 2).await;
    assert_eq!(ids(&site.list(100).await).len(), 3);
    assert_eq!(site.replay(100).await["replayed"], 3);
    until("all are back", || site.back.len() == 5).await;
    let nothing = json!({"dead_letters": [], "complete": true});
    assert_eq!(site.list(100).await, nothing);
    assert_eq!(site.replay(100).await["replayed"], 0, "none twice");
    let mut back: Vec<_> = site.back.all().iter().map(text).collect();
    back.sort();
    assert_eq!(back, ["0", "1", "2", "3", "4"]);
    site.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_throttled_and_ends_in_time() {
    let site = Site::new([subscription()])
        .await
        .with_letters("t", 50)
        .await;
    site.mended.store(true, Relaxed);
    let begin = Instant::now();
    assert_eq!(site.replay(50).await["replayed"], 50);
    // 100 per second.
    assert!(begin.elapsed() >= millis(490), "{:?}", begin.elapsed());
    site.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_published_to_a_topic_says_why_and_goes_back_where_it_came_from() {
    let dead = |topic: &str| Subscription::new(topic, "g").dead_letter(DeadLetter::topic("dead"));
    let site = Site::new([dead("a"), dead("b")]).await;
    let site = site.with_letters("a", 2).await.with_letters("b", 3).await;
    let list = site.list(100).await;
    assert_eq!(ids(&list).len(), 2, "those of its topic: {list}");
    let letter = &list["dead_letters"][0];
    assert_eq!(
        (&letter["topic"], &letter["attempts"]),
        (&json!("a"), &json!(1))
    );
    assert_eq!(letter["error"], "on purpose");
    assert!(letter["error_type"].as_str().unwrap().contains("AnyError"));
    site.mended.store(true, Relaxed);
    assert_eq!(site.replay(100).await["replayed"], 2);
    until("they are back", || site.back.len() == 2).await;
    assert!(site.back.all().iter().all(|it| *it.topic() == *"a"));
    site.stop().await;
}

#[tokio::test(start_paused = true)]
async fn letters_of_a_group_with_several_topics_are_listed_and_go_back_by_hand_only() {
    let of = |topic: &str| Subscription::new(topic, "g");
    let site = Site::new([of("a"), of("b")]).await;
    let site = site.with_letters("a", 1).await.with_letters("b", 1).await;
    let list = site.list(100).await;
    assert_eq!(ids(&list).len(), 2, "{list}");
    assert_eq!(list["dead_letters"][0]["topic"], Value::Null);
    let refused = site.controls.replay(&site.id(), 1).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
    assert!(
        refused.to_string().contains("replay --to TOPIC"),
        "{refused}"
    );
    site.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_dies_again_is_not_sent_in_circles() {
    let site = Site::new([subscription()]).await.with_letters("t", 2).await;
    let done = site.replay(100).await;
    assert_eq!(
        (&done["replayed"], &done["died_again"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        ids(&site.list(100).await).len(),
        2,
        "they are dead letters again"
    );
    site.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_reads_at_a_time_and_a_caller_that_goes_away_leaves_everything() {
    let site = Site::new([subscription()]).await.with_letters("t", 3).await;
    let id = site.id();
    let mut first = site.controls.dead_letters(&id, 100);
    // It holds them all, and waits whether more comes.
    let early = timeout(millis(500), &mut first).await;
    assert!(early.is_err(), "{early:?}");
    let second = site.controls.dead_letters(&id, 100).await.unwrap_err();
    assert!(second.is_conflict(), "{second}");
    drop(first);
    let free = async {
        while let Err(refused) = site.controls.dead_letters(&id, 100).await {
            assert!(refused.is_conflict(), "{refused}");
            tokio::time::sleep(millis(10)).await;
        }
    };
    timeout(secs(5), free).await.expect("it ends by itself");
    assert_eq!(ids(&site.list(100).await).len(), 3);
    site.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_said_within_a_bound() {
    let other = Subscription::new("news", "all").broadcast();
    let site = Site::new([subscription(), other])
        .await
        .with_letters("t", 1)
        .await;
    let unknown = site.controls.dead_letters("nobody", 1).await.unwrap_err();
    assert!(unknown.is_unknown(), "{unknown}");
    let all = site.controls.subscriptions();
    let broadcast = all.iter().find(|it| it.topic == "news").unwrap();
    for refused in [
        site.controls.dead_letters(&broadcast.id, 1).await,
        site.controls.replay(&broadcast.id, 1).await,
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.is_unsupported(), "{refused}");
    }
    let id = site
        .controls
        .subscriptions()
        .iter()
        .find(|it| it.topic == "t")
        .unwrap()
        .id
        .clone();
    site.broker.disconnect();
    let refused = timeout(secs(110), site.controls.dead_letters(&id, 1)).await;
    let refused = refused.expect("an answer in time").unwrap_err();
    assert!(
        !refused.is_unknown() && !refused.is_unsupported(),
        "{refused}"
    );
    site.broker.reconnect();
    assert_eq!(
        site.controls.dead_letters(&id, 10).await.unwrap()["complete"],
        true
    );
    let controls = site.controls.clone();
    site.stop().await;
    let late = controls.replay(&id, 1).await.unwrap_err();
    assert!(late.is_conflict(), "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_replay_and_loses_none() {
    let site = Site::new([subscription()])
        .await
        .with_letters("t", 200)
        .await;
    let publisher = Publisher::new(site.broker.clone());
    let id = site.id();
    site.mended.store(true, Relaxed);
    let replay = tokio::spawn(site.controls.replay(&id, 200));
    until("some are back", || site.back.len() >= 20).await;
    site.started.stop(secs(5)).await.unwrap();
    let done = replay.await.unwrap().unwrap();
    let replayed = done["replayed"].as_u64().unwrap();
    assert!((20..200).contains(&replayed), "{done}");
    assert_eq!(done["complete"], false);
    let rest = kratos_broker::Driver::replay(&site.broker, &"g".into(), None).unwrap();
    let mut left = 0;
    let never = std::future::pending();
    rest.list(publisher.driver(), never, |_| left += 1)
        .await
        .unwrap();
    assert_eq!(left, 200 - replayed, "the others are where they were");
}
