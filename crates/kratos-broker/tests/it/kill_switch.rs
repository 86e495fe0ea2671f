//! The kill switch: everything fails, so nothing is tried.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use kratos::Health;
use kratos_broker::{
    AnyError, Delivery, Disposition, KillSwitch, Message, Policy, Router, Server, Subscription,
    memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};

use crate::support::{
    Log, failed, millis, publish, publish_numbers, secs, server, subscription, text, until,
};

/// A database that can be away.
#[derive(Clone, Default)]
struct Database {
    down: Arc<AtomicBool>,
    tries: Arc<AtomicU32>,
    done: Log<String>,
}

impl Database {
    fn router(&self, subscription: Subscription) -> Router {
        let database = self.clone();
        let handler = move |delivery: Delivery| {
            let database = database.clone();
            async move {
                database.tries.fetch_add(1, Ordering::SeqCst);
                sleep(millis(5)).await;
                if database.down.load(Ordering::SeqCst) {
                    return failed();
                }
                database.done.add(text(&delivery));
                Ok(())
            }
        };
        Router::new().subscribe_with(subscription, handler)
    }

    fn goes_down(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    fn comes_back(&self) {
        self.down.store(false, Ordering::SeqCst);
    }

    fn tries(&self) -> u32 {
        self.tries.load(Ordering::SeqCst)
    }
}

fn switch() -> KillSwitch {
    KillSwitch::new().failures_in_a_row(8).pause(secs(10))
}

fn is_degraded(started: &Started) -> bool {
    matches!(started.health(), Health::Degraded(_))
}

#[tokio::test(start_paused = true)]
async fn r8_an_outage_costs_few_attempts_no_dead_letter_and_ends_with_it() {
    let broker = Broker::new().max_attempts(20);
    let database = Database::default();
    database.goes_down();
    let subscription = subscription().kill_switch(switch()).concurrency(4);
    let server = server(&broker, database.router(subscription));
    let (counters, controls) = (server.counters(), server.controls());
    let started = Started::start(server).await;
    publish_numbers(&broker, 1_000).await;
    sleep(secs(1_800)).await;
    // 8 open it, 3 more were running, one probe after 10, 30, 70, then every 60 s.
    let tries = database.tries();
    assert!(
        (35..=8 + 3 + 34).contains(&tries),
        "{tries} attempts in half an hour"
    );
    let stats = counters.stats();
    assert_eq!(
        (stats.switch_opened, stats.dead_lettered, stats.leases_lost),
        (1, 0, 0)
    );
    assert!(stats.received <= 60, "intake stops: {stats:?}");
    assert_eq!(stats.failed, stats.kept + stats.retried);
    let reason = match started.health() {
        Health::Degraded(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert!(
        reason.contains("topic t, group g") && reason.contains("kill switch open"),
        "{reason}"
    );
    let status = &controls.subscriptions()[0];
    assert!(
        matches!(status.state, kratos::SubscriptionState::SwitchedOff),
        "{status:?}"
    );
    let why = status.reason.as_deref().unwrap_or_default();
    assert!(why.starts_with("kill switch open: "), "{why}");
    assert!(status.since > secs(600), "{status:?}");
    assert_eq!(status.last_error.as_ref().unwrap().message, "on purpose");
    assert!(status.waiting > 0 && status.in_flight == 0, "{status:?}");

    let back = Instant::now();
    database.comes_back();
    until("work goes on", || database.done.len() > 1).await;
    assert!(back.elapsed() <= secs(61), "{:?}", back.elapsed());
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(database.done.len(), 1_000, "each once");
    assert!(broker.dead_letters("g").is_empty());
    assert_eq!(started.health(), Health::Serving);
    assert_eq!(
        controls.subscriptions()[0].state,
        kratos::SubscriptionState::Running
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_each_message_at_most_one_delivery() {
    let broker = Broker::new();
    let database = Database::default();
    database.goes_down();
    let attempts = Log::default();
    let handler = {
        let (database, attempts) = (database.clone(), attempts.clone());
        move |delivery: Delivery| {
            let (database, attempts) = (database.clone(), attempts.clone());
            async move {
                if database.down.load(Ordering::SeqCst) {
                    return failed();
                }
                attempts.add(delivery.attempt());
                Ok(())
            }
        }
    };
    // So that the first failures do not go back to the broker.
    let policy = Policy::new().in_process(3);
    let subscription = subscription().policy(policy).kill_switch(switch());
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    publish_numbers(&broker, 100).await;
    sleep(secs(600)).await;
    database.comes_back();
    until("all are done", || attempts.len() == 100).await;
    assert!(
        attempts.all().iter().all(|attempt| *attempt <= 2),
        "{attempts:?}"
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn order_outlives_an_outage_and_no_attempt_of_the_head_counts() {
    for units in [false, true] {
        let mut broker = Broker::new();
        if units {
            broker = broker.batches_are_units(1);
        }
        let database = Database::default();
        database.goes_down();
        // One group: the switch opens with the attempts of its head, fewer than 8.
        for n in 0..20 {
            publish(&broker, Message::new("t", n.to_string()).group("one")).await;
        }
        let mut subscription = subscription().kill_switch(switch());
        if units {
            subscription = subscription.fifo();
        }
        let server = server(&broker, database.router(subscription));
        let counters = server.counters();
        let started = Started::start(server).await;
        sleep(secs(600)).await;
        assert!(is_degraded(&started), "{:?}", counters.stats());
        assert!(database.tries() < 20, "{}", database.tries());
        database.comes_back();
        until("all are done", || broker.backlog("t", "g") == 0).await;
        let wanted: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(database.done.all(), wanted);
        assert!(broker.dead_letters("g").is_empty());
        started.stop(secs(5)).await.unwrap();
        assert_eq!(counters.stats().received, 20);
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_message_does_not_keep_it_open() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                if delivery.body() == "bad" {
                    return failed();
                }
                done.add(text(&delivery));
                Ok(())
            }
        }
    };
    let policy = Policy::new().max_attempts(12);
    let subscription = subscription().policy(policy).kill_switch(switch());
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let counters = server.counters();
    let started = Started::start(server).await;
    publish(&broker, Message::new("t", "bad")).await;
    until("it has opened the switch alone", || {
        counters.stats().switch_opened == 1
    })
    .await;
    publish(&broker, Message::new("t", "good")).await;
    until("another is tried", || done.len() == 1).await;
    until("the bad one used up its attempts", || {
        broker.dead_letters("g").len() == 1
    })
    .await;
    assert_eq!(started.health(), Health::Serving);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bad_head_among_good_ones_is_dead_lettered() {
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                if delivery.body() == "bad" {
                    return failed();
                }
                done.add(());
                Ok(())
            }
        }
    };
    let subscription = Subscription::new("t", "g").kill_switch(switch());
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    for n in 0..200 {
        let body = if n == 0 { "bad" } else { "good" };
        publish(&broker, Message::new("t", body).group((n % 2).to_string())).await;
        sleep(millis(50)).await;
    }
    until("all is settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!((done.len(), broker.dead_letters("g").len()), (199, 1));
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn poison_neither_opens_nor_closes_it() {
    #[derive(Debug)]
    enum Bad {
        Poison,
        Down,
    }
    impl std::fmt::Display for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bad")
        }
    }
    impl kratos_broker::HandlerError for Bad {
        fn disposition(&self) -> Disposition {
            match self {
                Self::Poison => Disposition::Poison,
                Self::Down => Disposition::Retry,
            }
        }
    }
    let broker = Broker::new();
    let down = Arc::new(AtomicBool::new(false));
    let handler = {
        let down = down.clone();
        move |delivery: Delivery| {
            let down = down.clone();
            async move {
                match delivery.body() == "poison" {
                    true => Err(Bad::Poison),
                    false if down.load(Ordering::SeqCst) => Err(Bad::Down),
                    false => Ok(()),
                }
            }
        }
    };
    let subscription = subscription().kill_switch(switch()).concurrency(1);
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let counters = server.counters();
    let started = Started::start(server).await;
    for _ in 0..50 {
        publish(&broker, Message::new("t", "poison")).await;
    }
    until("all are dead", || broker.dead_letters("g").len() == 50).await;
    assert_eq!(counters.stats().switch_opened, 0);
    down.store(true, Ordering::SeqCst);
    for n in 0..10 {
        publish(&broker, Message::new("t", n.to_string())).await;
        publish(&broker, Message::new("t", "poison")).await;
    }
    until("it is open", || is_degraded(&started)).await;
    sleep(secs(120)).await;
    assert!(is_degraded(&started), "a poisoned probe says nothing");
    assert_eq!(counters.stats().switch_opened, 1);
    down.store(false, Ordering::SeqCst);
    until("all is settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(broker.dead_letters("g").len(), 60);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_ratio_of_the_last_outcomes_opens_it_too() {
    let broker = Broker::new();
    let tries = Log::default();
    let handler = {
        let tries = tries.clone();
        move |delivery: Delivery| {
            let tries = tries.clone();
            async move {
                tries.add(());
                if text(&delivery).parse::<u32>()? % 2 == 1 {
                    return Err(AnyError::msg("half of them"));
                }
                Ok(())
            }
        }
    };
    let switch = switch().ratio(0.5, 20);
    let subscription = subscription().kill_switch(switch).concurrency(1);
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let counters = server.counters();
    let started = Started::start(server).await;
    publish_numbers(&broker, 40).await;
    until("it opens", || counters.stats().switch_opened == 1).await;
    assert_eq!(tries.len(), 20, "not before there are 20");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_it_is_open_hands_everything_back() {
    let broker = Broker::new();
    let database = Database::default();
    database.goes_down();
    let subscription = subscription().kill_switch(switch().unready_when_open());
    let server = server(&broker, database.router(subscription));
    let started = Started::start(server).await;
    publish_numbers(&broker, 100).await;
    until("it is open", || !started.health().is_ready()).await;
    sleep(secs(3)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (100, 0));
    assert!(broker.dead_letters("g").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_it_is_open_does_not_dead_letter_last_attempts() {
    let broker = Broker::new().max_attempts(2).hand_back_spends_attempt();
    let database = Database::default();
    database.goes_down();
    let policy = Policy::new().backoff(kratos_broker::Backoff::fixed(secs(1)));
    let subscription = subscription()
        .policy(policy)
        .kill_switch(switch().failures_in_a_row(30))
        .concurrency(20);
    let server = server(&broker, database.router(subscription));
    let counters = server.counters();
    let started = Started::start(server).await;
    publish_numbers(&broker, 20).await;
    until("it is open, in the second attempts", || {
        is_degraded(&started)
    })
    .await;
    sleep(secs(1)).await;
    let lettered = counters.stats().dead_lettered;
    assert!(lettered < 20, "{:?}", counters.stats());
    let error = started.stop(secs(5)).await.unwrap_err();
    assert!(!error.abandoned_ids().is_empty());
    assert_eq!(counters.stats().dead_lettered, lettered, "we give up none");
}

#[tokio::test(start_paused = true)]
async fn leases_are_kept_up_to_the_maximum_while_it_is_open() {
    let broker = Broker::new();
    let database = Database::default();
    database.goes_down();
    let subscription = subscription()
        .invisible_duration(secs(10))
        .max_hold(secs(100))
        .kill_switch(switch());
    let server = server(&broker, database.router(subscription));
    let counters = server.counters();
    let started = Started::start(server).await;
    publish_numbers(&broker, 30).await;
    sleep(secs(95)).await;
    assert_eq!(counters.stats().leases_lost, 0);
    sleep(secs(60)).await;
    assert!(counters.stats().leases_lost > 20, "{:?}", counters.stats());
    database.comes_back();
    until("all are done", || broker.backlog("t", "g") == 0).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn subscriptions_of_the_same_topic_with_other_tags_go_on() {
    let broker = Broker::new();
    let (bad, good) = (Database::default(), Database::default());
    bad.goes_down();
    let of = |tag: &str| subscription().tags([tag]).kill_switch(switch());
    let router = bad.router(of("bad")).merge(good.router(of("good")));
    let server: Server<Broker> = server(&broker, router);
    let started = Started::start(server).await;
    for n in 0..30 {
        let tag = if n % 2 == 0 { "bad" } else { "good" };
        publish(&broker, Message::new("t", n.to_string()).tag(tag)).await;
    }
    until("the others are done", || good.done.len() == 15).await;
    sleep(secs(60)).await;
    assert!(is_degraded(&started));
    publish(&broker, Message::new("t", "late").tag("good")).await;
    until("a late one too", || good.done.len() == 16).await;
    assert_eq!(bad.done.len(), 0);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tried_message_that_hangs_does_not_keep_others_from_being_tried() {
    let broker = Broker::new();
    let (database, seen) = (Database::default(), Log::default());
    database.goes_down();
    let handler = {
        let (database, seen) = (database.clone(), seen.clone());
        move || {
            let (database, seen) = (database.clone(), seen.clone());
            async move {
                seen.add(());
                match seen.len() {
                    1..=8 => failed(),
                    // On a connection that nobody answers on.
                    9 => std::future::pending().await,
                    _ if database.down.load(Ordering::SeqCst) => failed(),
                    _ => Ok(()),
                }
            }
        }
    };
    let subscription = subscription().concurrency(2).kill_switch(switch());
    let server = server(&broker, Router::new().subscribe_with(subscription, handler));
    let started = Started::start(server).await;
    publish_numbers(&broker, 20).await;
    until("one is tried, and hangs", || seen.len() == 9).await;
    sleep(secs(50)).await;
    assert_eq!(seen.len(), 9);
    database.comes_back();
    until("all but that one are done", || {
        broker.backlog("t", "g") == 1
    })
    .await;
    assert_eq!(started.health(), Health::Serving);
    started.force();
    assert!(started.stop(secs(5)).await.is_err(), "it was cut off");
}

#[tokio::test(start_paused = true)]
async fn who_has_no_room_because_of_a_switched_off_sibling_is_told() {
    let broker = Broker::new();
    let (bad, good) = (Database::default(), Database::default());
    bad.goes_down();
    let of = |tag: &str| subscription().tags([tag]).kill_switch(switch());
    let router = bad.router(of("bad")).merge(good.router(of("good")));
    let started = Started::start(server(&broker, router)).await;
    let reason = || match started.health() {
        Health::Degraded(reason) => reason.to_string(),
        _ => String::new(),
    };
    let told = |reason: &str| reason.contains("filter good receives nothing meanwhile");
    for n in 0..20 {
        publish(&broker, Message::new("t", n.to_string()).tag("bad")).await;
    }
    until("the switch is open", || reason().contains("kill switch")).await;
    publish(&broker, Message::new("t", "early").tag("good")).await;
    until("there is room", || good.done.len() == 1).await;
    assert!(!told(&reason()), "{}", reason());
    // One good one brings many bad ones.
    for n in 0..500 {
        publish(&broker, Message::new("t", n.to_string()).tag("bad")).await;
        if n % 20 == 0 {
            publish(&broker, Message::new("t", "between").tag("good")).await;
        }
    }
    until("it is told", || told(&reason())).await;
    let reason_now = reason();
    assert!(reason_now.contains("kill switch open"), "{reason_now}");
    bad.comes_back();
    until("all are done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(started.health(), Health::Serving);
    started.stop(secs(5)).await.unwrap();
}
