//! What follows a failure.

use std::time::Duration;

use kratos_broker::{
    AnyError, Attempt, Backoff, Deadline, Delivery, Disposition, HandlerError, Message, Policy,
    Router, memory::Broker, testing::Started,
};
use tokio::time::Instant;

use crate::support::{Log, failed, publish, secs, server, subscription, text, until};

#[derive(Debug)]
struct Refused(Disposition);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl HandlerError for Refused {
    fn disposition(&self) -> Disposition {
        self.0
    }
}

/// Publishes one message to a handler that always fails; answers when each attempt came.
async fn attempts(
    broker: &Broker,
    subscription: kratos_broker::Subscription,
    disposition: Disposition,
) -> Vec<Duration> {
    let tries = Log::default();
    let handler = {
        let tries = tries.clone();
        move || {
            let tries = tries.clone();
            async move {
                tries.add(Instant::now());
                Err::<(), _>(Refused(disposition))
            }
        }
    };
    let started = Started::start(server(
        broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    let begin = Instant::now();
    publish(broker, Message::new("t", "x")).await;
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    started.stop(secs(5)).await.unwrap();
    assert_eq!(broker.backlog("t", "g"), 0);
    tries.all().into_iter().map(|at| at - begin).collect()
}

#[tokio::test(start_paused = true)]
async fn back_off_is_never_early_and_grows() {
    let policy = Policy::new()
        .max_attempts(4)
        .backoff(Backoff::exponential(secs(1), secs(60)));
    let at = attempts(
        &Broker::new(),
        subscription().policy(policy),
        Disposition::Retry,
    )
    .await;
    assert_eq!(at.len(), 4);
    for (pair, least) in at.windows(2).zip([1.0, 2.0, 4.0]) {
        let waited = (pair[1] - pair[0]).as_secs_f64();
        assert!(
            (least..least * 1.2 + 0.05).contains(&waited),
            "{waited} after {least}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_lower_limit_of_attempts_applies() {
    let of_five = || {
        subscription().policy(
            Policy::new()
                .max_attempts(5)
                .backoff(Backoff::fixed(secs(1))),
        )
    };
    let broker = Broker::new().max_attempts(3);
    assert_eq!(
        attempts(&broker, subscription(), Disposition::Retry)
            .await
            .len(),
        3,
        "the broker's, where nobody asked for more"
    );
    let broker = Broker::new().max_attempts(9);
    assert_eq!(
        attempts(&broker, of_five(), Disposition::Retry).await.len(),
        5,
        "ours"
    );
}

#[tokio::test(start_paused = true)]
async fn poison_is_dead_at_once_and_retry_after_waits_as_told() {
    assert_eq!(
        attempts(&Broker::new(), subscription(), Disposition::Poison)
            .await
            .len(),
        1
    );
    let twice = subscription().policy(Policy::new().max_attempts(2));
    let at = attempts(&Broker::new(), twice, Disposition::RetryAfter(secs(77))).await;
    assert_eq!((at[1] - at[0]).as_secs(), 77);
}

#[tokio::test(start_paused = true)]
async fn fatal_ends_the_server_and_keeps_the_message() {
    let broker = Broker::new();
    let handler = || async { Err::<(), _>(Refused(Disposition::Fatal)) };
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription(), handler),
    ))
    .await;
    let id = publish(&broker, Message::new("t", "x")).await;
    let error = started.ended(secs(10)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("message {id} of topic t failed fatally: refused")
    );
    assert_eq!(
        (broker.backlog("t", "g"), broker.held("t", "g")),
        (1, 0),
        "handed back"
    );
}

#[tokio::test(start_paused = true)]
async fn classify_decides_in_place_of_the_error_itself_and_inside_any_error() {
    let poison = |_: &std::num::ParseIntError| Disposition::Poison;
    let broker = Broker::new();
    let handler = |delivery: Delivery| async move {
        let _: u32 = text(&delivery).parse()?;
        Ok::<_, AnyError>(())
    };
    let router = Router::new().subscribe_with(subscription().classify(poison), handler);
    let started = Started::start(server(&broker, router)).await;
    publish(&broker, Message::new("t", "not a number")).await;
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    assert_eq!(broker.dead_letters("g")[0].attempt(), 1);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_over_its_time_is_dropped_and_tried_again_with_a_fresh_deadline() {
    let broker = Broker::new();
    let (deadlines, dropped) = (Log::default(), Log::default());
    let handler = {
        let (deadlines, dropped) = (deadlines.clone(), dropped.clone());
        move |Deadline(deadline): Deadline,
              Attempt(attempt): Attempt,
              cancelled: kratos_broker::Cancelled| {
            let (deadlines, dropped) = (deadlines.clone(), dropped.clone());
            async move {
                deadlines.add(deadline - Instant::now());
                if attempt == 1 {
                    let _guard = OnDrop(dropped, cancelled.0);
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    let subscription = subscription().handler_timeout(secs(5));
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    publish(&broker, Message::new("t", "x")).await;
    until("it is done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(deadlines.all(), [secs(5), secs(5)]);
    assert_eq!(dropped.all(), [true], "the token fired before the drop");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lane_survives_a_panic_in_the_handler_and_in_its_drop() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let broker = Broker::new();
    let done = Log::default();
    let handler = {
        let done = done.clone();
        move |delivery: Delivery| {
            let done = done.clone();
            async move {
                match (&*text(&delivery), delivery.attempt()) {
                    ("drop", 1) => {
                        let _bomb = PanicsInDrop;
                        std::future::pending().await
                    }
                    ("panic", 1) => panic!("on purpose"),
                    ("fail", 1) => failed(),
                    _ => {
                        done.add(text(&delivery));
                        Ok(())
                    }
                }
            }
        }
    };
    let subscription = subscription().concurrency(1).handler_timeout(secs(3));
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    for body in ["drop", "panic", "fail", "fine"] {
        publish(&broker, Message::new("t", body)).await;
    }
    until("all are done", || done.len() == 4).await;
    assert_eq!(broker.dead_letters("g").len(), 0);
    started.stop(secs(5)).await.unwrap();
}

/// Tells at its drop whether the token had fired.
pub(crate) struct OnDrop(
    pub(crate) Log<bool>,
    pub(crate) tokio_util::sync::CancellationToken,
);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add(self.1.is_cancelled());
    }
}
