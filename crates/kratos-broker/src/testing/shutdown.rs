//! S: shutdown.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Harness, Place, Started,
    delivery::{Seen, publish_all, see},
    eventually, numbered, prime,
};
use crate::{Delivery, Server, State};

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

/// S5: a server with nothing to do stops within [`Bounds::idle_stop`](super::Bounds::idle_stop).
///
/// # Panics
///
/// It takes longer.
pub async fn s5_an_idle_server_stops_at_once<H: Harness>(h: &H) {
    let place = Place::new(h, "s5").await;
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(Seen::default());
    let server = Started::start(server).await;
    // Into the middle of a long poll.
    sleep(Duration::from_millis(300)).await;
    let asked = Instant::now();
    server
        .stop(Duration::from_secs(20))
        .await
        .expect("a clean stop");
    let took = asked.elapsed();
    assert!(took <= h.bounds().idle_stop, "an idle stop took {took:?}");
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
