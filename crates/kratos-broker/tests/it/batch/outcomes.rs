//! What follows for each message of a batch, and when the whole of it fails.

use kratos_broker::{
    AnyError, Backoff, Batch, BatchOutcome, BatchSettings, Delivery, Disposition, Json, Message,
    Order, Policy, Rejection, Router, State, memory::Broker, testing::Started,
};
use tokio::time::Instant;

use super::{Batches, FailOnce, Refused, bodies, done, one, sizes};
use crate::support::{Log, publish, publish_numbers, secs, server, text, until};

#[tokio::test(start_paused = true)]
async fn d20_a_batch_that_failed_in_part_redelivers_only_the_failed() {
    let broker = Broker::new();
    let handler = FailOnce::new(&["1", "4"]);
    publish_numbers(&broker, 6).await;
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), FailOnce::handle)
        .with_state(handler.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    done(&broker).await;
    let expected = [
        vec!["0/1", "1/1", "2/1", "3/1", "4/1", "5/1"],
        vec!["1/2", "4/2"],
    ];
    assert_eq!(handler.seen(), expected);
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!((stats.handled, stats.failed, stats.retried), (6, 2, 2));
    assert_eq!((stats.repeated, stats.confirmed), (0, 8));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_that_the_outcome_does_not_name() {
    #[derive(Clone, Copy)]
    enum Says {
        OkOf(&'static [usize]),
        Results(usize),
        Rest,
    }
    async fn say(State(says): State<Says>, batch: Batch<Delivery>) -> BatchOutcome {
        let again = batch.iter().any(|item| item.delivery.attempt() > 1);
        match says {
            _ if again => BatchOutcome::new().rest_ok(),
            Says::OkOf(indexes) => {
                let mut outcome = BatchOutcome::new();
                indexes.iter().for_each(|index| outcome.ok(*index));
                outcome
            }
            Says::Results(count) => (0..count).map(|_| Ok(())).collect(),
            Says::Rest => {
                let mut outcome = BatchOutcome::new();
                outcome.ok(0);
                outcome.fail(0, AnyError::msg("a failure is the last word"));
                outcome.ok(0);
                outcome.set(1, "7".parse::<u8>().map(|_| ()));
                outcome.rest_failed(AnyError::msg("the others"))
            }
        }
    }
    for (says, handled) in [
        (Says::OkOf(&[]), 0),
        (Says::OkOf(&[0, 2]), 2),
        (Says::OkOf(&[0, 1, 2, 3]), 4),
        (Says::OkOf(&[0, 1, 2, 3, 4]), 0),
        (Says::OkOf(&[usize::MAX]), 0),
        (Says::Results(3), 3),
        (Says::Results(5), 0),
        (Says::Rest, 1),
    ] {
        let broker = Broker::new();
        publish_numbers(&broker, 4).await;
        let router = Router::new()
            .subscribe_batch(one(), BatchSettings::new(4), say)
            .with_state(says);
        let server = server(&broker, router);
        let counters = server.counters();
        let started = Started::start(server).await;
        until("the first attempt is over", || {
            let stats = counters.stats();
            stats.handled + stats.failed == 4
        })
        .await;
        assert_eq!(counters.stats().handled, handled);
        done(&broker).await;
        started.stop(secs(5)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_message_follows_its_own_error() {
    async fn judge(
        State(seen): State<Batches>,
        batch: Batch<Delivery>,
    ) -> Result<BatchOutcome<Refused>, AnyError> {
        seen.add(bodies(&batch));
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            match (&*text(&item.body), item.delivery.attempt()) {
                ("poison", _) => outcome.fail(index, Refused(Disposition::Poison)),
                ("later", 1) => outcome.fail(index, Refused(Disposition::RetryAfter(secs(70)))),
                ("classified", _) => outcome.fail(index, Refused(Disposition::Retry)),
                _ => outcome.ok(index),
            }
        }
        Ok(outcome)
    }
    let (broker, seen) = (Broker::new(), Batches::default());
    for body in ["fine", "poison", "later"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), judge)
        .with_state(seen.clone());
    let begin = Instant::now();
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert!(begin.elapsed() >= secs(70));
    assert_eq!(seen.all(), [vec!["fine", "poison", "later"], vec!["later"]]);
    let dead = broker.dead_letters("g");
    assert_eq!(dead.iter().map(text).collect::<Vec<_>>(), ["poison"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn classify_decides_for_batches_too() {
    async fn fail(_: Batch<Delivery>) -> Result<(), AnyError> {
        let _: u8 = "x".parse()?;
        Ok(())
    }
    let broker = Broker::new();
    publish_numbers(&broker, 3).await;
    let poison = |_: &std::num::ParseIntError| Disposition::Poison;
    let router =
        Router::new().subscribe_batch(one().classify(poison), BatchSettings::new(10), fail);
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(broker.dead_letters("g").len(), 3);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_a_dead_letter_by_itself_whatever_becomes_of_the_batch() {
    async fn fail_once(State(seen): State<Log<Vec<u8>>>, batch: Batch<Json<u8>>) {
        seen.add(batch.iter().map(|item| item.body.0).collect());
        let first = batch.iter().any(|item| item.delivery.attempt() == 1);
        assert!(!first, "on purpose");
    }
    let (broker, seen) = (Broker::new(), Log::default());
    for body in ["1", "no number", "2", "300"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), fail_once)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [[1, 2], [1, 2]]);
    let dead = broker.dead_letters("g");
    let dead: Vec<_> = dead.iter().map(|d| (text(d), d.attempt())).collect();
    assert_eq!(dead, [("no number".to_owned(), 1), ("300".to_owned(), 1)]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_which_nothing_can_be_decoded_never_reaches_the_handler() {
    async fn never(_: Batch<Json<u8>>) {
        panic!("called");
    }
    let broker = Broker::new();
    for body in ["x", "y"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new().subscribe_batch(one(), BatchSettings::new(10), never);
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert!(broker.dead_letters("g").iter().all(|d| d.attempt() == 1));
    assert_eq!(broker.dead_letters("g").len(), 2);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_look_at_what_cannot_be_decoded() {
    async fn look(
        State(seen): State<Log<Vec<Option<u8>>>>,
        batch: Batch<Result<Json<u8>, Rejection>>,
    ) -> BatchOutcome {
        let bodies = batch.iter().map(|item| &item.body);
        seen.add(
            bodies
                .map(|body| body.as_ref().ok().map(|json| json.0))
                .collect(),
        );
        BatchOutcome::new().rest_ok()
    }
    let (broker, seen) = (Broker::new(), Log::default());
    for body in ["1", "x"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), look)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [[Some(1), None]]);
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_message_is_dead_lettered_for_what_another_one_did() {
    async fn burst(State(done): State<Batches>, batch: Batch<Delivery>) -> Result<(), AnyError> {
        let bodies = bodies(&batch);
        for bad in &bodies {
            match &**bad {
                "panics" => panic!("on purpose"),
                "hangs" => std::future::pending().await,
                "fails" => return Err(AnyError::msg("on purpose")),
                _ => {}
            }
        }
        done.add(bodies);
        Ok(())
    }
    let (broker, handled) = (Broker::new(), Batches::default());
    for body in ["0", "panics", "1", "hangs", "2", "fails", "3"] {
        publish(&broker, Message::new("t", body)).await;
    }
    let policy = Policy::new()
        .max_attempts(3)
        .backoff(Backoff::fixed(secs(1)));
    let subscription = one().policy(policy).handler_timeout(secs(5));
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(10), burst)
        .with_state(handled.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    let mut handled = handled.all().concat();
    handled.sort();
    assert_eq!(handled, ["0", "1", "2", "3"]);
    let mut dead: Vec<_> = broker.dead_letters("g").iter().map(text).collect();
    dead.sort();
    assert_eq!(dead, ["fails", "hangs", "panics"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fatal_ends_the_server_and_keeps_every_message_that_is_not_done() {
    async fn refuse(batch: Batch<Delivery>) -> BatchOutcome<Refused> {
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            match &*text(&item.body) {
                "2" => outcome.fail(index, Refused(Disposition::Fatal)),
                _ => outcome.ok(index),
            }
        }
        outcome
    }
    let broker = Broker::new();
    for n in 0..5 {
        publish(&broker, Message::new("t", n.to_string()).key("k")).await;
    }
    let subscription = one().order(Order::ByKey);
    let router = Router::new().subscribe_batch(subscription, BatchSettings::new(10), refuse);
    let started = Started::start(server(&broker, router)).await;
    let error = started.ended(secs(10)).await.unwrap_err();
    assert!(
        error.to_string().ends_with("failed fatally: refused"),
        "{error}"
    );
    let left = (broker.backlog("t", "g"), broker.held("t", "g"));
    assert_eq!(left, (3, 0), "it and what is behind it are handed back");
}

#[tokio::test(start_paused = true)]
async fn dead_letters_of_a_batch_go_to_the_topic_and_the_rest_is_settled() {
    async fn odd_is_bad(State(seen): State<Batches>, batch: Batch<Json<u8>>) -> BatchOutcome {
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            if item.body.0 % 2 == 1 {
                outcome.fail(
                    index,
                    AnyError::from(kratos_broker::Rejection::poison("odd")),
                );
            }
        }
        seen.add(Vec::new());
        outcome.rest_ok()
    }
    let broker = Broker::new();
    let seen = Batches::default();
    let subscription = one()
        .order(Order::ByKey)
        .dead_letter(kratos_broker::DeadLetter::topic("dead"));
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(10), odd_is_bad)
        .with_state(seen.clone());
    for n in 0..10 {
        publish(&broker, Message::new("t", n.to_string()).key("one")).await;
    }
    publish(&broker, Message::new("t", "no number").key("one")).await;
    broker.fail_publishes(3);
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
    let stats = counters.stats();
    assert_eq!(
        (stats.dead_lettered, stats.poisoned, stats.handled),
        (6, 6, 5)
    );
    assert_eq!((stats.received, stats.repeated), (11, 0));
    assert_eq!(
        seen.len(),
        1,
        "the handler does not see what does not decode"
    );
}

#[tokio::test(start_paused = true)]
async fn the_kill_switch_tries_one_message_and_keeps_the_rest_of_a_batch() {
    type Down = std::sync::Arc<std::sync::atomic::AtomicBool>;
    async fn save(
        State((down, seen)): State<(Down, Batches)>,
        batch: Batch<Delivery>,
    ) -> Result<(), AnyError> {
        seen.add(bodies(&batch));
        if down.load(std::sync::atomic::Ordering::SeqCst) {
            return crate::support::failed();
        }
        Ok(())
    }
    let broker = Broker::new();
    let (down, seen) = (Down::new(true.into()), Batches::default());
    let switch = kratos_broker::KillSwitch::new()
        .failures_in_a_row(8)
        .pause(secs(10));
    let router = Router::new()
        .subscribe_batch(one().kill_switch(switch), BatchSettings::new(10), save)
        .with_state((down.clone(), seen.clone()));
    for n in 0..10 {
        publish(&broker, Message::new("t", n.to_string())).await;
    }
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("it has tried twice", || seen.len() == 3).await;
    assert_eq!(sizes(&seen), [10, 1, 1], "one each time");
    assert_eq!(
        (counters.stats().switch_opened, counters.stats().kept),
        (1, 5)
    );
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    done(&broker).await;
    assert!(broker.dead_letters("g").is_empty());
    started.stop(secs(5)).await.unwrap();
}
