//! Batches, leases and stops.

use kratos_broker::{
    Batch, BatchSettings, Cancelled, Delivery, Message, Router, State, memory::Broker,
    testing::Started,
};
use tokio::time::sleep;

use super::{Batches, bodies, done, fifo, one, sizes};
use crate::{
    failures::OnDrop,
    support::{Log, publish, publish_numbers, secs, server, subscription, text, until},
};

#[tokio::test(start_paused = true)]
async fn a_lost_lease_cancels_the_batch_and_the_others_run_again_unspent() {
    #[derive(Clone, Default)]
    struct Seen {
        batches: Log<Vec<(String, u32)>>,
        dropped: Log<bool>,
    }
    async fn hang_once(
        State(seen): State<Seen>,
        Cancelled(token): Cancelled,
        batch: Batch<Delivery>,
    ) {
        let all = batch.iter().map(|item| &item.delivery);
        let all = all.map(|delivery| (text(delivery), delivery.attempt()));
        seen.batches.add(all.collect());
        if seen.batches.len() == 1 {
            let _guard = OnDrop(seen.dropped, token);
            std::future::pending::<()>().await;
        }
    }
    let (broker, seen) = (Broker::new(), Seen::default());
    let mut ids = Vec::new();
    for body in ["a", "b", "c"] {
        ids.push(publish(&broker, Message::new("t", body)).await);
    }
    let router = Router::new()
        .subscribe_batch(one(), BatchSettings::new(10), hang_once)
        .with_state(seen.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("it runs", || seen.batches.len() == 1).await;
    assert!(broker.lose_lease("g", &ids[1]));
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
    assert_eq!(seen.dropped.all(), [true], "the token fired first");
    let mut again: Vec<_> = seen.batches.all()[1..].concat();
    again.sort();
    let expected = [("a", 1), ("b", 2), ("c", 1)].map(|(body, n)| (body.to_owned(), n));
    assert_eq!(again, expected);
    let stats = counters.stats();
    assert_eq!((stats.leases_lost, stats.handled, stats.failed), (1, 3, 0));
    assert_eq!(
        (stats.confirmed, stats.refused),
        (3, 0),
        "one settlement each"
    );
}

#[tokio::test(start_paused = true)]
async fn messages_keep_their_leases_while_a_batch_fills_and_runs() {
    async fn long(State(seen): State<Log<Vec<u32>>>, batch: Batch<Delivery>) {
        sleep(secs(50)).await;
        seen.add(batch.iter().map(|item| item.delivery.attempt()).collect());
    }
    let (broker, seen) = (Broker::new(), Log::default());
    publish_numbers(&broker, 3).await;
    let settings = BatchSettings::new(10).linger(secs(45));
    let router = Router::new()
        .subscribe_batch(one().invisible_duration(secs(10)), settings, long)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(seen.all(), [[1, 1, 1]], "once each");
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_of_a_unit_ends_all_behind_it_and_what_is_in_front_runs_again() {
    async fn hang_once(State(seen): State<Batches>, batch: Batch<Delivery>) {
        seen.add(bodies(&batch));
        if seen.len() == 1 {
            std::future::pending::<()>().await;
        }
    }
    let (broker, seen) = (Broker::new().batches_are_units(1), Batches::default());
    let mut ids = Vec::new();
    for body in ["a0", "b0", "a1", "b1", "a2", "b2"] {
        let message = Message::new("t", body).group(&body[..1]);
        ids.push(publish(&broker, message).await);
    }
    let router = Router::new()
        .subscribe_batch(fifo(), BatchSettings::new(10), hang_once)
        .with_state(seen.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("it runs", || seen.len() == 1).await;
    assert!(broker.lose_lease("g", &ids[2]));
    done(&broker).await;
    started.stop(secs(5)).await.unwrap();
    let again: Vec<_> = seen.all()[1..].concat();
    for group in ["a", "b"] {
        let of: Vec<_> = again
            .iter()
            .filter(|body| body.starts_with(group))
            .collect();
        let wanted: Vec<_> = (0..3).map(|n| format!("{group}{n}")).collect();
        assert_eq!(of, wanted.iter().collect::<Vec<_>>(), "{again:?}");
    }
    let mut first = seen.all()[1].clone();
    first.sort();
    assert_eq!(first, ["a0", "b0"], "what is not lost runs again at once");
    let stats = counters.stats();
    assert_eq!((stats.handled, stats.failed, stats.refused), (6, 0, 0));
}

async fn slowly(State(seen): State<Batches>, batch: Batch<Delivery>) {
    sleep(secs(2)).await;
    seen.add(bodies(&batch));
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_the_batches_that_run_and_hands_back_the_rest() {
    let (broker, seen) = (Broker::new(), Batches::default());
    publish_numbers(&broker, 30).await;
    let router = Router::new()
        .subscribe_batch(subscription().concurrency(2), BatchSettings::new(5), slowly)
        .with_state(seen.clone());
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("they are held", || broker.held("t", "g") == 30).await;
    started.stop(secs(20)).await.unwrap();
    assert_eq!(sizes(&seen), [5, 5]);
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (20, 0));
    let stats = counters.stats();
    assert_eq!(
        (stats.handled, stats.handed_back, stats.failed),
        (10, 20, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_cut_off_by_the_stop_has_not_failed_and_is_reported() {
    async fn hang(_: Batch<Delivery>) {
        std::future::pending().await
    }
    let broker = Broker::new();
    publish_numbers(&broker, 5).await;
    let router = Router::new().subscribe_batch(one(), BatchSettings::new(5), hang);
    let server = server(&broker, router);
    let counters = server.counters();
    let started = Started::start(server).await;
    until("they are held", || broker.held("t", "g") == 5).await;
    let error = started.stop(secs(10)).await.unwrap_err();
    assert_eq!(error.abandoned_ids().len(), 5);
    assert_eq!(counters.stats().failed, 0);
    assert_eq!((broker.backlog("t", "g"), broker.held("t", "g")), (5, 0));
}
