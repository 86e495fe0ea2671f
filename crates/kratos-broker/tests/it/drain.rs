//! The end of a server.

use kratos_broker::{Attempt, Delivery, Message, Router, memory::Broker, testing::Started};
use tokio::time::{Instant, sleep};

use crate::support::{
    Log, failed, millis, publish, publish_numbers, secs, server, subscription, text, until,
};

/// A handler that takes 2 s; logs what it starts and ends.
fn slow(
    started: &Log<String>,
    done: &Log<String>,
) -> impl Fn(Delivery) -> SlowFuture + Clone + Send + Sync + use<> {
    let (started, done) = (started.clone(), done.clone());
    move |delivery| {
        let (started, done) = (started.clone(), done.clone());
        Box::pin(async move {
            started.add(text(&delivery));
            sleep(secs(2)).await;
            done.add(text(&delivery));
        })
    }
}

type SlowFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[tokio::test(start_paused = true)]
async fn what_runs_is_finished_and_what_waits_is_handed_back() {
    let broker = Broker::new();
    let (began, done) = (Log::default(), Log::default());
    let router = Router::new().subscribe_with(subscription().concurrency(2), slow(&began, &done));
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    publish_numbers(&broker, 10).await;
    until("two run", || began.len() == 2).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!((began.len(), done.len()), (2, 2));
    assert_eq!(
        (broker.backlog("t", "g"), broker.held("t", "g")),
        (8, 0),
        "eight are handed back"
    );
    let stats = counters.stats();
    assert_eq!(
        (stats.handed_back, stats.confirmed, stats.failed),
        (8, 10, 0)
    );
}

/// A handler that takes so long; logs what it starts.
fn takes(
    wait: std::time::Duration,
    began: &Log<()>,
) -> impl Fn() -> SlowFuture + Clone + Send + Sync + use<> {
    let began = began.clone();
    move || {
        let began = began.clone();
        Box::pin(async move {
            began.add(());
            sleep(wait).await;
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_quick_handlers_have_before_them_is_finished_rather_than_handed_back() {
    let broker = Broker::new().hand_back_spends_attempt();
    let began = Log::default();
    let router = Router::new().subscribe_with(subscription(), takes(millis(1), &began));
    let server = server(&broker, router);
    let (counters, controls) = (server.counters(), server.controls());
    publish_numbers(&broker, 10_000).await;
    let started = Started::start(server).await;
    // As many as are received ahead at this pace.
    until("it is at work", || began.len() >= 4_000).await;
    let waiting = controls.subscriptions()[0].waiting;
    assert!(waiting > 300, "{waiting} wait");
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < millis(200), "{:?}", begin.elapsed());
    let stats = counters.stats();
    assert!(stats.handed_back < 32, "{stats:?}");
    assert_eq!(broker.backlog("t", "g") as u64, 10_000 - stats.handled);
    assert_eq!(broker.held("t", "g"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_makes_no_stop_longer_than_the_handlers_that_run() {
    let broker = Broker::new();
    let began = Log::default();
    publish_numbers(&broker, 2_000).await;
    // At any moment: in the first round of the handlers too.
    for wait in [10, 49, 120, 333, 700] {
        let handler = takes(millis(50), &began);
        let router = Router::new().subscribe_with(subscription().concurrency(8), handler);
        let started = Started::start(server(&broker, router)).await;
        sleep(millis(wait)).await;
        let begin = Instant::now();
        started.stop(secs(20)).await.unwrap();
        let took = begin.elapsed();
        assert!(took < millis(50 + 500), "{took:?} after {wait} ms");
    }
    assert_eq!(broker.backlog("t", "g"), 2_000 - began.len());
}

#[tokio::test(start_paused = true)]
async fn a_stop_starts_nothing_slow_for_what_is_quick_beside_it() {
    let broker = Broker::new();
    let (quick, slow) = (Log::default(), Log::default());
    let of = |tag: &str| subscription().tags([tag]).concurrency(2);
    let router = Router::new()
        .subscribe_with(of("quick"), takes(millis(1), &quick))
        .subscribe_with(of("slow"), takes(secs(5), &slow));
    for tag in ["quick", "slow"] {
        for n in 0..20 {
            publish(&broker, Message::new("t", n.to_string()).tag(tag)).await;
        }
    }
    let started = Started::start(server(&broker, router)).await;
    until("two run", || slow.len() == 2).await;
    // Just before they end.
    sleep(millis(4_970)).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!((quick.len(), slow.len()), (20, 2));
}

#[tokio::test(start_paused = true)]
async fn a_message_on_its_last_attempt_is_started_rather_than_handed_back() {
    let broker = Broker::new().max_attempts(1).hand_back_spends_attempt();
    let (began, done) = (Log::default(), Log::default());
    let router = Router::new().subscribe_with(subscription().concurrency(2), slow(&began, &done));
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 10).await;
    until("two run", || began.len() == 2).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!(done.len(), 10, "handing back would have made dead letters");
    assert!(broker.dead_letters("g").is_empty());
}

#[tokio::test(start_paused = true)]
async fn last_attempts_that_do_not_fit_before_the_deadline_are_reported() {
    let broker = Broker::new().max_attempts(1).hand_back_spends_attempt();
    let (began, done) = (Log::default(), Log::default());
    let router = Router::new().subscribe_with(subscription().concurrency(2), slow(&began, &done));
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 10).await;
    until("two run", || began.len() == 2).await;
    let begin = Instant::now();
    let error = started.stop(secs(5)).await.unwrap_err();
    assert!(
        begin.elapsed() <= secs(5),
        "within the deadline: {:?}",
        begin.elapsed()
    );
    assert_eq!(done.len(), 4, "two rounds of 2 s fit");
    assert_eq!(error.abandoned_ids().len(), 6, "{error}");
}

#[tokio::test(start_paused = true)]
async fn handlers_cut_off_by_the_stop_have_not_failed_and_are_reported() {
    let broker = Broker::new();
    let began = Log::default();
    let handler = {
        let began = began.clone();
        move |Attempt(attempt): Attempt| {
            let began = began.clone();
            async move {
                began.add(attempt);
                std::future::pending::<()>().await;
            }
        }
    };
    let server = server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    );
    let counters = server.counters();
    let started = Started::start(server).await;
    let id = publish(&broker, Message::new("t", "x")).await;
    until("it runs", || began.len() == 1).await;
    let begin = Instant::now();
    let error = started.stop(secs(10)).await.unwrap_err();
    assert!(begin.elapsed() <= secs(10));
    assert_eq!(error.abandoned_ids(), [id]);
    let stats = counters.stats();
    assert_eq!(
        (
            stats.failed,
            stats.handled,
            stats.retried,
            stats.dead_lettered
        ),
        (0, 0, 0, 0)
    );
    assert_eq!(
        (broker.backlog("t", "g"), broker.held("t", "g")),
        (1, 0),
        "handed back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_at_the_stop_ends_within_the_deadline_and_is_reported() {
    let broker = Broker::new();
    let (began, done) = (Log::default(), Log::default());
    let router = Router::new().subscribe_with(subscription().concurrency(2), slow(&began, &done));
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 4).await;
    until("two run", || began.len() == 2).await;
    broker.disconnect();
    let begin = Instant::now();
    let error = started.stop(secs(10)).await.unwrap_err();
    assert!(begin.elapsed() <= secs(10), "{:?}", begin.elapsed());
    assert_eq!(
        error.abandoned_ids().len(),
        4,
        "nothing was confirmed: {error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_server_on_a_dead_connection_stops_at_once() {
    let broker = Broker::new();
    let handler = || async {};
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    ))
    .await;
    broker.disconnect();
    sleep(secs(60)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_ordered_message_that_waits_for_its_retry_goes_back_to_the_broker() {
    let broker = Broker::new();
    let tries = Log::default();
    let handler = {
        let tries = tries.clone();
        move || {
            let tries = tries.clone();
            async move {
                tries.add(());
                failed()
            }
        }
    };
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    ))
    .await;
    publish(&broker, Message::new("t", "x").group("one")).await;
    publish(&broker, Message::new("t", "y").group("one")).await;
    until("it has failed", || tries.len() == 1).await;
    sleep(millis(50)).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (2, 0));
}
