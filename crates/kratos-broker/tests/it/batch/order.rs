//! Batches of what is in order.

use std::time::Duration;

use kratos_broker::{
    AnyError, Backoff, Batch, BatchOutcome, BatchSettings, Delivery, Disposition, Extension, Json,
    Message, Order, Policy, Router, State, Subscription, memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};

use super::{Batches, FailOnce, Refused, bodies, done, fifo, publish_two};
use crate::support::{Log, publish, secs, server, text, until};

/// The batches again, and what was done: of one key in order, first times only.
fn assert_order(handler: &FailOnce, group: &str, each: usize) {
    let mut settled = Vec::new();
    for batch in handler.seen.all() {
        let of = batch.iter().filter(|(body, _)| body.starts_with(group));
        // What stands behind a failed one counts only when it comes again.
        let failing =
            |(body, attempt): &&(String, u32)| handler.failing.contains(&&**body) && *attempt == 1;
        settled.extend(of.take_while(|m| !failing(m)).map(|(body, _)| body.clone()));
    }
    let expected: Vec<_> = (0..each).map(|n| format!("{group}{n}")).collect();
    assert_eq!(settled, expected);
}

#[tokio::test(start_paused = true)]
async fn behind_a_failed_message_of_a_key_nothing_is_settled() {
    let by_group: fn(Message, &str) -> Message = |message, name| message.group(name);
    let by_key: fn(Message, &str) -> Message = |message, name| message.key(name);
    for (subscription, of) in [(fifo(), by_group), (fifo_less(), by_key)] {
        let broker = Broker::new().batches_are_units(1);
        let handler = FailOnce::new(&["a1", "b0", "b2"]);
        publish_two(&broker, 4, of).await;
        let router = Router::new()
            .subscribe_batch(subscription, BatchSettings::new(20), FailOnce::handle)
            .with_state(handler.clone());
        let server = server(&broker, router);
        let counters = server.counters();
        let started = Started::start(server).await;
        done(&broker).await;
        started.stop(secs(5)).await.unwrap();
        let seen = handler.seen();
        let mut first = seen[0].clone();
        first.sort();
        assert_eq!(
            first,
            [
                "a0/1", "a1/1", "a2/1", "a3/1", "b0/1", "b1/1", "b2/1", "b3/1"
            ],
            "several messages of a key in one batch"
        );
        for group in ["a", "b"] {
            assert_order(&handler, group, 4);
        }
        let stats = counters.stats();
        assert_eq!((stats.handled, stats.failed, stats.refused), (8, 3, 0));
        // a2 a3, then b1 b3 (b2 had failed itself), then b3.
        assert_eq!(stats.repeated, 5, "{seen:?}");
    }
}

/// Order by key in this process.
fn fifo_less() -> Subscription {
    Subscription::new("t", "g")
        .order(Order::ByKey)
        .concurrency(1)
        .ordered_policy(Policy::ordered().backoff(Backoff::fixed(secs(2))))
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_on_behind_a_dead_letter_in_the_same_batch() {
    async fn judge(State(seen): State<Batches>, batch: Batch<Json<u8>>) -> BatchOutcome<Refused> {
        seen.add(batch.iter().map(|item| item.body.0.to_string()).collect());
        let mut outcome = BatchOutcome::new();
        for (index, item) in batch.iter().enumerate() {
            if item.body.0 == 3 {
                outcome.fail(index, Refused(Disposition::Poison));
            }
        }
        outcome.rest_ok()
    }
    let (broker, seen) = (Broker::new().batches_are_units(1), Batches::default());
    for body in ["1", "x", "2", "3", "4"] {
        publish(&broker, Message::new("t", body).group("a")).await;
    }
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(20), judge)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [["1", "2", "3", "4"]]);
    let dead: Vec<_> = broker.dead_letters("g").iter().map(text).collect();
    assert_eq!(dead, ["x", "3"]);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_parks_only_itself_and_the_last_attempt_is_made_alone() {
    async fn refuse(
        State(seen): State<Log<(Duration, Vec<String>)>>,
        Extension(begin): Extension<Instant>,
        batch: Batch<Delivery>,
    ) -> Result<(), AnyError> {
        let bodies = bodies(&batch);
        seen.add((begin.elapsed(), bodies.clone()));
        if bodies.iter().any(|body| body == "a0") {
            return Err(AnyError::msg("on purpose"));
        }
        Ok(())
    }
    let broker = Broker::new().batches_are_units(1);
    let seen = Log::default();
    publish_two(&broker, 2, |m, group| m.group(group)).await;
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(20), refuse)
        .with_state(seen.clone());
    let server = server(&broker, router).extension(Instant::now());
    let started = Started::start(server).await;
    done(&broker).await;
    let dead: Vec<_> = broker.dead_letters("g").iter().map(text).collect();
    assert_eq!(dead, ["a0"], "{:?}", seen.all());
    let last = seen.all();
    let alone = last.iter().filter(|(_, batch)| *batch == ["a0"]).count();
    assert_eq!(alone, 1, "{last:?}");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fills_does_not_delay_a_retry() {
    let broker = Broker::new();
    let handler = FailOnce::new(&["a0"]);
    publish_two(&broker, 1, |m, key| m.key(key)).await;
    let settings = BatchSettings::new(2).linger(secs(50));
    let router = Router::new()
        .subscribe_batch(fifo_less(), settings, FailOnce::handle)
        .with_state(handler.clone());
    let started = Started::start(server(&broker, router)).await;
    until("it has failed", || handler.seen.len() == 1).await;
    // A batch of one begins to fill; the retry, 2 s after the failure, is the other.
    let begin = Instant::now();
    publish(&broker, Message::new("t", "c0").key("c")).await;
    until("it is tried again", || handler.seen.len() >= 2).await;
    assert!(begin.elapsed() < secs(5), "after {:?}", begin.elapsed());
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_retries_keeps_the_order() {
    async fn never_first(State(seen): State<Batches>, batch: Batch<Delivery>) -> BatchOutcome {
        seen.add(bodies(&batch));
        let results = batch.iter().map(|item| match &*text(&item.body) {
            "a1" => Err(AnyError::msg("on purpose")),
            _ => Ok(()),
        });
        results.collect()
    }
    let (broker, seen) = (Broker::new().batches_are_units(1), Batches::default());
    publish_two(&broker, 4, |m, group| m.group(group)).await;
    let subscription = fifo().ordered_policy(Policy::ordered().backoff(Backoff::fixed(secs(100))));
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(20), never_first)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    until("it waits", || seen.len() == 1).await;
    sleep(secs(1)).await;
    // b1, b2, b3 have overtaken a1: it is waited for, in vain.
    let error = started.stop(secs(10)).await.unwrap_err();
    assert!(!error.abandoned_ids().is_empty());
    let handler = FailOnce::new(&[]);
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(20), FailOnce::handle)
        .with_state(handler.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    let again = handler.seen().concat();
    let of_a: Vec<_> = again.iter().filter(|body| body.starts_with('a')).collect();
    let of_a: Vec<_> = of_a.iter().map(|body| &body[..2]).collect();
    assert_eq!(of_a, ["a1", "a2", "a3"]);
    started.stop(secs(5)).await.unwrap();
}
