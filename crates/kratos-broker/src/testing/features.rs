//! F: what only some brokers can, where the driver says that it can: delay, recall, SQL, priority,
//! transactions, broadcast, dead letters that can be consumed, and sent back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use kratos::Live;
use opentelemetry_sdk::trace::SpanData;
use tokio::time::{Instant, sleep};

use super::{
    Harness, Started, TopicKind, eventually,
    place::{Place, can, not_tried, prime, prime_any, subscription},
    trace::{named, spans},
    witness::{Seen, publish_all, see},
};
use crate::{
    AnyError, Bytes, Delivery, Disposition, Message, MessageId, Publisher, Resolution, Server,
    Subscription, driver::Capabilities,
};

async fn serve<H: Harness>(h: &H, subscription: Subscription) -> (Started, Seen) {
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(subscription, see)
        .with_state(seen.clone());
    (Started::start(server).await, seen)
}

async fn place<H: Harness>(h: &H, kind: TopicKind, hint: &str) -> Option<Place> {
    let place = Place {
        topic: h.special_topic(kind, hint).await.or_else(|| {
            not_tried(&format!("there are no topics of the kind {kind:?}"));
            None
        })?,
        group: h.group(hint).await,
    };
    prime(h, &place.topic, &place.group).await;
    Some(place)
}

fn bodies(seen: &Seen) -> Vec<Bytes> {
    seen.all().iter().map(|d| d.body().clone()).collect()
}

/// A delayed message comes at its time, not before; one that was called back does not come.
///
/// # Panics
///
/// It comes early, late, or though it was called back.
pub async fn a_delayed_message_comes_at_its_time_unless_it_is_called_back<H: Harness>(h: &H) {
    const DELAY: Duration = Duration::from_secs(4);
    if !can(h, Capabilities::can_delay).await {
        return not_tried("the driver cannot delay messages");
    }
    let Some(place) = place(h, TopicKind::Delayed, "delay").await else {
        return;
    };
    let publisher = Publisher::new(h.driver().await);
    let (server, seen) = serve(h, place.subscription(h)).await;
    let begin = Instant::now();
    let called_back = publisher
        .publish(Message::new(&place.topic, "back").delay(DELAY))
        .await
        .expect("a publish");
    let late = Message::new(&place.topic, "late").delay(DELAY);
    publisher.publish(late).await.expect("a publish");
    let can_recall = can(h, Capabilities::can_recall).await;
    if can_recall {
        let handle = called_back.recall.expect("a handle");
        publisher.recall(&handle).await.expect("it is called back");
    } else {
        assert_eq!(called_back.recall, None);
    }
    let within = DELAY + h.bounds().deliver;
    eventually("it comes", within, || {
        bodies(&seen).iter().any(|body| body == "late")
    })
    .await;
    let waited = begin.elapsed();
    assert!(waited >= DELAY - Duration::from_millis(50), "{waited:?}");
    let limit = DELAY + h.bounds().redelivery_late;
    assert!(waited <= limit, "it came after {waited:?}");
    sleep(Duration::from_secs(1)).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let wanted = if can_recall { 1 } else { 2 };
    assert_eq!(bodies(&seen).len(), wanted, "{:?}", bodies(&seen));
}

/// A subscription by SQL gets the messages whose headers satisfy it, and no other.
///
/// # Panics
///
/// It gets others.
pub async fn an_sql_filter_chooses_by_headers<H: Harness>(h: &H) {
    if !can(h, Capabilities::can_sql_filter).await {
        return not_tried("the driver cannot filter by SQL");
    }
    let topic = h.topic("sql").await;
    let group = h.group("sql").await;
    prime(h, &topic, &group).await;
    let expression = "amount > 5 AND region IN ('eu', 'us')";
    let wanted = subscription(h, &topic, &group).sql(expression);
    let (server, seen) = serve(h, wanted).await;
    let message = |n: u32, region: &'static str| {
        let message = Message::new(&topic, format!("{region}-{n}"));
        message
            .header("amount", n.to_string())
            .header("region", region)
    };
    let messages = (0..10).flat_map(|n| ["eu", "us", "asia"].map(|region| message(n, region)));
    publish_all(h, [messages.collect()]).await;
    let within = h.bounds().deliver;
    eventually("they come", within, || seen.ids().len() >= 8).await;
    sleep(Duration::from_secs(1)).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let mut got = bodies(&seen);
    got.sort();
    let wanted = ["eu", "us"].map(|region| (6..10).map(move |n| format!("{region}-{n}")));
    assert_eq!(got, wanted.into_iter().flatten().collect::<Vec<_>>());
}

/// Of a backlog, messages of a high priority come before those of a low one, by and large.
///
/// # Panics
///
/// They do not.
pub async fn a_higher_priority_comes_first<H: Harness>(h: &H) {
    if !can(h, Capabilities::can_prioritise).await {
        return not_tried("the driver has no priorities");
    }
    let Some(place) = place(h, TopicKind::Prioritised, "priority").await else {
        return;
    };
    let topic = &place.topic;
    let of = |priority: u32| {
        let message = move |_| Message::new(topic, priority.to_string()).priority(priority);
        (0..40).map(message).collect::<Vec<_>>()
    };
    publish_all(h, [of(0)]).await;
    publish_all(h, [of(2)]).await;
    let few = place.subscription(h).concurrency(1).prefetch(4);
    let (server, seen) = serve(h, few).await;
    let all = || seen.ids().len() >= 80;
    eventually("all come", h.bounds().deliver, all).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let bodies = bodies(&seen);
    let mean = |priority: &str| {
        let places = (0..bodies.len()).filter(|at| bodies[*at] == priority);
        places.sum::<usize>() / 40
    };
    let (low, high) = (mean("0"), mean("2"));
    assert!(
        high < low,
        "mean place of high {high}, of low {low}: {bodies:?}"
    );
}

/// A transaction's message is delivered after a commit, never after a roll-back, and as the checker
/// says when nobody knew. The sender's trace goes with it.
///
/// # Panics
///
/// It is not so.
pub async fn a_transaction_delivers_what_was_committed<H: Harness>(h: &H) {
    if !can(h, Capabilities::can_transact).await || !h.transactions() {
        return not_tried("the driver has no transactions, or the harness wants none");
    }
    let Some(place) = place(h, TopicKind::Transactional, "transaction").await else {
        return;
    };
    let exporter = spans(&place.topic);
    let (server, seen) = serve(h, place.subscription(h)).await;
    let publisher = Publisher::new(h.checking_driver(&place.topic, Resolution::Commit).await);
    let cases = [
        ("committed", Resolution::Commit),
        ("rolled back", Resolution::Rollback),
        ("unknown", Resolution::Unknown),
    ];
    for (body, resolution) in cases {
        let message = Message::new(&place.topic, body).header("case", body);
        let done = publisher
            .transaction(message, |receipt| async move {
                assert!(!receipt.id.is_empty(), "the message is stored");
                resolution
            })
            .await
            .expect("a transaction");
        assert_eq!(done.resolution, resolution);
    }
    let within = h.bounds().deliver;
    eventually("both come", within, || seen.ids().len() >= 2).await;
    // A message that is committed twice comes twice.
    sleep(Duration::from_secs(2)).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let mut got = bodies(&seen);
    got.sort();
    assert_eq!(got, ["committed", "unknown"], "once each");
    let sent = named(&exporter, &format!("send {}", place.topic));
    for delivery in seen.all() {
        let trace = delivery.headers().get("traceparent").expect("a trace");
        let of = |span: &SpanData| trace.contains(&span.span_context.span_id().to_string());
        assert!(sent.iter().any(of), "{trace} is none of {sent:?}");
    }
    drop(publisher);
}

/// Without somebody who answers for it, a transaction is refused before anything is sent.
///
/// # Panics
///
/// It is not, or its local part runs.
pub async fn a_transaction_without_a_checker_is_refused<H: Harness>(h: &H) {
    if !can(h, Capabilities::can_transact).await {
        return not_tried("the driver has no transactions");
    }
    let kind = TopicKind::Transactional;
    let Some(topic) = h.special_topic(kind, "no-checker").await else {
        return not_tried("there are no topics of transactions");
    };
    let publisher = Publisher::new(h.driver().await);
    let refused = publisher
        .transaction(Message::new(&topic, "x"), |_| async {
            panic!("the local part must not run")
        })
        .await
        .expect_err("refused");
    assert!(refused.is_invalid(), "{refused}");
    assert!(refused.to_string().contains(topic.as_str()), "{refused}");
}

/// Every instance of a broadcast subscription gets every message.
///
/// # Panics
///
/// One does not.
pub async fn a_broadcast_reaches_every_instance<H: Harness>(h: &H) {
    if !can(h, Capabilities::can_broadcast).await {
        return not_tried("the driver cannot broadcast");
    }
    let topic = h.topic("broadcast").await;
    let of = || Subscription::new(&topic, "everyone").invisible_duration(h.invisible());
    let (first, seen) = serve(h, of().broadcast()).await;
    let (second, also) = serve(h, of().broadcast()).await;
    // A broker may count from the first receive.
    sleep(h.bounds().prime).await;
    let messages = (0..20).map(|n: usize| Message::new(&topic, n.to_string()));
    let ids = publish_all(h, [messages.collect()]).await;
    let both = || seen.has_all(&ids) && also.has_all(&ids);
    eventually("both get all", h.bounds().deliver, both).await;
    first.stop(h.invisible()).await.expect("a clean stop");
    second.stop(h.invisible()).await.expect("a clean stop");
    assert_eq!((seen.all().len(), also.all().len()), (20, 20), "once each");
}

/// Dead letters can be consumed like any message, where they are in a topic.
///
/// # Panics
///
/// They cannot, or have lost something.
pub async fn dead_letters_can_be_consumed<H: Harness>(h: &H) {
    async fn poison(_: Bytes) -> Result<(), AnyError> {
        Err(AnyError::msg("on purpose"))
    }
    let place = Place::new(h, "dead").await;
    let Some(letters) = h.dead_letter_topic(&place.group) else {
        return not_tried("dead letters are in no topic");
    };
    prime(h, &place.topic, &place.group).await;
    let poisoned = place
        .subscription(h)
        .classify(|_: &AnyError| Disposition::Poison);
    let server = Server::<_, ()>::new(h.driver().await).subscribe_with(poisoned, poison);
    let server = Started::start(server).await;
    let dead = |n: usize| Message::new(&place.topic, n.to_string()).header("kept", "yes");
    // The first one makes the topic, and a group counts from what it has received once.
    publish_all(h, [vec![dead(0)]]).await;
    let until = Instant::now() + h.bounds().deliver;
    while h.dead_letters(&place.group).await.is_empty() {
        assert!(Instant::now() < until, "no dead letter");
        sleep(Duration::from_millis(100)).await;
    }
    let reader = h.group("dead-reader").await;
    prime_any(h, &letters, &reader).await;
    let (consumer, seen) = serve(h, subscription(h, &letters, &reader)).await;
    let ids = publish_all(h, [(1..=3).map(dead).collect()]).await;
    let all = || seen.has_all(&ids);
    eventually("the dead letters come", h.bounds().deliver, all).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    consumer.stop(h.invisible()).await.expect("a clean stop");
    let kept = |d: &Delivery| d.headers().get("kept") == Some("yes");
    assert!(seen.all().iter().all(kept), "headers are kept");
}

/// From outside, the dead letters of a subscription are listed, and stay; those that are sent back
/// come again, the others later.
///
/// # Panics
///
/// They are not all there, do not stay, or come back more or less than once.
pub async fn dead_letters_are_listed_and_sent_back_from_outside<H: Harness>(h: &H) {
    let place = Place::new(h, "letters").await;
    prime(h, &place.topic, &place.group).await;
    let (mended, seen) = (Arc::new(AtomicBool::new(false)), Seen::default());
    let handler = {
        let (mended, seen) = (mended.clone(), seen.clone());
        move |delivery: Delivery| {
            std::future::ready(match mended.load(Relaxed) {
                true => {
                    seen.add(delivery);
                    Ok(())
                }
                false => Err(AnyError::msg("on purpose")),
            })
        }
    };
    let poisoned = place
        .subscription(h)
        .classify(|_: &AnyError| Disposition::Poison);
    let server = Server::<_, ()>::new(h.driver().await).subscribe_with(poisoned, handler);
    let (controls, counters) = (server.controls(), server.counters());
    let server = Started::start(server).await;
    let messages = (0..3).map(|n: u32| Message::new(&place.topic, n.to_string()));
    let ids = publish_all(h, [messages.collect()]).await;
    let given_up = || counters.stats().dead_lettered == 3 && counters.stats().confirmed >= 3;
    eventually("they are given up", h.bounds().deliver, given_up).await;
    mended.store(true, Relaxed);
    let id = controls.subscriptions()[0].id.clone();
    let listed = |max: usize| {
        let answer = controls.dead_letters(&id, max);
        async move {
            let answer = answer.await?;
            let letters = answer["dead_letters"].as_array().cloned();
            let ids = letters.into_iter().flatten();
            let ids = ids.filter_map(|letter| Some(letter["message_id"].as_str()?.to_owned()));
            let mut ids: Vec<_> = ids.collect();
            ids.sort();
            Ok::<_, kratos::Refusal>((ids, answer["complete"] == true))
        }
    };
    let until = Instant::now() + h.bounds().deliver;
    loop {
        match listed(10).await {
            Err(refusal) if refusal.is_unsupported() => {
                server.stop(h.invisible()).await.expect("a clean stop");
                return not_tried("the driver cannot list dead letters");
            }
            Err(refusal) => panic!("they cannot be listed: {refusal}"),
            // A broker may need its time to show them.
            Ok((some, _)) if some.len() < 3 && Instant::now() < until => {}
            Ok((all, complete)) => {
                let all = all.into_iter().map(MessageId::from).collect();
                assert_eq!((all, complete), (ids.clone(), true));
                break;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    let (some, complete) = listed(2).await.expect("a list");
    assert_eq!((some.len(), complete), (2, false), "there are more");
    let one = controls.replay(&id, 1).await.expect("a replay");
    assert_eq!(
        (&one["replayed"], &one["complete"]),
        (&1.into(), &false.into())
    );
    let others = controls.replay(&id, 10).await.expect("a replay");
    assert_eq!(
        (&others["replayed"], &others["complete"]),
        (&2.into(), &true.into())
    );
    eventually("they are back", h.bounds().deliver, || {
        seen.all().len() >= 3
    })
    .await;
    assert_eq!(listed(10).await.expect("a list"), (Vec::new(), true));
    server.stop(h.invisible()).await.expect("a clean stop");
    let mut back: Vec<_> = seen.all().iter().map(|d| d.body().clone()).collect();
    back.sort();
    assert_eq!(back, ["0", "1", "2"], "each once");
}
