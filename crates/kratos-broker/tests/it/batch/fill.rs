//! What is in a batch, and when it starts.

use kratos_broker::{
    AnyError, Batch, BatchSettings, Bytes, Deadline, Deliveries, Delivery, Extension, Message,
    RateLimit, Router, State, memory::Broker, testing::Started,
};
use tokio::time::{Instant, sleep};
use tower::{timeout::TimeoutLayer, util::MapRequestLayer};

use super::{Batches, done, note, one, sizes};
use crate::support::{Log, millis, publish, publish_numbers, secs, server, subscription, until};

#[tokio::test(start_paused = true)]
async fn a_batch_takes_what_is_there_up_to_its_limits() {
    let (broker, seen) = (Broker::new(), Batches::default());
    for body in [
        "a",
        "b",
        "c",
        "d",
        "e",
        "long one",
        "f",
        "longer than all",
        "g",
    ] {
        publish(&broker, Message::new("t", body)).await;
    }
    let settings = BatchSettings::new(4).max_bytes(9);
    let router = Router::new()
        .subscribe_batch(one(), settings, note)
        .with_state(seen.clone());
    let begin = Instant::now();
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert!(begin.elapsed() < secs(1), "waits for nothing");
    let expected = [
        vec!["a", "b", "c", "d"],
        vec!["e", "long one"],
        vec!["f"],
        vec!["longer than all"],
        vec!["g"],
    ];
    assert_eq!(seen.all(), expected);
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_lanes_fill_one_batch_together_for_as_long_as_it_lingers() {
    let (broker, seen) = (Broker::new(), Batches::default());
    let settings = BatchSettings::new(12).linger(secs(1));
    let router = Router::new()
        .subscribe_batch(subscription().concurrency(8), settings, note)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    for _ in 0..20 {
        publish_numbers(&broker, 1).await;
        sleep(millis(20)).await;
    }
    done(&broker).await;
    assert_eq!(
        sizes(&seen),
        [12, 8],
        "full at once, the rest after its time"
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait_of_a_batch() {
    let (broker, seen) = (Broker::new(), Batches::default());
    let settings = BatchSettings::new(100).linger(secs(50));
    let router = Router::new()
        .subscribe_batch(one(), settings, note)
        .with_state(seen.clone());
    let started = Started::start(server(&broker, router)).await;
    publish_numbers(&broker, 3).await;
    until("they are held", || broker.held("t", "g") == 3).await;
    let begin = Instant::now();
    started.stop(secs(20)).await.unwrap();
    assert!(begin.elapsed() < secs(3), "after {:?}", begin.elapsed());
    assert_eq!((sizes(&seen), broker.held("t", "g")), (vec![3], 0));
}

#[tokio::test(start_paused = true)]
async fn arguments_and_layers_belong_to_the_whole_batch() {
    async fn slow(
        State(log): State<Log<(bool, u8, usize)>>,
        Deadline(deadline): Deadline,
        Extension(number): Extension<u8>,
        batch: Batch<Bytes>,
    ) -> Result<(), AnyError> {
        let in_time = deadline - Instant::now() == secs(30);
        log.add((in_time, number, batch.len()));
        let once = batch.iter().all(|item| item.delivery.attempt() == 1);
        if once {
            sleep(secs(20)).await;
        }
        Ok(())
    }
    let (broker, log) = (Broker::new(), Log::default());
    let number = MapRequestLayer::new(|mut batch: Deliveries| {
        let count = u8::try_from(batch.len()).unwrap();
        batch.insert_extension(count);
        batch
    });
    let router = Router::new()
        .layer(TimeoutLayer::new(secs(10)))
        .layer(number)
        .subscribe_batch(one().handler_timeout(secs(30)), BatchSettings::new(8), slow)
        .with_state(log.clone());
    publish_numbers(&broker, 3).await;
    let router = Router::new().merge(router);
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(
        log.all(),
        [(true, 3, 3); 2],
        "tower's time limit failed all"
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_counts_batches() {
    let (broker, seen) = (Broker::new(), Batches::default());
    publish_numbers(&broker, 40).await;
    let limit = RateLimit::per_second(1).burst(1);
    let subscription = subscription().rate_limit(limit);
    let router = Router::new()
        .subscribe_batch(subscription, BatchSettings::new(10), note)
        .with_state(seen.clone());
    let begin = Instant::now();
    let started = Started::start(server(&broker, router)).await;
    done(&broker).await;
    assert_eq!(sizes(&seen), [10; 4]);
    assert!(
        (3..=4).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
    started.stop(secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_starts_no_batch_that_is_being_filled() {
    let broker = Broker::new();
    let sizes = Log::default();
    let handler = {
        let sizes = sizes.clone();
        move |batch: Batch<Delivery>| {
            let sizes = sizes.clone();
            async move { sizes.add(batch.len()) }
        }
    };
    let settings = BatchSettings::new(100).linger(secs(30));
    let server = server(
        &broker,
        Router::new().subscribe_batch(subscription(), settings, handler),
    );
    let controls = server.controls();
    let started = Started::start(server).await;
    publish_numbers(&broker, 3).await;
    sleep(secs(1)).await;
    assert!(controls.pause("t", "g"));
    sleep(secs(60)).await;
    assert_eq!(sizes.all(), Vec::<usize>::new(), "it is paused");
    controls.resume("t", "g");
    until("they are handled", || broker.backlog("t", "g") == 0).await;
    started.stop(secs(5)).await.unwrap();
}
