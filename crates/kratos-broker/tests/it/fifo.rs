//! Ordered subscriptions on a broker whose batches are units.

use std::{sync::Arc, time::Duration};

use kratos_broker::{
    AnyError, Backoff, Delivery, Disposition, Message, Order, Policy, Router, Server, Subscription,
    memory::Broker,
    testing::{Started, start_context},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::support::{Log, failed, millis, publish, secs, server, text, until};

fn fifo() -> Subscription {
    let policy = Policy::ordered().backoff(Backoff::fixed(secs(2)));
    Subscription::new("t", "g")
        .fifo()
        .invisible_duration(secs(10))
        .ordered_policy(policy)
}

fn broker() -> Broker {
    Broker::new().batches_are_units(1)
}

/// Publishes `a0 b0 a1 b1 ..`: message groups a and b, in one partition; answers the ids.
async fn publish_two_groups(broker: &Broker, each: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..each {
        for group in ["a", "b"] {
            let message = Message::new("t", format!("{group}{n}")).group(group);
            ids.push(publish(broker, message).await);
        }
    }
    ids
}

/// What a handler does with a message, by its body.
type Script = fn(&str, u32) -> Step;

enum Step {
    Take(Duration),
    Fail,
    Wait,
    WaitAndFail,
}

/// A handler that follows a script, and logs what it begins and ends.
#[derive(Clone)]
struct Stage {
    script: Script,
    began: Log<String>,
    done: Log<String>,
    gate: Arc<Semaphore>,
}

impl Stage {
    fn new(script: Script) -> Self {
        Self {
            script,
            began: Log::default(),
            done: Log::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    fn router(&self, subscription: Subscription) -> Router {
        let stage = self.clone();
        let handler = move |delivery: Delivery| {
            let stage = stage.clone();
            async move { stage.play(&delivery).await }
        };
        Router::new().subscribe_with(subscription, handler)
    }

    async fn play(&self, delivery: &Delivery) -> Result<(), AnyError> {
        let name = text(delivery);
        self.began.add(name.clone());
        match (self.script)(&name, delivery.attempt()) {
            Step::Take(time) => sleep(time).await,
            Step::Wait => self.gate.acquire().await.unwrap().forget(),
            Step::WaitAndFail => {
                self.gate.acquire().await.unwrap().forget();
                return failed();
            }
            Step::Fail => return failed(),
        }
        self.done.add(name);
        Ok(())
    }
}

fn of(group: &str, names: &[String]) -> Vec<String> {
    let of = names.iter().filter(|name| name.starts_with(group));
    of.cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn a_poison_message_in_the_middle_is_dead_and_its_group_goes_on() {
    let broker = broker();
    let stage = Stage::new(|name, _| match name {
        "a1" => Step::Fail,
        _ => Step::Take(millis(10)),
    });
    publish_two_groups(&broker, 4).await;
    let server = server(&broker, stage.router(fifo()));
    let counters = server.counters();
    let started = Started::start(server).await;
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(of("a", &stage.done.all()), ["a0", "a2", "a3"]);
    assert_eq!(of("b", &stage.done.all()), ["b0", "b1", "b2", "b3"]);
    let tries = stage.began.all().iter().filter(|n| *n == "a1").count();
    assert_eq!(tries, 3, "in this process");
    let dead = broker.dead_letters("g");
    assert_eq!(dead.iter().map(text).collect::<Vec<_>>(), ["a1"]);
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!((stats.received, stats.repeated, stats.refused), (8, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn retries_in_process_keep_the_leases_of_the_whole_batch() {
    let broker = broker();
    let stage = Stage::new(|name, attempt| match (name, attempt) {
        ("a0", 1..=5) => Step::Fail,
        _ => Step::Take(millis(10)),
    });
    publish_two_groups(&broker, 3).await;
    // Six attempts, 8 s apart: four leases long.
    let policy = Policy::ordered()
        .max_attempts(6)
        .backoff(Backoff::fixed(secs(8)));
    let server = server(&broker, stage.router(fifo().ordered_policy(policy)));
    let counters = server.counters();
    let started = Started::start(server).await;
    until("the other group is done", || stage.done.len() == 3).await;
    assert_eq!(counters.stats().confirmed, 0, "an ack waits for the prefix");
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(stage.done.len(), 6, "{:?}", stage.done.all());
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!((stats.received, stats.confirmed, stats.refused), (6, 6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_all_behind_it_and_they_come_again_in_order() {
    let broker = broker();
    let stage = Stage::new(|name, _| match name {
        "a0" | "b1" => Step::Wait,
        _ => Step::Take(millis(10)),
    });
    // Places: a0 b0 a1 b1 a2 b2.
    let ids = publish_two_groups(&broker, 3).await;
    let server = server(&broker, stage.router(fifo()));
    let counters = server.counters();
    let started = Started::start(server).await;
    let running = || stage.began.all().contains(&"b1".to_owned());
    until("b1 runs, b0 is done, a1 waits", running).await;
    assert!(broker.lose_lease("g", &ids[0]));
    until("they come again", || stage.began.len() >= 5).await;
    assert_eq!(stage.done.all(), ["b0"], "a1 did not run past a0");
    stage.gate.add_permits(100);
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(of("a", &stage.done.all()), ["a0", "a1", "a2"]);
    assert_eq!(of("b", &stage.done.all()), ["b0", "b0", "b1", "b2"]);
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!((stats.leases_lost, stats.repeated), (1, 1), "b0 was told");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_leaves_what_stands_before_it_alone() {
    let broker = broker();
    let stage = Stage::new(|name, _| match name {
        "a0" | "b0" => Step::Wait,
        _ => Step::Take(millis(10)),
    });
    let ids = publish_two_groups(&broker, 2).await;
    let server = server(&broker, stage.router(fifo()));
    let counters = server.counters();
    let started = Started::start(server).await;
    until("both run", || stage.began.len() == 2).await;
    assert!(broker.lose_lease("g", &ids[1]), "b0");
    sleep(secs(20)).await;
    assert_eq!(stage.began.len(), 2, "a0 holds the partition");
    stage.gate.add_permits(100);
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(of("a", &stage.done.all()), ["a0", "a1"]);
    assert_eq!(of("b", &stage.done.all()), ["b0", "b1"]);
    started.stop(secs(5)).await.unwrap();
    assert_eq!(counters.stats().repeated, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_others_have_overtaken_and_hands_back_the_rest() {
    let broker = broker();
    let stage = Stage::new(|name, _| match name {
        "a0" => Step::Take(secs(3)),
        _ => Step::Take(millis(100)),
    });
    // Places: a0 b0 a1 b1 a2 b2 a3 b3; a0 takes 3 s, so b3 is done while a1, a2, a3 wait.
    publish_two_groups(&broker, 4).await;
    publish(&broker, Message::new("t", "a4").group("a")).await;
    let server = server(&broker, stage.router(fifo()));
    let counters = server.counters();
    let started = Started::start(server).await;
    until("b3 is done", || stage.done.len() == 4).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(4), "{:?}", begin.elapsed());
    assert_eq!(of("a", &stage.done.all()), ["a0", "a1", "a2", "a3"]);
    let stats = counters.stats();
    assert_eq!((stats.handed_back, stats.repeated), (1, 0), "only a4");
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_retries_finishes_them_where_others_are_done_behind() {
    let broker = broker();
    let stage = Stage::new(|name, attempt| match (name, attempt) {
        ("a0", 1..=2) => Step::Fail,
        _ => Step::Take(millis(10)),
    });
    publish_two_groups(&broker, 2).await;
    let server = server(&broker, stage.router(fifo()));
    let counters = server.counters();
    let started = Started::start(server).await;
    until("b is done", || stage.done.len() == 2).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!(of("a", &stage.done.all()), ["a0", "a1"]);
    let stats = counters.stats();
    assert_eq!(
        (stats.retried, stats.repeated, stats.handed_back),
        (2, 0, 0)
    );
    assert_eq!(broker.backlog("t", "g"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_retries_hands_back_where_nothing_is_done_behind() {
    let broker = broker();
    let stage = Stage::new(|name, _| match name {
        "a0" => Step::Fail,
        _ => Step::Take(millis(10)),
    });
    for n in 0..3 {
        publish(&broker, Message::new("t", format!("a{n}")).group("a")).await;
    }
    let started = Started::start(server(&broker, stage.router(fifo()))).await;
    until("it has failed once", || stage.began.len() == 1).await;
    sleep(millis(100)).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(1), "{:?}", begin.elapsed());
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (3, 0));
    assert!(broker.dead_letters("g").is_empty());

    let again = Stage::new(|_, _| Step::Take(Duration::ZERO));
    let started = Started::start(server(&broker, again.router(fifo()))).await;
    until("the next server goes on", || again.done.len() == 3).await;
    assert_eq!(again.done.all(), ["a0", "a1", "a2"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_done_behind_a_message_that_the_stop_cut_off_is_reported() {
    let broker = broker();
    let stage = Stage::new(|name, _| match name {
        "a0" => Step::Wait,
        _ => Step::Take(millis(10)),
    });
    let ids = publish_two_groups(&broker, 2).await;
    let server = server(&broker, stage.router(fifo()));
    let counters = server.counters();
    let started = Started::start(server).await;
    until("b is done", || stage.done.len() == 2).await;
    let begin = Instant::now();
    let error = started.stop(secs(10)).await.unwrap_err();
    assert!(begin.elapsed() <= secs(10), "{:?}", begin.elapsed());
    // a0 was cut off, a1 waited, b0 and b1 come again with them.
    assert_eq!(error.abandoned_ids(), ids);
    assert_eq!(counters.stats().repeated, 2);
}

#[tokio::test(start_paused = true)]
async fn messages_without_a_group_keep_the_order_of_their_partition() {
    let broker = broker();
    let stage = Stage::new(|name, attempt| match (name, attempt) {
        ("2", 1) => Step::Fail,
        _ => Step::Take(millis(10)),
    });
    for n in 0..5 {
        publish(&broker, Message::new("t", n.to_string())).await;
    }
    let started = Started::start(server(&broker, stage.router(fifo()))).await;
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert_eq!(stage.done.all(), ["0", "1", "2", "3", "4"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_in_the_middle_loses_nothing_and_order_is_kept() {
    let broker = broker();
    let first = Stage::new(|name, _| match name {
        "a2" => Step::Wait,
        _ => Step::Take(millis(10)),
    });
    publish_two_groups(&broker, 5).await;
    let task = tokio::spawn({
        let server = server(&broker, first.router(fifo()));
        async move {
            let _started = Started::start(server).await;
            std::future::pending::<()>().await;
        }
    });
    until("a2 runs, b is done", || first.done.len() == 7).await;
    // The task owns the server, but its own tasks outlive it: the broker is cut from it.
    task.abort();
    broker.disconnect();
    sleep(secs(60)).await;
    broker.reconnect();
    let second = Stage::new(|_, _| Step::Take(millis(10)));
    let started = Started::start(server(&broker, second.router(fifo()))).await;
    first.gate.add_permits(100);
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    let both = |group| [of(group, &first.done.all()), of(group, &second.done.all())].concat();
    for group in ["a", "b"] {
        let mut seen = both(group);
        let mut known = std::collections::HashSet::new();
        seen.retain(|name| known.insert(name.clone()));
        let wanted: Vec<_> = (0..5).map(|n| format!("{group}{n}")).collect();
        assert_eq!(seen, wanted, "{:?}", both(group));
    }
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_contradicts_order_is_refused_when_the_server_binds() {
    let refused = async |router: Router| {
        let server = Server::new(broker()).routes(router);
        let bound = kratos::Server::bind(server, start_context()).await;
        bound.expect_err("refused").to_string()
    };
    let handler = || async {};
    let by_key = Router::new().subscribe_with(fifo().order(Order::ByKey), handler);
    assert!(refused(by_key).await.contains("leave order out"));
    let mixed = Router::new()
        .subscribe_with(fifo(), handler)
        .subscribe("other", "g", handler);
    assert!(refused(mixed).await.contains("are fifo, others are not"));
    let mixed = Router::new()
        .subscribe_with(Subscription::new("t", "g").broadcast(), handler)
        .subscribe("other", "g", handler);
    assert!(refused(mixed).await.contains("broadcast, others are not"));
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_handler_is_kept_in_order_too() {
    let broker = broker();
    let stage = Stage::new(|name, attempt| match (name, attempt) {
        ("a0", 1) => Step::Fail,
        _ => Step::Take(millis(10)),
    });
    publish_two_groups(&broker, 2).await;
    let subscription = fifo().classify(|_: &AnyError| Disposition::RetryAfter(secs(45)));
    let begin = Instant::now();
    let started = Started::start(server(&broker, stage.router(subscription))).await;
    until("all are settled", || broker.backlog("t", "g") == 0).await;
    assert!(begin.elapsed() >= secs(45));
    assert_eq!(of("a", &stage.done.all()), ["a0", "a1"]);
    assert_eq!(stage.done.len(), 4, "each once");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_group_runs_behind_a_fatal_failure() {
    for order in [fifo(), Subscription::new("t", "g").concurrency(1)] {
        let broker = broker();
        let stage = Stage::new(|_, _| Step::Fail);
        for n in 0..3 {
            publish(&broker, Message::new("t", format!("a{n}")).group("a")).await;
        }
        let subscription = order.classify(|_: &AnyError| Disposition::Fatal);
        let started = Started::start(server(&broker, stage.router(subscription))).await;
        let error = started.ended(secs(30)).await.unwrap_err();
        assert!(error.to_string().contains("failed fatally"), "{error}");
        assert_eq!(stage.began.all(), ["a0"], "it comes again, and before a1");
        assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (3, 0));
    }
}

/// Lanes go on taking messages while the stop looks at what has overtaken what.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_at_any_moment_repeats_nothing() {
    for round in 0..200_u64 {
        let broker = broker();
        publish_two_groups(&broker, 100).await;
        let handler = move |delivery: Delivery| async move {
            let name = text(&delivery);
            if name == "a0" {
                // Meanwhile all of b goes on.
                sleep(millis(5)).await;
            }
        };
        let router = Router::new().subscribe_with(fifo().prefetch(200), handler);
        let server = server(&broker, router);
        let counters = server.counters();
        let started = Started::start(server).await;
        while counters.stats().handled <= round % 60 {
            tokio::task::yield_now().await;
        }
        let ended = started.stop(secs(10)).await;
        assert_eq!(counters.stats().repeated, 0, "round {round}");
        ended.unwrap();
    }
}

/// `a0` fails and is to be tried in an hour; `b0`, behind it in their batch, is done.
async fn stop_with_a_retry_in_an_hour(script: Script, done: usize) -> (Vec<String>, Duration) {
    let broker = broker();
    let stage = Stage::new(script);
    let subscription =
        fifo().classify(|_: &AnyError| Disposition::RetryAfter(Duration::from_secs(3600)));
    let ids = publish_two_groups(&broker, 1).await;
    let started = Started::start(server(&broker, stage.router(subscription))).await;
    until("the other is done", || {
        stage.done.len() == done && stage.began.len() == 2
    })
    .await;
    let begin = Instant::now();
    started.request(secs(20));
    sleep(millis(100)).await;
    stage.gate.add_permits(1);
    let error = started.ended(secs(30)).await.unwrap_err();
    assert_eq!(error.abandoned_ids(), ids, "both come again");
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (2, 0));
    (stage.began.all(), begin.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_retry_that_is_due_after_it() {
    let (began, took) = stop_with_a_retry_in_an_hour(
        |name, _| match name {
            "a0" => Step::Fail,
            _ => Step::Take(millis(10)),
        },
        1,
    )
    .await;
    assert_eq!(began.len(), 2);
    assert!(took < secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_late_retry_of_what_fails_during_it() {
    let (began, took) = stop_with_a_retry_in_an_hour(
        |name, _| match name {
            "a0" => Step::WaitAndFail,
            _ => Step::Take(millis(10)),
        },
        1,
    )
    .await;
    assert_eq!(began.len(), 2);
    assert!(took < secs(2), "{took:?}");
}
