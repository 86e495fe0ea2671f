//! S: shutdown.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    Harness, Started, eventually,
    place::{Place, not_tried, numbered, prime},
    witness::{Seen, publish_all, see, serve, serve_seen, stop},
};
use crate::{Counters, Delivery, Message, MessageId, Publisher, Server, State};

/// S1: messages whose handlers run at the stop are finished and acknowledged; a second server sees
/// none of them. Those that only wait are handed back, and the second server gets them.
///
/// # Panics
///
/// One is lost, done twice, or reported.
pub async fn s1_messages_in_flight_are_acknowledged_at_stop<H: Harness>(h: &H) {
    #[derive(Clone, Default)]
    struct Phases {
        started: Seen,
        done: Seen,
    }
    async fn slow(State(phases): State<Phases>, delivery: Delivery) {
        phases.started.add(delivery.clone());
        sleep(Duration::from_millis(500)).await;
        phases.done.add(delivery);
    }
    let place = Place::new(h, "s1").await;
    prime(h, &place.topic, &place.group).await;
    let phases = Phases::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h).concurrency(4), slow)
        .with_state(phases.clone());
    let server = Started::start(server).await;
    let ids = publish_all(h, [numbered(&place.topic, 20).collect()]).await;
    eventually("four run", h.bounds().deliver, || {
        phases.started.all().len() >= 4
    })
    .await;
    server
        .stop(Duration::from_secs(20))
        .await
        .expect("a clean stop");
    let done = phases.done.ids();
    assert_eq!(phases.started.ids(), done, "what has started is done");

    let again = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(again.clone());
    let server = Started::start(server).await;
    let bounds = h.bounds();
    let late = h.invisible() + bounds.redelivery_late;
    eventually("the rest arrives", bounds.deliver + late, || {
        again.ids().len() + done.len() >= ids.len()
    })
    .await;
    sleep(late).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let twice: Vec<_> = again
        .ids()
        .into_keys()
        .filter(|id| done.contains_key(id))
        .collect();
    assert!(twice.is_empty(), "acknowledged, yet seen again: {twice:?}");
}

/// S5: a server with nothing to do stops within [`Bounds::idle_stop`](super::Bounds::idle_stop); on
/// a machine that is busy with other things, one of three does.
///
/// # Panics
///
/// It takes longer.
pub async fn s5_an_idle_server_stops_at_once<H: Harness>(h: &H) {
    let place = Place::new(h, "s5").await;
    let mut took = Vec::new();
    for _ in 0..3 {
        let server = serve_seen(h, place.subscription(h), &Seen::default()).await;
        // Into the middle of a long poll.
        sleep(Duration::from_millis(300)).await;
        let asked = Instant::now();
        stop(server).await;
        took.push(asked.elapsed());
        if asked.elapsed() <= h.bounds().idle_stop {
            return;
        }
    }
    panic!("idle stops took {took:?}");
}

/// S9: what was handled right before the stop is acknowledged before the server ends.
///
/// # Panics
///
/// A second server sees one of them.
pub async fn s9_acknowledgements_are_flushed_before_the_end<H: Harness>(h: &H) {
    let place = Place::new(h, "s9").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(seen.clone());
    let counters = server.counters();
    let server = Started::start(server).await;
    let ids = publish_all(h, [numbered(&place.topic, 100).collect()]).await;
    eventually("all arrive", h.bounds().deliver, || seen.has_all(&ids)).await;
    server
        .stop(Duration::from_secs(20))
        .await
        .expect("a clean stop");
    let stats = counters.stats();
    assert!(
        stats.confirmed >= 100,
        "confirmed before the end: {stats:?}"
    );
    assert_eq!(stats.refused, 0);

    let again = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(again.clone());
    let server = Started::start(server).await;
    sleep(h.invisible() + h.bounds().redelivery_late).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    assert!(again.all().is_empty(), "seen again: {:?}", again.ids());
}

/// A handler that never ends.
async fn hang(State(seen): State<Seen>, delivery: Delivery) {
    seen.add(delivery);
    std::future::pending().await
}

/// A server whose handler hangs, and the ids of the messages that it has.
async fn hanging<H: Harness>(
    h: &H,
    place: &Place,
    count: usize,
) -> (Started, Counters, BTreeSet<MessageId>) {
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), hang)
        .with_state(seen.clone());
    let counters = server.counters();
    let server = Started::start(server).await;
    let ids = publish_all(h, [numbered(&place.topic, count).collect()]).await;
    eventually("they run", h.bounds().deliver, || seen.count() == count).await;
    (server, counters, ids)
}

fn abandoned(error: &kratos::Error) -> BTreeSet<MessageId> {
    let ids = error.abandoned_ids().iter();
    ids.map(|id| MessageId::from(id.as_str())).collect()
}

/// S2: what is not finished at the deadline is reported by id, no later than a second after it, and
/// comes again.
///
/// # Panics
///
/// It is not reported, the stop takes longer, or a message is lost.
pub async fn s2_what_is_unfinished_at_the_deadline_is_reported<H: Harness>(h: &H) {
    let place = Place::new(h, "s2").await;
    prime(h, &place.topic, &place.group).await;
    let (server, _, ids) = hanging(h, &place, 3).await;
    // `stop` waits for a second more than it allows, and no longer.
    let error = server
        .stop(Duration::from_secs(3))
        .await
        .expect_err("three are not finished");
    assert_eq!(abandoned(&error), ids);
    let again = Seen::default();
    let server = serve_seen(h, place.subscription(h), &again).await;
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("they come again", within, || again.has_all(&ids)).await;
    stop(server).await;
}

/// S3: a stop that is forced, as by a second signal, ends at once, and says what it cut off.
///
/// # Panics
///
/// It takes longer, or does not say.
pub async fn s3_a_forced_stop_ends_at_once<H: Harness>(h: &H) {
    let place = Place::new(h, "s3").await;
    prime(h, &place.topic, &place.group).await;
    let (server, _, ids) = hanging(h, &place, 2).await;
    server.request(Duration::from_secs(60));
    sleep(Duration::from_millis(100)).await;
    server.force();
    let error = server
        .ended(Duration::from_secs(5))
        .await
        .expect_err("two are cut off");
    assert_eq!(abandoned(&error), ids);
}

/// S6: with the broker gone a stop still ends by its deadline, and reports what it could not settle,
/// unless the leases have run out by then.
///
/// # Panics
///
/// It does not.
pub async fn s6_a_dead_broker_does_not_hold_the_stop<H: Harness>(h: &H) {
    let place = Place::new(h, "s6").await;
    prime(h, &place.topic, &place.group).await;
    let (server, counters, ids) = hanging(h, &place, 2).await;
    if !h.stop_broker().await {
        server.force();
        let _ = server.stop(Duration::from_secs(5)).await;
        return not_tried("the broker cannot be taken away");
    }
    // `stop` waits for a second more than it allows, and no longer.
    let stopped = server.stop(Duration::from_secs(4)).await;
    let reported = stopped.map_or_else(|error| abandoned(&error).len() as u64, |()| 0);
    let lost = counters.stats().leases_lost;
    assert_eq!(reported + lost, 2, "{reported} reported, {lost} lost");
    h.restart_broker().await;
    let again = Seen::default();
    let server = serve_seen(h, place.subscription(h), &again).await;
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("they come again", within, || again.has_all(&ids)).await;
    stop(server).await;
}

/// S8: a message that arrives while a server is closing is handled by it, or is neither acknowledged
/// nor failed: another server has it within a lease.
///
/// # Panics
///
/// One is lost, comes late, or counts as failed.
pub async fn s8_a_message_that_arrives_while_closing_comes_elsewhere<H: Harness>(h: &H) {
    let place = Place::new(h, "s8").await;
    prime(h, &place.topic, &place.group).await;
    let done = Seen::default();
    let (first, counters) = {
        let done = done.clone();
        let note = move |delivery: Delivery| {
            done.add(delivery);
            std::future::ready(())
        };
        serve(h, place.subscription(h), note).await
    };
    let publisher = Publisher::new(h.driver().await);
    let publish = async {
        let mut ids = BTreeSet::new();
        for n in 0..100 {
            let message = Message::new(&place.topic, n.to_string());
            ids.insert(publisher.publish(message).await.expect("a publish").id);
            sleep(Duration::from_millis(5)).await;
        }
        ids
    };
    let close = async {
        eventually("it receives", h.bounds().deliver, || done.count() >= 10).await;
        stop(first).await;
    };
    let (ids, ()) = tokio::join!(publish, close);
    let stats = counters.stats();
    assert_eq!((stats.failed, stats.dead_lettered), (0, 0), "{stats:?}");
    let second = serve_seen(h, place.subscription(h), &done).await;
    // The lease, for what was on the wire. What is handed back comes sooner: there is another law.
    let within = h.invisible() + h.bounds().redelivery_late.max(Duration::from_secs(5));
    eventually("the rest arrives", within, || done.has_all(&ids)).await;
    stop(second).await;
    let twice = done.count() as u64 - ids.len() as u64;
    let told = stats.refused + stats.leases_lost;
    assert!(twice <= told, "{twice} twice, {told} told: {stats:?}");
}

/// S13: a server that is stopped [`Bounds::stops`](super::Bounds::stops) times under load loses
/// nothing, and does nothing twice but what it has reported.
///
/// # Panics
///
/// A message is lost, or done twice without a word.
pub async fn s13_stops_under_load_lose_nothing<H: Harness>(h: &H) {
    let place = Place::new(h, "s13").await;
    prime(h, &place.topic, &place.group).await;
    let done = Seen::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                sleep(Duration::from_millis(3)).await;
                done.add(delivery);
            }
        }
    };
    let (over, ids) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let publisher = Publisher::new(h.driver().await);
    let load = || async {
        while !over.load(Relaxed) {
            let message = Message::new(&place.topic, "x");
            let id = publisher.publish(message).await.expect("a publish").id;
            ids.lock().unwrap().insert(id);
            // About as much as the handlers can do, not more.
            sleep(Duration::from_millis(4)).await;
        }
    };
    let stops = async {
        let mut told = 0;
        for round in 0..h.bounds().stops {
            let subscription = place.subscription(h).concurrency(4);
            let (server, counters) = serve(h, subscription, handler.clone()).await;
            // Any moment, another one each time: into the first receive, or into full work.
            sleep(Duration::from_millis(round as u64 * 37 % 150)).await;
            stop(server).await;
            let stats = counters.stats();
            told += stats.refused + stats.leases_lost;
        }
        over.store(true, Relaxed);
        told
    };
    let (told, _) = tokio::join!(stops, join_all((0..4).map(|_| load())));
    let (server, counters) = serve(h, place.subscription(h), handler.clone()).await;
    let ids = ids.into_inner().unwrap();
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("every id", within, || done.has_all(&ids)).await;
    // What comes again without need comes within a lease.
    sleep(h.invisible() + h.bounds().redelivery_late).await;
    stop(server).await;
    let told = told + counters.stats().refused + counters.stats().leases_lost;
    let twice = done.count() - ids.len();
    assert!(twice as u64 <= told, "{twice} done twice, {told} told");
}
