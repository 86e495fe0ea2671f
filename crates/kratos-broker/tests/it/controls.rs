//! Pausing at run time, limits of rate, and what is seen from outside.

use std::sync::Arc;

use kratos::{Action, Live, SubscriptionKind, SubscriptionState, SubscriptionStatus};
use kratos_broker::{
    Delivery, Message, RateLimit, Router, Subscription, memory::Broker, testing::Started,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::support::{
    Log, failed, millis, publish, publish_numbers, secs, server, subscription, text, until,
};

/// Not sampled: what is recorded of an attempt is none of its business.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[tokio::test(start_paused = true)]
async fn a_paused_subscription_starts_nothing_receives_no_more_and_keeps_its_leases() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                sleep(secs(1)).await;
                done.add(text(&delivery));
            }
        }
    };
    let subscription = subscription()
        .concurrency(2)
        .prefetch(10)
        .invisible_duration(secs(10));
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let (counters, controls) = (server.counters(), server.controls());
    assert!(!controls.pause("t", "g"), "it does not run yet");
    let started = Started::start(server).await;
    publish_numbers(&broker, 50).await;
    until("two are done", || done.len() == 2).await;
    assert!(!controls.pause("t", "other") && !controls.pause("other", "g"));
    assert!(controls.pause("t", "g"));
    sleep(secs(2)).await;
    let before = (done.len(), counters.stats().received);
    sleep(secs(600)).await;
    assert_eq!((done.len(), counters.stats().received), before);
    assert_eq!(counters.stats().leases_lost, 0);
    let status = status(&controls.subscriptions());
    assert_eq!(
        (status.state, status.in_flight),
        (SubscriptionState::Paused, 0)
    );
    assert_eq!(status.waiting, broker.held("t", "g"));
    assert!(status.oldest >= Some(secs(600)), "{status:?}");
    assert!(controls.resume("t", "g"));
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(done.len(), 50, "each once");
    started.stop(secs(5)).await.unwrap();
    let state = controls.subscriptions()[0].state;
    assert_eq!(state, SubscriptionState::Stopped);
}

fn status(all: &[SubscriptionStatus]) -> SubscriptionStatus {
    let [one] = all else { panic!("{all:?}") };
    one.clone()
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_tells_what_runs_what_waits_and_what_failed_last() {
    let broker = Broker::new();
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = gate.clone();
        move |delivery: Delivery| {
            let gate = gate.clone();
            async move {
                if delivery.body() == "0" {
                    return failed();
                }
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        }
    };
    let tagged = subscription().tags(["a", "b"]).concurrency(3);
    let server = server(&broker, Router::new().subscribe_with(tagged, handler));
    let controls = server.controls();
    let started = Started::start(server).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        let message = Message::new("t", n.to_string()).tag("a");
        ids.push(publish(&broker, message.header("traceparent", TRACE)).await);
        sleep(millis(1)).await;
    }
    until("it serves", || !controls.subscriptions().is_empty()).await;
    until("three run", || {
        status(&controls.subscriptions()).in_flight == 3
    })
    .await;
    until("one has failed", || {
        status(&controls.subscriptions()).last_error.is_some()
    })
    .await;
    sleep(millis(500)).await;
    let status_now = status(&controls.subscriptions());
    assert_eq!((&*status_now.topic, &*status_now.group), ("t", "g"));
    assert_eq!(status_now.filter, "a || b");
    assert_eq!(status_now.state, SubscriptionState::Running);
    assert_eq!(
        (status_now.in_flight, status_now.waiting),
        (3, 6),
        "one is with the broker"
    );
    assert!(status_now.oldest_age.is_some() && status_now.oldest >= Some(millis(500)));
    let oldest = status_now.oldest_message.unwrap();
    assert_eq!(oldest.message_id, ids[1], "the first of those that run");
    assert_eq!(oldest.trace_id.as_deref(), TRACE.get(3..35));
    let error = status_now.last_error.unwrap();
    assert_eq!(error.message, "on purpose");
    assert!(error.error_type.ends_with("AnyError"));
    assert!(
        !error.message_id.is_empty() && error.ago >= millis(400),
        "{error:?}"
    );
    assert_eq!((error.attempt, &error.trace_id), (1, &None));
    assert_eq!(
        (
            status_now.received,
            status_now.handled,
            status_now.failed,
            status_now.retried
        ),
        (10, 0, 1, 1)
    );
    assert_eq!(status_now.concurrency, 3);
    started.request(secs(20));
    sleep(millis(100)).await;
    assert_eq!(
        status(&controls.subscriptions()).state,
        SubscriptionState::Draining
    );
    gate.add_permits(100);
    started.ended(secs(21)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_subscription_stops_at_once() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move || {
            let done = done.clone();
            async move { done.add(()) }
        }
    };
    let server = server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    );
    let controls = server.controls();
    let started = Started::start(server).await;
    until("it runs", || controls.pause("t", "g")).await;
    publish_numbers(&broker, 20).await;
    sleep(secs(1)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    assert_eq!(done.len(), 0);
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (20, 0));
}

/// When each message starts, after the first.
async fn starts(broker: &Broker, limit: RateLimit, count: usize) -> (Log<Instant>, Started) {
    starts_of(broker, subscription().rate_limit(limit), count).await
}

async fn starts_of(
    broker: &Broker,
    subscription: Subscription,
    count: usize,
) -> (Log<Instant>, Started) {
    let at = Log::default();
    let handler = {
        let at = at.clone();
        move || {
            let at = at.clone();
            async move {
                at.add(Instant::now());
                sleep(millis(1)).await;
            }
        }
    };
    publish_numbers(broker, count).await;
    let router = Router::new().subscribe_with(subscription, handler);
    (at, Started::start(server(broker, router)).await)
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_spreads_starts_after_a_burst() {
    let broker = Broker::new();
    let (at, started) = starts(&broker, RateLimit::per_second(10).burst(5), 35).await;
    until("all are done", || broker.backlog("t", "g") == 0).await;
    let at = at.all();
    let after = |n: usize| (at[n] - at[0]).as_millis();
    assert_eq!(after(4), 0, "a burst of five");
    for n in 5..35 {
        // The clock has steps of a millisecond.
        let due = (n as u128 - 4) * 100;
        assert!((due..due + 3).contains(&after(n)), "{n}: {} ms", after(n));
    }
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_rate_limit_ends_with_a_stop() {
    let broker = Broker::new();
    let (at, started) = starts(&broker, RateLimit::per(1, secs(3600)), 20).await;
    until("the first has started", || at.len() == 1).await;
    sleep(secs(1)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    assert_eq!(at.len(), 1);
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (19, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_rate_limit_of_keyed_messages_ends_with_a_stop() {
    let broker = Broker::new();
    let at = Log::default();
    let handler = {
        let at = at.clone();
        move || {
            let at = at.clone();
            async move { at.add(Instant::now()) }
        }
    };
    for n in 0..20 {
        publish(&broker, Message::new("t", "x").group(n.to_string())).await;
    }
    let subscription = subscription().rate_limit(RateLimit::per(1, secs(3600)));
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    until("the first has started", || at.len() == 1).await;
    sleep(secs(1)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (19, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_must_finish_keeps_to_the_rate_limit_and_is_not_waited_for_in_vain() {
    for (limit, done, took) in [
        (
            RateLimit::per_second(10).burst(1),
            20,
            millis(1_000)..millis(2_100),
        ),
        (RateLimit::per(1, secs(600)), 1, millis(0)..millis(500)),
    ] {
        // Every delivery is the last.
        let broker = Broker::new().max_attempts(1).hand_back_spends_attempt();
        let (at, started) = starts(&broker, limit, 20).await;
        until("one has started", || !at.all().is_empty()).await;
        let begin = Instant::now();
        let stopped = started.stop(secs(20)).await;
        assert!(took.contains(&begin.elapsed()), "{:?}", begin.elapsed());
        let lost = stopped.map_or_else(|error| error.abandoned_ids().len(), |()| 0);
        assert_eq!(at.len(), done, "{limit:?}");
        // The others were not received, or are named.
        assert_eq!(broker.dead_letters("g").len(), lost, "{limit:?}");
        assert_eq!(done + lost + broker.backlog("t", "g"), 20, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_received_than_a_rate_limit_lets_start_in_time() {
    let broker = Broker::new();
    let subscription = subscription()
        .rate_limit(RateLimit::per(1, secs(60)))
        .max_hold(secs(360));
    let (at, started) = starts_of(&broker, subscription, 20).await;
    sleep(secs(1)).await;
    let held = broker.held("t", "g");
    assert!(
        (1..=4).contains(&held),
        "{held}: one a minute, held for six"
    );
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(at.len(), 20, "none came twice");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_lost_while_they_wait_take_no_starts_of_the_rate_limit() {
    let broker = Broker::new();
    let subscription = subscription()
        .concurrency(1)
        .invisible_duration(secs(10))
        .rate_limit(RateLimit::per(1, secs(10)));
    let (at, started) = starts_of(&broker, subscription, 20).await;
    until("one has started", || at.len() == 1).await;
    broker.disconnect();
    // No lease can be extended.
    sleep(secs(31)).await;
    broker.reconnect();
    let (begin, before) = (Instant::now(), at.len());
    until("it goes on", || at.len() > before).await;
    assert!(begin.elapsed() <= secs(15), "{:?}", begin.elapsed());
    started.stop(secs(5)).await.unwrap();
}

/// Handlers that run, and the most there were at once.
#[derive(Clone, Default)]
struct Crowd {
    now: Arc<std::sync::atomic::AtomicUsize>,
    done: Log<()>,
}

impl Crowd {
    fn now(&self) -> usize {
        self.now.load(std::sync::atomic::Ordering::SeqCst)
    }

    async fn handle(&self, takes: std::time::Duration) {
        self.now.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        sleep(takes).await;
        self.now.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        self.done.add(());
    }
}

#[tokio::test(start_paused = true)]
async fn concurrency_grows_and_shrinks_while_a_backlog_is_handled() {
    let broker = Broker::new();
    let crowd = Crowd::default();
    let handler = {
        let crowd = crowd.clone();
        move || {
            let crowd = crowd.clone();
            async move { crowd.handle(secs(1)).await }
        }
    };
    publish_numbers(&broker, 3_000).await;
    let subscription = subscription().concurrency(2).prefetch(4);
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let controls = server.controls();
    let started = Started::start(server).await;
    until("two run", || crowd.now() == 2).await;
    let id = status(&controls.subscriptions()).id;
    assert_eq!(id, "memory:t:g");
    controls.act(&id, Action::Concurrency(100)).unwrap();
    assert_eq!(status(&controls.subscriptions()).concurrency, 100);
    let asked = Instant::now();
    until("a hundred run", || crowd.now() == 100).await;
    assert!(asked.elapsed() <= secs(3), "{:?}", asked.elapsed());

    controls.act(&id, Action::Concurrency(1)).unwrap();
    sleep(millis(1_100)).await;
    until("one runs", || crowd.now() == 1).await;
    let before = crowd.done.len();
    sleep(secs(20)).await;
    assert!(
        (19..=22).contains(&(crowd.done.len() - before)),
        "one a second"
    );

    // Those that are to end live on, and as many as miss are started.
    controls.act(&id, Action::Concurrency(50)).unwrap();
    controls.act(&id, Action::Concurrency(10)).unwrap();
    controls.act(&id, Action::Concurrency(30)).unwrap();
    sleep(secs(3)).await;
    until("thirty run", || crowd.now() == 30).await;
    sleep(secs(5)).await;
    assert_eq!(crowd.now(), 30);
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(crowd.done.len(), 3_000, "each once");
    started.stop(secs(5)).await.unwrap();
    let refused = controls.act(&id, Action::Concurrency(2)).unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn idle_lanes_end_and_the_rest_still_wake() {
    let broker = Broker::new();
    let crowd = Crowd::default();
    let handler = {
        let crowd = crowd.clone();
        move || {
            let crowd = crowd.clone();
            async move { crowd.handle(millis(10)).await }
        }
    };
    let server = server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    );
    let controls = server.controls();
    let started = Started::start(server).await;
    until("it serves", || !controls.subscriptions().is_empty()).await;
    assert!(controls.set_concurrency("t", "g", 1) && !controls.set_concurrency("t", "x", 1));
    sleep(secs(1)).await;
    publish_numbers(&broker, 20).await;
    until("some run", || crowd.now() > 0).await;
    assert_eq!(crowd.now(), 1);
    until("all are done", || broker.backlog("t", "g") == 0).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_subscription_counts_for_itself_and_the_server_for_all() {
    let broker = Broker::new();
    let router = Router::new()
        .subscribe_with(subscription().tags(["good"]), async |_: Delivery| {})
        .subscribe_with(subscription().tags(["bad"]), async |_: Delivery| failed());
    let server = server(&broker, router);
    let (controls, counters) = (server.controls(), server.counters());
    let started = Started::start(server).await;
    for n in 0..10 {
        let tag = if n < 7 { "good" } else { "bad" };
        publish(&broker, Message::new("t", n.to_string()).tag(tag)).await;
    }
    until("all were tried", || {
        let stats = counters.stats();
        (stats.handled, stats.failed) == (7, 3)
    })
    .await;
    let all = controls.subscriptions();
    let [good, bad] = &*all else {
        panic!("{all:?}")
    };
    assert_ne!(good.id, bad.id);
    assert_eq!((good.received, good.handled, good.failed), (7, 7, 0));
    assert_eq!(
        (bad.received, bad.handled, bad.failed, bad.retried),
        (3, 0, 3, 3)
    );
    assert_eq!(counters.stats().received, 10);
    assert_eq!(good.kind, SubscriptionKind::Single);
    // One of them is paused, the other is not.
    controls.act(&bad.id, Action::Pause).unwrap();
    let states: Vec<_> = controls.subscriptions().iter().map(|s| s.state).collect();
    assert_eq!(
        states,
        [SubscriptionState::Running, SubscriptionState::Paused]
    );
    controls.act(&bad.id, Action::Resume).unwrap();
    assert!(
        controls
            .act("nobody", Action::Pause)
            .unwrap_err()
            .is_unknown()
    );
    let none = controls.act(&bad.id, Action::Concurrency(0)).unwrap_err();
    assert!(none.is_invalid(), "{none}");
    let many = controls
        .act(&bad.id, Action::Concurrency(5_000))
        .unwrap_err();
    assert_eq!(many.to_string(), "concurrency is 1 to 4096");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_heart_beats_while_the_server_runs_and_whatever_the_broker_does() {
    let broker = Broker::new();
    let router = Router::new().subscribe_with(subscription(), async |_: Delivery| {});
    let server = server(&broker, router);
    let controls = server.controls();
    assert_eq!(controls.pulse().last_beat, None, "it does not run yet");
    let started = Started::start(server).await;
    until("it beats", || controls.pulse().last_beat.is_some()).await;
    broker.disconnect();
    sleep(secs(60)).await;
    let pulse = controls.pulse();
    assert!(
        pulse.last_beat <= Some(secs(2)) && pulse.stuck.is_none(),
        "{pulse:?}"
    );
    let why = status(&controls.subscriptions()).reason;
    assert!(why.is_some_and(|why| why.contains("cannot receive")));
    broker.reconnect();
    started.stop(secs(5)).await.unwrap();
    assert_eq!(
        controls.pulse().last_beat,
        None,
        "nobody waits for it any more"
    );
}
