//! D, O: many messages, while something happens.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{
    Harness, eventually,
    place::{Place, not_tried, numbered, prime},
    witness::{Seen, publish_all, serve, serve_seen, stop},
};
use crate::{Delivery, Message, MessageId, Publisher};

/// D6: half of [`Bounds::many`](super::Bounds::many) messages, while the subscriber is closed and
/// opened again five times: none is lost.
///
/// # Panics
///
/// One is.
pub async fn d6_a_subscriber_that_is_closed_and_reopened_loses_nothing<H: Harness>(h: &H) {
    let place = Place::new(h, "d6").await;
    prime(h, &place.topic, &place.group).await;
    let (seen, many) = (Seen::default(), h.bounds().many);
    let published = AtomicBool::new(false);
    let publish = async {
        let parts = (0..20).map(|_| numbered(&place.topic, many / 40).collect());
        let ids = publish_all(h, parts).await;
        published.store(true, Relaxed);
        ids
    };
    let come_and_go = async {
        for _ in 0..5 {
            let so_far = seen.count();
            let server = serve_seen(h, place.subscription(h), &seen).await;
            let on = || seen.count() >= so_far + many / 30 || published.load(Relaxed);
            eventually("it gets on", h.bounds().deliver, on).await;
            stop(server).await;
        }
    };
    let (ids, ()) = tokio::join!(publish, come_and_go);
    assert_eq!(ids.len(), many / 40 * 20);
    let server = serve_seen(h, place.subscription(h), &seen).await;
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("every id", within, || seen.has_all(&ids)).await;
    stop(server).await;
}

/// D10: [`Bounds::many`](super::Bounds::many) messages of 20 publishers that are gone right after their last one was confirmed:
/// none is lost.
///
/// # Panics
///
/// One is.
pub async fn d10_what_was_confirmed_outlives_its_publishers<H: Harness>(h: &H) {
    let place = Place::new(h, "d10").await;
    prime(h, &place.topic, &place.group).await;
    let each = h.bounds().many / 20;
    let publishers = (0..20).map(|_| publish_all(h, [numbered(&place.topic, each).collect()]));
    let ids: BTreeSet<_> = join_all(publishers).await.into_iter().flatten().collect();
    assert_eq!(ids.len(), 20 * each);
    let seen = Seen::default();
    let server = serve_seen(h, place.subscription(h), &seen).await;
    eventually("every id", h.bounds().deliver, || {
        seen.count() >= ids.len() && seen.has_all(&ids)
    })
    .await;
    stop(server).await;
}

/// D15: the broker goes away after a third and after half of
/// [`Bounds::many`](super::Bounds::many) messages, and comes back: every message whose publish was confirmed arrives.
///
/// # Panics
///
/// One does not, or a publish never gets through.
pub async fn d15_a_broker_that_restarts_loses_nothing_that_was_confirmed<H: Harness>(h: &H) {
    let many = h.bounds().many;
    let place = Place::new(h, "d15").await;
    prime(h, &place.topic, &place.group).await;
    // Harnesses that cannot say so before anything is published.
    if !h.stop_broker().await {
        return not_tried("the broker cannot be taken away");
    }
    h.restart_broker().await;
    let seen = Seen::default();
    let server = serve_seen(h, place.subscription(h), &seen).await;
    let (confirmed, count) = (Mutex::new(BTreeSet::new()), AtomicUsize::new(0));
    let publish = async {
        let publisher = Publisher::new(h.driver().await);
        let until = Instant::now() + 2 * h.bounds().deliver;
        let sender = |n: usize| {
            let publisher = publisher.clone();
            let (place, confirmed, count) = (&place, &confirmed, &count);
            async move {
                for m in 0..many / 20 {
                    let message = || Message::new(&place.topic, format!("{n}-{m}"));
                    let id = through(&publisher, message, until).await;
                    confirmed.lock().unwrap().insert(id);
                    count.fetch_add(1, Relaxed);
                }
            }
        };
        join_all((0..20).map(sender)).await;
    };
    let outages = async {
        for at in [many / 3, many / 2] {
            let reached = || count.load(Relaxed) >= at;
            eventually("it gets on", 2 * h.bounds().deliver, reached).await;
            assert!(h.stop_broker().await, "as before");
            sleep(Duration::from_millis(300)).await;
            h.restart_broker().await;
        }
    };
    tokio::join!(publish, outages);
    let confirmed = confirmed.into_inner().unwrap();
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("every confirmed id", within, || seen.has_all(&confirmed)).await;
    stop(server).await;
}

/// Publishes until it is confirmed.
async fn through<D: crate::Driver>(
    publisher: &Publisher<D>,
    message: impl Fn() -> Message,
    until: Instant,
) -> MessageId {
    loop {
        match publisher.publish(message()).await {
            Ok(receipt) => return receipt.id,
            Err(error) => assert!(error.is_transient(), "an outage passes: {error}"),
        }
        assert!(Instant::now() < until, "no publish gets through");
        sleep(Duration::from_millis(50)).await;
    }
}

/// O4: of a backlog of [`Bounds::backlog`](super::Bounds::backlog) messages a server that is stuck
/// holds no more than its handlers and its prefetch; once it goes on it handles all.
///
/// # Panics
///
/// It holds more, or does not go on.
pub async fn o4_a_backlog_is_not_held_in_memory<H: Harness>(h: &H) {
    const LANES: usize = 16;
    const PREFETCH: usize = 32;
    let backlog = h.bounds().backlog;
    let place = Place::new(h, "o4").await;
    prime(h, &place.topic, &place.group).await;
    let each = backlog.div_ceil(20);
    let parts = (0..20).map(|_| numbered(&place.topic, each).collect());
    let published = publish_all(h, parts).await.len() as u64;
    let gate = Arc::new(Semaphore::new(0));
    let stuck = {
        let gate = gate.clone();
        move |_: Delivery| {
            let gate = gate.clone();
            async move {
                let _through = gate.acquire().await;
            }
        }
    };
    let subscription = place.subscription(h).concurrency(LANES).prefetch(PREFETCH);
    let (server, counters) = serve(h, subscription, stuck).await;
    let full = || counters.stats().received >= LANES as u64;
    eventually("the handlers are busy", h.bounds().deliver, full).await;
    // Time to take more, if it would.
    sleep(Duration::from_secs(1)).await;
    let held = counters.stats().received;
    assert!(held <= (LANES + PREFETCH) as u64, "{held} are held");
    gate.close();
    let within = 3 * h.bounds().deliver;
    let all = || counters.stats().handled >= published;
    eventually("all are handled", within, all).await;
    stop(server).await;
    assert_eq!(counters.stats().refused, 0);
}
