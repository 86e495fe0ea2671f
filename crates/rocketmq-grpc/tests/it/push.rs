//! Push consumers of orderly groups.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rocketmq_grpc::{MessageView, PushConsumer};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    fake::{Fake, consumer_config, eventually},
    fifo::{message, orderly},
};

/// What handlers did: `>id` at the start, `<id` at the end.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, entry: String) {
        self.0.lock().unwrap().push(entry);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn position(&self, entry: &str) -> usize {
        let all = self.all();
        let found = all.iter().position(|it| it == entry);
        found.unwrap_or_else(|| panic!("{entry} in {all:?}"))
    }

    fn count(&self, entry: &str) -> usize {
        self.all().iter().filter(|it| *it == entry).count()
    }
}

async fn start<F>(
    fake: &Fake,
    concurrency: usize,
    handler: impl Fn(MessageView) -> F + Clone + Send + Sync + 'static,
) -> (PushConsumer, Log)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let log = Log::default();
    let handled = log.clone();
    let handler = move |message: MessageView| {
        let (log, id) = (handled.clone(), message.id.clone());
        let handling = handler(message);
        async move {
            log.add(format!(">{id}"));
            let result = handling.await;
            log.add(format!("<{id}"));
            result
        }
    };
    let config = consumer_config();
    let consumer = PushConsumer::start(&fake.client(), config, concurrency, handler).await;
    let consumer = consumer.unwrap();
    orderly(fake, consumer.consumer()).await;
    (consumer, log)
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn acked(fake: &Fake) -> Vec<String> {
    let state = fake.state();
    let mut acked: Vec<_> = state.seen.acks.iter().flatten().collect();
    acked.sort_by_key(|it| it.message_id.clone());
    acked.iter().map(|it| it.message_id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn message_groups_of_a_batch_run_at_the_same_time_and_each_in_its_order() {
    let fake = Fake::start();
    let (consumer, log) = start(&fake, 8, async |_| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    })
    .await;
    let batch = [(0, "a"), (1, "b"), (2, "a"), (3, "b")];
    let start = Instant::now();
    fake.push(batch.map(|(n, group)| message(0, n, group)).into());
    eventually("all are acknowledged", || acked(&fake).len() == 4).await;
    assert!(
        start.elapsed() < Duration::from_millis(2500),
        "{:?}",
        start.elapsed()
    );
    assert!(
        log.position(">0/1") < log.position("<0/0"),
        "at the same time"
    );
    assert!(log.position("<0/0") < log.position(">0/2"), "in order");
    assert!(log.position("<0/1") < log.position(">0/3"), "in order");
    consumer.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn handlers_of_an_orderly_group_are_bounded() {
    let fake = Fake::start();
    let (consumer, log) = start(&fake, 2, async |_| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    })
    .await;
    let start = Instant::now();
    let groups = ["a", "b", "c", "d"];
    fake.push(
        (0..)
            .zip(groups)
            .map(|(n, group)| message(0, n, group))
            .collect(),
    );
    eventually("all are acknowledged", || acked(&fake).len() == 4).await;
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", log.all());
    consumer.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_here_with_the_leases_of_the_batch_extended_and_then_dead_lettered()
 {
    let fake = Fake::start();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = attempts.clone();
    let (consumer, log) = start(&fake, 8, move |message: MessageView| {
        let fails = message.id == "0/0";
        if fails {
            seen.lock().unwrap().push((message.attempt, Instant::now()));
        }
        async move {
            if fails {
                tokio::time::sleep(Duration::from_secs(4)).await;
                return Err("no".to_owned());
            }
            Ok(())
        }
    })
    .await;
    fake.push(vec![
        message(0, 0, "a"),
        message(0, 1, "a"),
        message(0, 2, "b"),
    ]);
    eventually("the rest is acknowledged", || {
        acked(&fake) == ["0/1", "0/2"]
    })
    .await;
    let attempts = attempts.lock().unwrap().clone();
    assert_eq!(
        attempts.iter().map(|it| it.0).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    // 1 s and 5 s are the server's delays.
    let gaps = [attempts[1].1 - attempts[0].1, attempts[2].1 - attempts[1].1];
    assert!(
        gaps[0] >= Duration::from_secs(5) && gaps[1] >= Duration::from_secs(9),
        "{gaps:?}"
    );
    assert_eq!(log.count(">0/2"), 1);
    assert!(log.position(">0/1") > log.position(">0/0"));
    {
        let state = fake.state();
        assert_eq!(state.seen.dead, ["0/0"]);
        let extended = |id| {
            state
                .seen
                .changes
                .iter()
                .filter(|it| it.message_id == id)
                .count()
        };
        assert!(
            extended("0/0") >= 3 && extended("0/1") >= 3,
            "{:?}",
            state.seen.changes
        );
        assert_eq!(extended("0/2"), 0, "what is acknowledged is covered");
    }
    consumer.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_drops_the_handlers_of_the_batch() {
    let fake = Fake::start();
    let (consumer, log) = start(&fake, 8, async |_| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(())
    })
    .await;
    fake.state().changes = (0..1000)
        .map(|_| Err(Status::unavailable("away")))
        .collect();
    fake.push(vec![message(0, 0, "a"), message(0, 1, "b")]);
    eventually("both began", || log.all().len() == 2).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(log.all().len(), 2, "none ended: {:?}", log.all());
    assert!(acked(&fake).is_empty());
    fake.state().changes.clear();
    consumer.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_the_batch_and_tries_nothing_again() {
    let fake = Fake::start();
    let (consumer, log) = start(&fake, 8, |message: MessageView| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match message.id.as_str() {
            "0/1" => Err("no".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let batch = [(0, "a"), (1, "b"), (2, "c"), (3, "b")];
    fake.push(batch.map(|(n, group)| message(0, n, group)).into());
    eventually("three began", || log.all().len() == 3).await;
    let abandoned = consumer.stop(in_seconds(10)).await.unwrap_err();
    // Done behind the one that failed: it comes again.
    assert_eq!(abandoned.message_ids(), ["0/2"]);
    assert_eq!(acked(&fake), ["0/0", "0/2"]);
    assert_eq!(log.count(">0/3"), 0, "its group waits for the failed one");
    let state = fake.state();
    let back = state.seen.changes.iter().filter(|it| {
        let delay = it.invisible_duration.as_ref().unwrap();
        delay.seconds == 0 && delay.nanos == 0
    });
    let mut back: Vec<_> = back.map(|it| it.message_id.as_str()).collect();
    back.sort_unstable();
    assert_eq!(back, ["0/1", "0/3"]);
    assert_eq!(state.seen.calls.last(), Some(&"termination"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_hands_back_what_hangs_and_says_so() {
    let fake = Fake::start();
    let (consumer, log) = start(&fake, 8, |message: MessageView| async move {
        if message.id == "0/1" {
            std::future::pending::<()>().await;
        }
        Ok(())
    })
    .await;
    let batch = [(0, "a"), (1, "b"), (2, "c")];
    fake.push(batch.map(|(n, group)| message(0, n, group)).into());
    eventually("two are acknowledged", || acked(&fake).len() == 2).await;
    let start = Instant::now();
    let abandoned = consumer.stop(in_seconds(3)).await.unwrap_err();
    assert!(
        start.elapsed() <= Duration::from_millis(3100),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(abandoned.message_ids(), ["0/2"], "{abandoned}");
    assert_eq!(log.count("<0/1"), 0);
    assert_eq!(fake.state().seen.changes.last().unwrap().message_id, "0/1");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_before_its_first_await_is_a_failure_and_frees_its_place() {
    let fake = Fake::start();
    let handler = |message: MessageView| {
        assert!(message.id == "4", "at once");
        std::future::ready(Ok::<_, String>(()))
    };
    let client = fake.client();
    let consumer = PushConsumer::start(&client, consumer_config(), 2, handler);
    let consumer = consumer.await.unwrap();
    for id in ["1", "2", "3", "4"] {
        fake.push(vec![crate::fake::message(id)]);
    }
    eventually("those that failed are tried again", || {
        fake.calls("change") == 3
    })
    .await;
    eventually("the last is handled", || fake.calls("ack") == 1).await;
    let stopped = consumer.stop(Instant::now() + Duration::from_secs(5)).await;
    assert!(stopped.is_ok(), "{stopped:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_hands_back_does_not_come_again_to_the_same_consumer() {
    let fake = Fake::start();
    let (consumer, log) = start(&fake, 8, |_| async { Err("no".to_owned()) }).await;
    fake.push(vec![message(0, 0, "a")]);
    eventually("it failed", || log.count("<0/0") == 1).await;
    let server = fake.clone();
    let again = tokio::spawn(async move {
        eventually("it is handed back", || server.calls("change") > 0).await;
        server.push(vec![message(0, 0, "a")]);
    });
    consumer.stop(in_seconds(5)).await.unwrap();
    again.await.unwrap();
    assert_eq!(log.count(">0/0"), 1, "{:?}", log.all());
}
