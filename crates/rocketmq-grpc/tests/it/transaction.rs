use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rocketmq_grpc::{Message, Producer, ProducerConfig, Resolution};
use rocketmq_proto::v2::{self as pb, Code, settings::PubSub};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, TOPIC, eventually, producing::end};

/// Counts its calls.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn fake() -> Fake {
    let fake = Fake::start();
    let mut state = fake.state();
    state.producing.accepts = vec![pb::MessageType::Transaction];
    state.backoff_ms = Some(10);
    drop(state);
    fake
}

/// Whose checker always says the same.
async fn producer(fake: &Fake, resolution: Resolution) -> (Producer, Calls) {
    let calls = Calls::default();
    let config = ProducerConfig::new().topic(TOPIC).transaction_checker({
        let calls = calls.clone();
        move |message| {
            assert_eq!((&*message.topic, &message.body[..]), (TOPIC, &b"half"[..]));
            calls.0.fetch_add(1, Ordering::SeqCst);
            async move { resolution }
        }
    });
    (fake.client().producer(config).await.unwrap(), calls)
}

fn resolutions(fake: &Fake) -> Vec<pb::TransactionResolution> {
    let state = fake.state();
    let ends = state.producing.seen_ends.iter();
    ends.map(pb::EndTransactionRequest::resolution).collect()
}

/// Long enough for whatever is under way in memory.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_ended_at_the_endpoints_that_took_its_half() {
    let fake = fake();
    fake.state().brokers = vec!["a", "b"];
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    for (resolution, told) in [
        (Resolution::Commit, pb::TransactionResolution::Commit),
        (Resolution::Rollback, pb::TransactionResolution::Rollback),
    ] {
        let message = Message::new(TOPIC, "x").key("order-7");
        let id = message.id().to_owned();
        let sent = producer.transaction(message, async || resolution).await;
        let receipt = sent.unwrap();
        assert!(receipt.unconfirmed.is_none() && receipt.resolution == resolution);
        assert_eq!(receipt.message.message_id, id);
        let mut state = fake.state();
        let half = state.seen.sends.pop().unwrap().system_properties.unwrap();
        assert_eq!(half.message_type(), pb::MessageType::Transaction);
        let ended = state.producing.seen_ends.pop().unwrap();
        assert_eq!(ended.resolution(), told);
        assert_eq!(ended.source(), pb::TransactionSource::SourceClient);
        assert_eq!(
            (&ended.message_id, ended.transaction_id),
            (&id, format!("t-{id}"))
        );
        assert_eq!(ended.topic.unwrap().name, TOPIC);
        let hosts = std::mem::take(&mut state.producing.hosts);
        let [("send", half_at), ("end", end_at)] = &hosts[..] else {
            panic!("{hosts:?}");
        };
        assert_eq!(half_at, end_at);
        assert_eq!(
            receipt.message.endpoints.to_string(),
            format!("{half_at}:1")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_or_dropped_is_told_to_nobody() {
    let fake = fake();
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    let unknown = async || Resolution::Unknown;
    let receipt = producer
        .transaction(Message::new(TOPIC, "x"), unknown)
        .await;
    let receipt = receipt.unwrap();
    assert!(receipt.unconfirmed.is_none() && receipt.resolution == Resolution::Unknown);
    drop(producer.begin(Message::new(TOPIC, "x")).await.unwrap());
    moment().await;
    assert_eq!(fake.state().seen.sends.len(), 2);
    assert_eq!(resolutions(&fake), []);
}

#[tokio::test(start_paused = true)]
async fn the_topic_is_in_the_settings_before_the_first_half_is_sent() {
    let fake = fake();
    let config = ProducerConfig::new().transaction_checker(async |_| Resolution::Unknown);
    let producer = fake.client().producer(config).await.unwrap();
    let transaction = producer.begin(Message::new(TOPIC, "x")).await.unwrap();
    let named = |settings: &pb::Settings| match &settings.pub_sub {
        Some(PubSub::Publishing(it)) => it.topics.iter().any(|it| it.name == TOPIC),
        _ => false,
    };
    {
        let state = fake.state();
        assert!(
            state.seen.settings.iter().any(named),
            "{:?}",
            state.seen.settings
        );
        let at = |call| state.seen.calls.iter().position(|it| *it == call);
        assert!(at("telemetry") < at("send"));
    }
    transaction.rollback().await.unwrap();
    assert_eq!(resolutions(&fake), [pb::TransactionResolution::Rollback]);
}

#[tokio::test(start_paused = true)]
async fn without_a_checker_and_of_other_types_nothing_is_sent() {
    let fake = fake();
    let config = ProducerConfig::new().topic(TOPIC);
    let unchecked = fake.client().producer(config).await.unwrap();
    let error = unchecked.begin(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().contains("transaction_checker"),
        "{error}"
    );
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    let message = Message::new(TOPIC, "x").group("g");
    let local = async || panic!("runs although nothing was sent");
    let error = producer.transaction(message, local).await.unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().contains("FIFO"),
        "{error}"
    );
    assert_eq!(fake.calls("send"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_local_transaction_does_not_run_when_the_half_was_not_stored() {
    let fake = fake();
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    fake.state().sends = [Err(Status::permission_denied("no"))].into();
    let local = async || panic!("runs although nothing is stored");
    let sent = producer.transaction(Message::new(TOPIC, "x"), local).await;
    assert_eq!(sent.unwrap_err().code(), Some(Code::Forbidden.into()));
    assert_eq!(fake.calls("end"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_server_refuses_is_reported_and_left_to_the_checker() {
    let fake = fake();
    let (producer, calls) = producer(&fake, Resolution::Commit).await;
    fake.state().producing.ends = [end(Code::InternalServerError)].into();
    let commit = async || Resolution::Commit;
    let receipt = producer.transaction(Message::new(TOPIC, "x"), commit).await;
    let receipt = receipt.unwrap();
    let error = receipt.unconfirmed.unwrap();
    assert_eq!(error.code(), Some(Code::InternalServerError.into()));
    assert_eq!(
        fake.calls("end"),
        1,
        "the proxy knows nothing of it any more"
    );

    let id = &receipt.message.message_id;
    fake.ask_about(id, &format!("t-{id}"));
    eventually("the answer to the check", || fake.calls("end") == 2).await;
    assert_eq!(calls.count(), 1);

    let transaction = producer.begin(Message::new(TOPIC, "x")).await.unwrap();
    fake.state().producing.ends = [end(Code::InvalidTransactionId)].into();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidTransactionId.into()));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_lost_on_its_way_is_told_again() {
    let fake = fake();
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    let transaction = producer.begin(Message::new(TOPIC, "x")).await.unwrap();
    let lost = || Err(Status::unavailable("lost"));
    fake.state().producing.ends = [lost(), lost()].into();
    transaction.commit().await.unwrap();
    assert_eq!(fake.calls("end"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_comes_twice_is_answered_once_and_a_later_one_again() {
    let fake = fake();
    let (_producer, calls) = producer(&fake, Resolution::Commit).await;
    fake.ask_about("m1", "t1");
    tokio::time::sleep(Duration::from_millis(20)).await;
    fake.ask_about("m1", "t1");
    fake.ask_about("m2", "t2");
    eventually("both answers", || fake.calls("end") == 2).await;
    moment().await;
    assert_eq!((calls.count(), fake.calls("end")), (2, 2));
    {
        let state = fake.state();
        let ended = &state.producing.seen_ends[0];
        assert_eq!((&*ended.message_id, &*ended.transaction_id), ("m1", "t1"));
        assert_eq!(ended.source(), pb::TransactionSource::SourceServerCheck);
        assert_eq!(ended.topic.as_ref().unwrap().name, TOPIC);
    }
    // The answer was lost on its way to the broker.
    tokio::time::sleep(Duration::from_secs(30)).await;
    fake.ask_about("m1", "t1");
    eventually("the answer", || fake.calls("end") == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_check_that_finds_nothing_out_is_no_answer_and_is_made_again() {
    let fake = fake();
    let (_producer, calls) = producer(&fake, Resolution::Unknown).await;
    for n in 1..=3 {
        fake.ask_about("m1", "t1");
        fake.ask_about("m1", "t1");
        eventually("the check", || calls.count() == n).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(calls.count(), n);
    }
    assert_eq!(fake.calls("end"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_checker_that_panics_or_hangs_answers_nothing_and_harms_no_other() {
    let fake = fake();
    let config = ProducerConfig::new().topic(TOPIC).transaction_checker(
        async |message: rocketmq_grpc::MessageView| match &*message.id {
            "panics" => panic!("a bug of the user's"),
            "hangs" => std::future::pending().await,
            _ => Resolution::Rollback,
        },
    );
    let _producer = fake.client().producer(config).await.unwrap();
    for n in 0..40 {
        fake.ask_about("panics", &format!("p{n}"));
    }
    for n in 0..16 {
        fake.ask_about("hangs", &format!("h{n}"));
    }
    fake.ask_about("fine", "f");
    let start = Instant::now();
    eventually("the answer", || fake.calls("end") == 1).await;
    assert!(
        start.elapsed() < Duration::from_secs(40),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(fake.state().producing.seen_ends[0].message_id, "fine");
}

#[tokio::test(start_paused = true)]
async fn checks_that_run_at_once_are_bounded() {
    let fake = fake();
    let (running, most, done) = (Calls::default(), Calls::default(), Calls::default());
    let config = ProducerConfig::new().topic(TOPIC).transaction_checker({
        let (running, most, done) = (running.clone(), most.clone(), done.clone());
        move |_| {
            let (running, most, done) = (running.clone(), most.clone(), done.clone());
            async move {
                let now = running.0.fetch_add(1, Ordering::SeqCst) + 1;
                most.0.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                running.0.fetch_sub(1, Ordering::SeqCst);
                done.0.fetch_add(1, Ordering::SeqCst);
                Resolution::Unknown
            }
        }
    });
    let _producer = fake.client().producer(config).await.unwrap();
    for n in 0..100 {
        fake.ask_about("m", &format!("t{n}"));
    }
    eventually("all checks", || done.count() == 100).await;
    assert_eq!(most.count(), 16);
}

#[tokio::test(start_paused = true)]
async fn the_checker_is_not_asked_while_the_local_transaction_runs() {
    let fake = fake();
    let (producer, calls) = producer(&fake, Resolution::Rollback).await;
    let transaction = producer.begin(Message::new(TOPIC, "x")).await.unwrap();
    let id = transaction.receipt().message_id.clone();
    let ask = || fake.ask_about(&id, &format!("t-{id}"));
    ask();
    moment().await;
    transaction.commit().await.unwrap();
    // Asked before the commit arrived.
    ask();
    moment().await;
    assert_eq!(calls.count(), 0);
    assert_eq!(resolutions(&fake), [pb::TransactionResolution::Commit]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    ask();
    eventually("the check of a commit that was lost", || calls.count() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_local_transaction_and_its_end() {
    let fake = fake();
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    let running = tokio::spawn({
        let producer = producer.clone();
        async move {
            let local = async || {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Resolution::Commit
            };
            producer.transaction(Message::new(TOPIC, "x"), local).await
        }
    });
    eventually("the half is sent", || fake.calls("send") == 1).await;
    let start = Instant::now();
    producer.close(start + Duration::from_secs(10)).await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(running.await.unwrap().unwrap().unconfirmed.is_none());
    let calls = fake.state().seen.calls.clone();
    assert!(calls.ends_with(&["end", "termination"]), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_outlives_the_close_is_left_to_the_checker() {
    let fake = fake();
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    let transaction = producer.begin(Message::new(TOPIC, "x")).await.unwrap();
    let start = Instant::now();
    producer.close(start + Duration::from_secs(1)).await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(transaction.commit().await.unwrap_err().is_closed());
    assert_eq!(resolutions(&fake), []);
}

#[tokio::test(start_paused = true)]
async fn a_local_transaction_may_send_with_the_same_producer() {
    let fake = fake();
    fake.state().producing.accepts = vec![];
    fake.push_publishing(4 << 20, false);
    let config = ProducerConfig::new().topic(TOPIC).in_flight_max(1);
    let config = config.transaction_checker(async |_| Resolution::Unknown);
    let producer = fake.client().producer(config).await.unwrap();
    fake.push_publishing(4 << 20, false);
    eventually("no types are checked", || {
        !producer.settings().validate_message_type
    })
    .await;
    let local = async || match producer.send(Message::new(TOPIC, "also")).await {
        Ok(_) => Resolution::Commit,
        Err(_) => Resolution::Unknown,
    };
    let both = producer.transaction(Message::new(TOPIC, "x"), local);
    let both = tokio::time::timeout(Duration::from_secs(60), both).await;
    let receipt = both.expect("the send waits for its own transaction");
    assert_eq!(receipt.unwrap().resolution, Resolution::Commit);
}

#[tokio::test(start_paused = true)]
async fn a_local_transaction_that_a_close_waits_for_may_still_send() {
    let fake = fake();
    let (producer, _) = producer(&fake, Resolution::Unknown).await;
    fake.push_publishing(4 << 20, false);
    eventually("no types are checked", || {
        !producer.settings().validate_message_type
    })
    .await;
    let running = tokio::spawn({
        let producer = producer.clone();
        async move {
            let local = async || {
                tokio::time::sleep(Duration::from_secs(1)).await;
                match producer.send(Message::new(TOPIC, "also")).await {
                    Ok(_) => Resolution::Commit,
                    Err(_) => Resolution::Unknown,
                }
            };
            producer.transaction(Message::new(TOPIC, "x"), local).await
        }
    });
    eventually("the half is sent", || fake.calls("send") == 1).await;
    let start = Instant::now();
    producer.close(start + Duration::from_secs(10)).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let receipt = running.await.unwrap().unwrap();
    assert_eq!(receipt.resolution, Resolution::Commit);
    assert!(receipt.unconfirmed.is_none());
}

#[tokio::test(start_paused = true)]
async fn open_transactions_are_bounded() {
    let fake = fake();
    let config = ProducerConfig::new().topic(TOPIC).in_flight_max(2);
    let config = config.transaction_checker(async |_| Resolution::Unknown);
    let producer = fake.client().producer(config).await.unwrap();
    let first = producer.begin(Message::new(TOPIC, "1")).await.unwrap();
    let _second = producer.begin(Message::new(TOPIC, "2")).await.unwrap();
    let third = producer.begin(Message::new(TOPIC, "3"));
    let third = tokio::time::timeout(Duration::from_secs(60), third).await;
    assert!(third.is_err(), "there is no room for it");
    assert_eq!(fake.calls("send"), 2);
    drop(first);
    let _third = producer.begin(Message::new(TOPIC, "3")).await.unwrap();
}
