//! Retries in this process and by the broker, and orders of one's own.

use kratos_broker::{
    AnyError, Backoff, Delivery, Disposition, Message, Order, Policy, Router, Server, Subscription,
    memory::Broker,
    testing::{Started, start_context},
};
use tokio::time::{Instant, sleep};

use crate::support::{Log, failed, millis, publish, secs, server, subscription, text, until};

/// What was tried: body, attempt, when.
type Tries = Log<(String, u32, Instant)>;

/// Fails `bad` always, takes all else.
fn router(subscription: Subscription, tries: &Tries) -> Router {
    let tries = tries.clone();
    let handler = move |delivery: Delivery| {
        let tries = tries.clone();
        async move {
            tries.add((text(&delivery), delivery.attempt(), Instant::now()));
            if delivery.body() == "bad" {
                return failed();
            }
            Ok(())
        }
    };
    Router::new().subscribe_with(subscription, handler)
}

fn attempts(tries: &Tries, body: &str) -> Vec<u32> {
    let tries = tries.all();
    let of = tries.iter().filter(|(name, ..)| name == body);
    of.map(|(_, attempt, _)| *attempt).collect()
}

fn five_two_here() -> Policy {
    Policy::new()
        .max_attempts(5)
        .in_process(2)
        .backoff(Backoff::fixed(secs(8)))
}

#[tokio::test(start_paused = true)]
async fn the_first_retries_are_made_here_then_the_broker_delivers_again() {
    let broker = Broker::new();
    let tries = Log::default();
    let subscription = subscription()
        .policy(five_two_here())
        .concurrency(1)
        .invisible_duration(secs(10));
    let server = server(&broker, router(subscription, &tries));
    let counters = server.counters();
    let started = Started::start(server).await;
    publish(&broker, Message::new("t", "bad")).await;
    publish(&broker, Message::new("t", "good")).await;
    until("the other is done", || attempts(&tries, "good").len() == 1).await;
    assert_eq!(attempts(&tries, "bad"), [1], "it waits for nobody");
    until("two more are made", || tries.len() == 4).await;
    assert_eq!(counters.stats().received, 2, "here, with the lease kept");
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    assert_eq!(attempts(&tries, "bad"), [1, 2, 3, 4, 5]);
    let times: Vec<_> = tries
        .all()
        .into_iter()
        .filter(|(n, ..)| n == "bad")
        .collect();
    for pair in times.windows(2) {
        let waited = pair[1].2 - pair[0].2;
        assert!(waited >= secs(8) && waited < secs(10), "{waited:?}");
    }
    let stats = counters.stats();
    assert_eq!(
        (stats.received, stats.retried, stats.leases_lost),
        (4, 4, 0)
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_the_lease_does_not_reach_is_the_brokers() {
    let broker = Broker::new();
    let tries = Log::default();
    let policy = Policy::new().max_attempts(3).in_process(1);
    let subscription = subscription()
        .policy(policy.backoff(Backoff::fixed(secs(100))))
        .max_hold(secs(60));
    let server = server(&broker, router(subscription, &tries));
    let counters = server.counters();
    let started = Started::start(server).await;
    publish(&broker, Message::new("t", "bad")).await;
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    let stats = counters.stats();
    assert_eq!(
        (stats.leases_lost, stats.received),
        (0, 2),
        "one was saved up"
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_hands_over_what_waits_for_a_retry_here() {
    let broker = Broker::new();
    let tries = Log::default();
    let subscription = subscription().policy(five_two_here());
    let started = Started::start(server(&broker, router(subscription, &tries))).await;
    publish(&broker, Message::new("t", "bad")).await;
    until("it has failed", || tries.len() == 1).await;
    sleep(millis(100)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_kept_in_order_through_its_retries_here_and_let_go_to_the_broker() {
    let broker = Broker::new();
    let tries = Log::default();
    let policy = Policy::ordered().max_attempts(4).in_process(1);
    let subscription = subscription()
        .order(Order::ByKey)
        .ordered_policy(policy.backoff(Backoff::fixed(secs(1))));
    let started = Started::start(server(&broker, router(subscription, &tries))).await;
    for (body, key) in [("bad", "a"), ("behind", "a"), ("other", "b")] {
        publish(&broker, Message::new("t", body).key(key)).await;
    }
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    let order: Vec<_> = tries.all().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(order[..2], ["bad", "other"]);
    assert_eq!(order[2..], ["bad", "behind", "bad", "bad"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_function_gives_the_key() {
    let broker = Broker::new();
    let (done, tries) = (Log::default(), Log::default());
    let handler = {
        let (done, tries): (Log<String>, Log<()>) = (done.clone(), tries.clone());
        move |delivery: Delivery| {
            let (done, tries) = (done.clone(), tries.clone());
            async move {
                tries.add(());
                let number: u32 = text(&delivery)[1..].parse()?;
                sleep(millis(u64::from(7 - number % 7))).await;
                if number.is_multiple_of(5) && delivery.attempt() == 1 {
                    return failed();
                }
                done.add(text(&delivery));
                Ok::<_, AnyError>(())
            }
        }
    };
    let customer = |delivery: &Delivery| delivery.body().first().copied().filter(|c| *c != b'-');
    let subscription = subscription().order_by(customer).concurrency(8);
    let started = Started::start(server(
        &broker,
        Router::new().subscribe_with(subscription, handler),
    ))
    .await;
    for n in 0..40 {
        for customer in ["a", "b", "-"] {
            publish(&broker, Message::new("t", format!("{customer}{n}"))).await;
        }
    }
    until("all are done", || done.len() == 120).await;
    for customer in ["a", "b"] {
        let of: Vec<_> = done
            .all()
            .into_iter()
            .filter(|n| n.starts_with(customer))
            .collect();
        let wanted: Vec<_> = (0..40).map(|n| format!("{customer}{n}")).collect();
        assert_eq!(of, wanted);
    }
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_costs_the_order_and_not_the_message() {
    let broker = Broker::new();
    let tries = Log::default();
    let key = |delivery: &Delivery| Some(delivery.headers().get("customer").unwrap().to_owned());
    let subscription = subscription().order_by(key);
    let started = Started::start(server(&broker, router(subscription, &tries))).await;
    publish(&broker, Message::new("t", "good")).await;
    until("it is done", || broker.backlog("t", "g") == 0).await;
    assert_eq!(tries.len(), 1);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retry_after_zero_counts_attempts_too() {
    let broker = Broker::new();
    let tries = Log::default();
    let subscription = Subscription::new("t", "g")
        .order(Order::ByKey)
        .classify(|_: &AnyError| Disposition::RetryAfter(std::time::Duration::ZERO));
    let started = Started::start(server(&broker, router(subscription, &tries))).await;
    publish(&broker, Message::new("t", "bad").key("k")).await;
    until("it is dead", || broker.dead_letters("g").len() == 1).await;
    assert_eq!(attempts(&tries, "bad"), [1, 2, 3]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test]
async fn bind_refuses_attempts_that_nobody_gives() {
    let broker = Broker::new().max_attempts(3);
    let bind = async |subscription: Subscription| {
        let router = Router::new().subscribe_with(subscription, || async {});
        let server = Server::new(broker.clone()).routes(router);
        let bound = kratos::Server::bind(server, start_context()).await;
        bound.map(drop).map_err(|error| error.to_string())
    };
    let of = |policy| Subscription::new("t", "g").policy(policy);
    // Two of five are made here, three by the broker.
    bind(of(five_two_here())).await.unwrap();
    bind(of(five_two_here().in_process(9))).await.unwrap();
    let error = bind(of(five_two_here().in_process(1))).await.unwrap_err();
    assert!(
        error.contains("asks for 4 attempts, the group has 3"),
        "{error}"
    );
    let ordered = Subscription::new("t", "g").ordered_policy(five_two_here().in_process(1));
    assert!(bind(ordered.clone()).await.is_err());
    let error = bind(ordered.fifo()).await.unwrap_err();
    assert!(
        error.contains("fifo retries in this process only"),
        "{error}"
    );
    let by = Subscription::new("t", "g").fifo().order_by(|_| Some(1));
    assert!(bind(by).await.unwrap_err().contains("leave order out"));
}
