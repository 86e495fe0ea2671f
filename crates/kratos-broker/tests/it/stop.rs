//! What races with the stop of a server.

use std::time::Duration;

use kratos_broker::{
    AnyError, Attempt, Delivery, Disposition, Message, Order, Router, Server, Subscription,
    memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    odd::Odd,
    support::{
        Log, failed, millis, publish, publish_numbers, secs, server, subscription, text, until,
    },
};

/// A handler that logs what it starts and takes some seconds.
fn takes(
    seconds: u64,
    began: &Log<String>,
) -> impl Fn(Delivery) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Clone + Send + Sync + use<>
{
    let began = began.clone();
    move |delivery| {
        let began = began.clone();
        Box::pin(async move {
            began.add(text(&delivery));
            sleep(secs(seconds)).await;
        })
    }
}

/// The attempt of each message that a group gets next.
async fn next_attempts(broker: &Broker, count: usize) -> Vec<u32> {
    let attempts = Log::default();
    let handler = {
        let attempts = attempts.clone();
        move |Attempt(attempt): Attempt| {
            let attempts = attempts.clone();
            async move { attempts.add(attempt) }
        }
    };
    let router = Router::new().subscribe_with(subscription(), handler);
    let started = Started::start(server(broker, router)).await;
    until("all have come", || attempts.len() == count).await;
    started.stop(secs(5)).await.unwrap();
    attempts.all()
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_back_does_not_come_straight_back_to_a_receive_that_still_ends() {
    let broker = Broker::new().hand_back_spends_attempt();
    let mut driver = Odd::new(&broker);
    driver.slow_stop = |_| millis(300);
    let began = Log::default();
    let router = Router::new().subscribe_with(subscription().concurrency(1), takes(1, &began));
    let started = Started::start(Server::new(driver).routes(router)).await;
    publish_numbers(&broker, 10).await;
    until("one runs", || began.len() == 1).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!(began.len(), 1);
    assert_eq!(next_attempts(&broker, 9).await, [2; 9], "one attempt each");
}

#[tokio::test(start_paused = true)]
async fn what_a_second_signal_cuts_off_is_handed_back_once() {
    let broker = Broker::new().hand_back_spends_attempt();
    let mut driver = Odd::new(&broker);
    driver.slow_stop = |_| millis(300);
    let began = Log::default();
    let router = Router::new().subscribe_with(subscription(), takes(60, &began));
    let started = Started::start(Server::new(driver).routes(router)).await;
    publish_numbers(&broker, 1).await;
    until("it runs", || began.len() == 1).await;
    started.force();
    let error = started.stop(secs(5)).await.unwrap_err();
    assert_eq!(error.abandoned_ids().len(), 1);
    assert_eq!(next_attempts(&broker, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_brought_forward_is_kept() {
    let broker = Broker::new();
    let began = Log::default();
    let router = Router::new().subscribe_with(subscription(), takes(60, &began));
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 1).await;
    until("it runs", || began.len() == 1).await;
    broker.disconnect();
    started.request(secs(25));
    sleep(secs(1)).await;
    let begin = Instant::now();
    // As after a second signal.
    started.request(millis(500));
    started.force();
    let error = started.ended(secs(30)).await.unwrap_err();
    assert_eq!(error.abandoned_ids().len(), 1, "it is reported");
    assert!(begin.elapsed() <= millis(500), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn last_attempts_that_the_driver_still_holds_are_handled() {
    let broker = Broker::new().max_attempts(1).hand_back_spends_attempt();
    let mut driver = Odd::new(&broker);
    driver.one_by_one = true;
    let began = Log::default();
    publish_numbers(&broker, 8).await;
    // With half of the room taken the engine waits, and the driver holds what it has fetched.
    let subscription = subscription().concurrency(1).prefetch(7);
    let router = Router::new().subscribe_with(subscription, takes(1, &began));
    let started = Started::start(Server::new(driver).routes(router)).await;
    until("one runs", || began.len() == 1).await;
    sleep(millis(100)).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!(began.len(), 8);
    assert!(broker.dead_letters("g").is_empty());
}

#[tokio::test(start_paused = true)]
async fn idle_lanes_end_though_last_attempts_of_one_key_run_one_after_another() {
    let broker = Broker::new().max_attempts(1).hand_back_spends_attempt();
    let began = Log::default();
    let subscription = subscription().order(Order::ByKey).concurrency(4);
    let router = Router::new().subscribe_with(subscription, takes(1, &began));
    let started = Started::start(server(&broker, router)).await;
    for n in 0..4 {
        publish(&broker, Message::new("t", n.to_string()).key("one")).await;
    }
    until("one runs", || began.len() == 1).await;
    sleep(millis(100)).await;
    let begin = Instant::now();
    started.stop(secs(60)).await.unwrap();
    assert_eq!(began.len(), 4);
    assert!(begin.elapsed() <= secs(5), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_hangs_for_one_group_takes_nothing_from_another() {
    let broker = Broker::new();
    let mut driver = Odd::new(&broker);
    driver.slow_stop = |group| {
        if group == "hung" {
            secs(3600)
        } else {
            Duration::ZERO
        }
    };
    driver.mute = |group| group == "hung";
    let (hung, well) = (Log::default(), Log::default());
    let of = |group: &str| Subscription::new("t", group).concurrency(1);
    let router = Router::new()
        .subscribe_with(of("hung"), takes(1, &hung))
        .subscribe_with(of("well"), takes(1, &well));
    let started = Started::start(Server::new(driver).routes(router)).await;
    publish_numbers(&broker, 3).await;
    until("both run", || hung.len() == 1 && well.len() == 1).await;
    let begin = Instant::now();
    started.request(secs(10));
    until("the other group has handed back", || {
        broker.held("t", "well") == 1
    })
    .await;
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    until("and is done", || broker.backlog("t", "well") == 2).await;
    assert!(begin.elapsed() < secs(2), "{:?}", begin.elapsed());
    let error = started.ended(secs(11)).await.unwrap_err();
    assert!(begin.elapsed() <= secs(10), "{:?}", begin.elapsed());
    assert_eq!(
        error.abandoned_ids().len(),
        3,
        "those of the hung group: {error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_fatal_failure_cuts_off_is_reported_with_it() {
    let broker = Broker::new().hand_back_spends_attempt();
    let began = Log::default();
    let handler = {
        let began = began.clone();
        move |delivery: Delivery| {
            let began = began.clone();
            async move {
                began.add(text(&delivery));
                if delivery.body() == "fatal" {
                    return Err(AnyError::msg("no disk"));
                }
                sleep(secs(3600)).await;
                Ok(())
            }
        }
    };
    let subscription = subscription().classify(|_: &AnyError| Disposition::Fatal);
    let router = Router::new().subscribe_with(subscription, handler);
    let started = Started::start(server(&broker, router)).await;
    let slow = publish(&broker, Message::new("t", "slow")).await;
    until("it runs", || began.len() == 1).await;
    publish(&broker, Message::new("t", "fatal")).await;
    let error = started.ended(secs(30)).await.unwrap_err();
    assert!(error.to_string().contains("no disk"), "{error}");
    assert_eq!(error.abandoned_ids(), [slow]);
    assert_eq!(began.len(), 2, "the fatal one did not come back to us");
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn durations_that_stand_for_never_are_taken() {
    let broker = Broker::new();
    let tries = Log::default();
    let handler = {
        let tries = tries.clone();
        move |delivery: Delivery| {
            let tries = tries.clone();
            async move {
                tries.add(text(&delivery));
                if delivery.body() == "bad" {
                    failed()
                } else {
                    Ok(())
                }
            }
        }
    };
    let subscription = subscription()
        .max_hold(Duration::MAX)
        .handler_timeout(Duration::MAX)
        .classify(|_: &AnyError| Disposition::RetryAfter(Duration::MAX));
    let router = Router::new().subscribe_with(subscription, handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "bad").group("one")).await;
    publish(&broker, Message::new("t", "bad")).await;
    until("both have failed", || tries.len() == 2).await;
    publish(&broker, Message::new("t", "good")).await;
    let good = async { until("the other is handled", || tries.len() == 3).await };
    timeout(secs(60), good).await.unwrap();
    started.stop(secs(5)).await.unwrap();
}
