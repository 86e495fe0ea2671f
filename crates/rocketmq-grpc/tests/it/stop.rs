use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rocketmq_grpc::{PushConsumer, Settlement};
use rocketmq_proto::v2::Code;
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, Item, TOPIC, consumer_config, eventually, message, messages};

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn an_idle_poll_is_cancelled_at_once() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let waiting = consumer.receive(TOPIC, 32);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .is_err()
    );
    let start = Instant::now();
    consumer.stop_receiving().await;
    assert!(consumer.receive(TOPIC, 32).await.unwrap().is_empty());
    consumer.close(in_seconds(5)).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    eventually("the poll is cancelled", || fake.state().seen.cancelled == 1).await;
    assert_eq!(fake.state().seen.calls.last(), Some(&"termination"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_ends_with_the_stop() {
    let fake = Fake::start();
    let consumer = Arc::new(fake.consumer().await);
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.receive(TOPIC, 32).await }
    });
    eventually("a poll", || fake.calls("receive") == 1).await;
    consumer.stop_receiving().await;
    let received = tokio::time::timeout(Duration::from_secs(1), waiting)
        .await
        .unwrap();
    assert!(received.unwrap().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_has_begun_is_read_to_its_end() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let pause = Item::Pause(Duration::from_millis(300));
    fake.push(vec![
        Item::Status(Code::Ok),
        message("1"),
        pause.clone(),
        message("2"),
        pause,
        message("3"),
    ]);
    assert_eq!(consumer.receive(TOPIC, 32).await.unwrap().len(), 1);
    consumer.stop_receiving().await;
    let mut rest = Vec::new();
    loop {
        let leases = consumer.receive(TOPIC, 1).await.unwrap();
        if leases.is_empty() {
            break;
        }
        rest.extend(leases.into_iter().map(|it| it.message().id.clone()));
    }
    assert_eq!(rest, ["2", "3"]);
    assert_eq!(fake.state().seen.cancelled, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_hangs_does_not_hold_the_stop() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(vec![message("1"), Item::Hang]);
    assert_eq!(consumer.receive(TOPIC, 32).await.unwrap().len(), 1);
    let start = Instant::now();
    consumer.stop_receiving().await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn close_hands_back_what_nobody_took_then_settles_then_says_good_bye() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let waiting = consumer.receive(TOPIC, 4);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .is_err()
    );
    fake.push(messages(0..4));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    fake.state().delay = Duration::from_millis(50);
    consumer.settle(lease, Settlement::Ack);
    consumer.close(in_seconds(5)).await.unwrap();
    let calls = fake.state().seen.calls.clone();
    let position = |call| calls.iter().position(|it| *it == call);
    assert!(position("ack") < position("termination"), "{calls:?}");
    assert_eq!(calls.last(), Some(&"termination"));
    assert_eq!(fake.state().seen.changes.len(), 3, "those that nobody took");
    assert!(consumer.settled().await[0].result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn close_ends_at_its_deadline_and_names_what_was_not_confirmed() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(messages(0..2));
    let leases = consumer.receive(TOPIC, 2).await.unwrap();
    let count = leases.len();
    fake.state().delay = Duration::from_secs(3600);
    leases
        .into_iter()
        .for_each(|lease| consumer.settle(lease, Settlement::Ack));
    let start = Instant::now();
    let error = consumer.close(in_seconds(3)).await.unwrap_err();
    assert!(
        error.to_string().contains(&format!("{count} settlements")),
        "{error}"
    );
    assert!(
        start.elapsed() <= Duration::from_millis(3100),
        "{:?}",
        start.elapsed()
    );
    let reports = consumer.settled().await;
    assert_eq!(reports.len(), count);
    assert!(reports.iter().all(|it| it.result.is_err()));
}

#[tokio::test(start_paused = true)]
async fn close_with_a_dead_connection_ends_at_its_deadline() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(messages(0..1));
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    fake.link.freeze();
    consumer.settle(lease, Settlement::Ack);
    let start = Instant::now();
    consumer.close(in_seconds(3)).await.unwrap_err();
    assert!(
        start.elapsed() <= Duration::from_millis(3100),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_push_consumer_acknowledges_success_and_retries_failures_and_panics() {
    let fake = Fake::start();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let consumer = PushConsumer::start(&fake.client(), consumer_config(), 4, move |message| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            match message.id.as_str() {
                "1" => Err("no"),
                "2" => panic!("a handler panics"),
                _ => Ok(()),
            }
        }
    })
    .await
    .unwrap();
    fake.push(messages(0..4));
    eventually("all are handled", || handled.load(Ordering::SeqCst) == 4).await;
    consumer.stop(in_seconds(5)).await.unwrap();
    let state = fake.state();
    let mut acked: Vec<_> = state
        .seen
        .acks
        .iter()
        .flatten()
        .map(|it| it.message_id.as_str())
        .collect();
    acked.sort_unstable();
    assert_eq!(acked, ["0", "3"]);
    let mut failed: Vec<_> = state
        .seen
        .changes
        .iter()
        .map(|it| it.message_id.as_str())
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_push_consumer_extends_the_lease_of_a_slow_handler_and_drops_one_that_lost_it() {
    let fake = Fake::start();
    let finished = Arc::new(AtomicUsize::new(0));
    let count = finished.clone();
    let consumer = PushConsumer::start(&fake.client(), consumer_config(), 1, move |_| {
        let count = count.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(50)).await;
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, String>(())
        }
    })
    .await
    .unwrap();
    fake.push(messages(0..1));
    eventually("it is acknowledged", || fake.calls("ack") == 1).await;
    assert_eq!(finished.load(Ordering::SeqCst), 1);
    assert!(
        fake.state().seen.changes.len() >= 8,
        "{}",
        fake.state().seen.changes.len()
    );

    let refused = || Err(Status::unavailable("away"));
    fake.state().changes = (0..1000).map(|_| refused()).collect();
    fake.push(messages(1..2));
    eventually("the second is received", || {
        fake.state().seen.changes.len() > 12
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((finished.load(Ordering::SeqCst), fake.calls("ack")), (1, 1));
    consumer.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn under_flow_the_answer_on_its_way_is_waited_for() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(messages(0..1));
    assert_eq!(consumer.receive(TOPIC, 32).await.unwrap().len(), 1);
    let waiting = consumer.receive(TOPIC, 32);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), waiting)
            .await
            .is_err()
    );
    let start = Instant::now();
    let stopping = consumer.stop_receiving();
    let answering = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        fake.push(messages(1..3));
    };
    tokio::join!(stopping, answering);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(consumer.receive(TOPIC, 32).await.unwrap().len(), 2);
    assert_eq!(fake.state().seen.cancelled, 0);
}

#[tokio::test(start_paused = true)]
async fn under_flow_a_poll_that_brings_nothing_more_does_not_hold_the_stop() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(messages(0..1));
    consumer.receive(TOPIC, 32).await.unwrap();
    let waiting = consumer.receive(TOPIC, 32);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), waiting)
            .await
            .is_err()
    );
    let start = Instant::now();
    consumer.stop_receiving().await;
    let took = start.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    eventually("the poll is cancelled", || fake.state().seen.cancelled == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_push_consumer_stops_by_its_deadline_whatever_hangs() {
    for seconds in [1, 3] {
        let fake = Fake::start();
        let consumer = PushConsumer::start(&fake.client(), consumer_config(), 4, async |_| {
            std::future::pending::<Result<(), String>>().await
        })
        .await
        .unwrap();
        fake.push(vec![message("1"), Item::Hang]);
        eventually("the receive", || fake.calls("receive") == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let start = Instant::now();
        let _ = consumer.stop(in_seconds(seconds)).await;
        let (took, by) = (start.elapsed(), Duration::from_secs(seconds));
        assert!(
            took <= by + Duration::from_millis(100),
            "{took:?} of {by:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_was_given_up_can_be_repeated() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(messages(0..1));
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    fake.state().delay = Duration::from_millis(500);
    consumer.settle(lease, Settlement::Ack);
    let closing = consumer.close(in_seconds(5));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), closing)
            .await
            .is_err()
    );
    consumer.close(in_seconds(5)).await.unwrap();
    assert_eq!(fake.calls("termination"), 1);
    assert!(consumer.settled().await[0].result.is_ok());
    assert!(consumer.settled().await.is_empty());
    consumer.close(in_seconds(5)).await.unwrap();
    assert_eq!(fake.calls("termination"), 1);
}
