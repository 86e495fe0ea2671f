//! R: retry.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::{
    Harness, Started, eventually,
    place::{Place, dead_letters, prime},
    witness::{Seen, publish, see},
};
use crate::{AnyError, Attempt, Bytes, Delivery, Json, Message, Server, State};

/// R1: a failed message comes again not before its back-off, and not much later.
///
/// # Panics
///
/// It comes early or late.
pub async fn r1_backoff_is_never_early<H: Harness>(h: &H) {
    type Times = Arc<Mutex<Vec<(u32, Instant)>>>;
    async fn fail_twice(
        State(times): State<Times>,
        Attempt(attempt): Attempt,
    ) -> Result<(), AnyError> {
        times.lock().await.push((attempt, Instant::now()));
        if attempt < 3 {
            Err(AnyError::msg("fails twice"))
        } else {
            Ok(())
        }
    }
    let place = Place::new(h, "r1").await;
    prime(h, &place.topic, &place.group).await;
    let times = Times::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), fail_twice)
        .with_state(times.clone());
    let server = Started::start(server).await;
    publish(h, Message::new(&place.topic, "x")).await;
    let bounds = h.bounds();
    let within = bounds.deliver + 2 * bounds.redelivery_late;
    eventually("three attempts", within, || {
        times.try_lock().is_ok_and(|t| t.len() >= 3)
    })
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let times = times.lock().await;
    for pair in times.windows(2) {
        let [(first, at), (second, again)] = pair else {
            unreachable!()
        };
        let waited = again.duration_since(*at);
        assert_eq!(*second, first + 1, "attempts are counted");
        assert!(
            waited >= Duration::from_secs(1),
            "attempt {second} was early: {waited:?}"
        );
        let late = Duration::from_secs(1) + bounds.redelivery_late;
        assert!(waited <= late, "attempt {second} was late: {waited:?}");
    }
}

/// R3: a body that cannot be decoded is a dead letter at attempt 1, its bytes kept; the next
/// message is not affected.
///
/// # Panics
///
/// It is not.
pub async fn r3_a_body_that_cannot_be_decoded_is_a_dead_letter_at_attempt_1<H: Harness>(h: &H) {
    async fn number(State(seen): State<Seen>, Json(_): Json<u32>, delivery: Delivery) {
        seen.add(delivery);
    }
    let place = Place::new(h, "r3").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h).concurrency(1), number)
        .with_state(seen.clone());
    let counters = server.counters();
    let server = Started::start(server).await;
    let raw = Bytes::from_static(b"{\"not\": a number\xff");
    let bad = publish(
        h,
        Message::new(&place.topic, raw.clone()).header("kept", "yes"),
    )
    .await;
    publish(h, Message::json(&place.topic, &7).unwrap()).await;
    let within = h.bounds().deliver;
    eventually("the next is handled", within, || seen.all().len() == 1).await;
    eventually("one is dead", within, || {
        counters.stats().dead_lettered == 1
    })
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");

    let dead = dead_letters(h, &place.group).await;
    let [dead] = &*dead else {
        panic!("more than one dead letter: {dead:?}")
    };
    assert_eq!((dead.id(), dead.body()), (&bad, &raw));
    assert_eq!(dead.headers().get("kept"), Some("yes"));
    let stats = counters.stats();
    assert_eq!((stats.failed, stats.retried), (1, 0), "at attempt 1");
}

/// R4: a panic is a failure of its message alone: it comes again, others are not affected.
///
/// # Panics
///
/// It is not.
pub async fn r4_a_panic_is_a_failure_of_its_message<H: Harness>(h: &H) {
    async fn panic_once(State(seen): State<Seen>, body: Bytes, delivery: Delivery) {
        assert!(!(body == "bad" && delivery.attempt() == 1), "on purpose");
        seen.add(delivery);
    }
    let place = Place::new(h, "r4").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h).concurrency(1), panic_once)
        .with_state(seen.clone());
    let server = Started::start(server).await;
    publish(h, Message::new(&place.topic, "bad")).await;
    publish(h, Message::new(&place.topic, "good")).await;
    let bounds = h.bounds();
    eventually(
        "both are handled",
        bounds.deliver + bounds.redelivery_late,
        || seen.all().len() == 2,
    )
    .await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let attempt = |body| {
        seen.all()
            .into_iter()
            .find(|d| d.body() == body)
            .map(|d| d.attempt())
    };
    assert_eq!((attempt("bad"), attempt("good")), (Some(2), Some(1)));
}

/// R7: a handler that the shutdown cuts off has not failed: its message is reported, is no dead
/// letter, and is handled by the next server.
///
/// # Panics
///
/// It is not.
pub async fn r7_cancellation_by_shutdown_is_no_failure<H: Harness>(h: &H) {
    async fn hang(State(seen): State<Seen>, delivery: Delivery) {
        seen.add(delivery);
        std::future::pending().await
    }
    let place = Place::new(h, "r7").await;
    prime(h, &place.topic, &place.group).await;
    let seen = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), hang)
        .with_state(seen.clone());
    let counters = server.counters();
    let server = Started::start(server).await;
    let id = publish(h, Message::new(&place.topic, "x")).await;
    eventually("it runs", h.bounds().deliver, || seen.all().len() == 1).await;
    server.force();
    let error = server
        .stop(Duration::from_secs(5))
        .await
        .expect_err("one is cut off");
    assert_eq!(error.abandoned_ids(), [id.to_string()]);
    let stats = counters.stats();
    assert_eq!(
        (stats.failed, stats.dead_lettered, stats.handled),
        (0, 0, 0)
    );

    let again = Seen::default();
    let server = Server::new(h.driver().await)
        .subscribe_with(place.subscription(h), see)
        .with_state(again.clone());
    let server = Started::start(server).await;
    let within = h.bounds().deliver + h.bounds().redelivery_late;
    eventually("the next server has it", within, || again.all().len() == 1).await;
    server.stop(h.invisible()).await.expect("a clean stop");
    let counted = h.driver().await;
    let spent = u32::from(crate::Driver::capabilities(&counted).counts_hand_back());
    assert_eq!(again.all()[0].attempt(), 1 + spent);
    assert!(h.dead_letters(&place.group).await.is_empty());
}
