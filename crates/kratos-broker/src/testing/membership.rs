//! D: members of a group that come and go.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    Harness, Started, eventually,
    place::{Place, numbered, prime},
    witness::{Seen, publish_all, serve, serve_seen, stop},
};
use crate::{AnyError, Delivery, Server, State};

/// D7: ten members of a group are opened and closed at once; the one that is opened then gets all
/// 50 messages that are published after that.
///
/// # Panics
///
/// It does not.
pub async fn d7_members_opened_and_closed_at_once_take_nothing_with_them<H: Harness>(h: &H) {
    let place = Place::new(h, "d7").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let brief = || async {
        let member = serve_seen(h, place.subscription(h), &seen).await;
        stop(member).await;
    };
    join_all((0..10).map(|_| brief())).await;
    let last = serve_seen(h, place.subscription(h), &seen).await;
    let ids = publish_all(h, [numbered(&place.topic, 50).collect()]).await;
    // A poll that a closed member left behind may have swallowed some until their lease ends.
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("all arrive", within, || seen.has_all(&ids)).await;
    stop(last).await;
}

/// D8: three members fail everything and are closed; a fresh one gets all.
///
/// # Panics
///
/// It does not, or one is a dead letter.
pub async fn d8_what_others_failed_comes_to_a_fresh_member<H: Harness>(h: &H) {
    async fn fail(State(failed): State<Seen>, delivery: Delivery) -> Result<(), AnyError> {
        failed.add(delivery);
        Err(AnyError::msg("on purpose"))
    }
    let place = Place::new(h, "d8").await;
    prime(h, &place.topic, &place.group).await;
    let (mut failing, failed) = (Vec::new(), Seen::default());
    for _ in 0..3 {
        let server = Server::new(h.driver().await)
            .subscribe_with(place.subscription(h), fail)
            .with_state(failed.clone());
        failing.push(Started::start(server).await);
    }
    let ids = publish_all(h, [numbered(&place.topic, 20).collect()]).await;
    // Each of them: some may have failed twice by then.
    let all_failed = || failed.has_all(&ids);
    eventually("all have failed", h.bounds().deliver, all_failed).await;
    join_all(failing.into_iter().map(stop)).await;
    let seen = Seen::default();
    let fresh = serve_seen(h, place.subscription(h), &seen).await;
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    eventually("it gets all", within, || seen.has_all(&ids)).await;
    stop(fresh).await;
    assert!(seen.all().iter().all(|delivery| delivery.attempt() > 1));
    assert!(h.dead_letters(&place.group).await.is_empty());
}

/// D13: a server that is dropped, as in a crash, ends at once: none of its handlers goes on. What it
/// had comes to another when the leases are over.
///
/// # Panics
///
/// A handler goes on, or a message is lost.
pub async fn d13_a_dropped_server_ends_and_another_gets_the_rest<H: Harness>(h: &H) {
    let place = Place::new(h, "d13").await;
    prime(h, &place.topic, &place.group).await;
    let (started, done) = (Seen::default(), Seen::default());
    let slowly = {
        let (started, done) = (started.clone(), done.clone());
        move |delivery: Delivery| {
            let (started, done) = (started.clone(), done.clone());
            async move {
                started.add(delivery.clone());
                sleep(Duration::from_millis(300)).await;
                done.add(delivery);
            }
        }
    };
    let subscription = place.subscription(h).concurrency(2);
    let (server, _) = serve(h, subscription, slowly).await;
    let ids = publish_all(h, [numbered(&place.topic, 30).collect()]).await;
    eventually("some are done", h.bounds().deliver, || done.count() >= 2).await;
    let asked = Instant::now();
    server.kill().await;
    let took = asked.elapsed();
    assert!(took <= Duration::from_secs(1), "dropped after {took:?}");
    let (before, so_far) = (started.count(), done.count());
    sleep(Duration::from_millis(600)).await;
    assert_eq!((started.count(), done.count()), (before, so_far), "ended");

    let seen = Seen::default();
    let other = serve_seen(h, place.subscription(h), &seen).await;
    let within = h.bounds().deliver + h.invisible() + h.bounds().redelivery_late;
    let all = || {
        let (first, second) = (done.ids(), seen.ids());
        ids.iter()
            .all(|id| first.contains_key(id) || second.contains_key(id))
    };
    eventually("the rest arrives", within, all).await;
    stop(other).await;
}
