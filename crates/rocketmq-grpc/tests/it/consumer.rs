use std::time::Duration;

use rocketmq_grpc::{Consumer, Lease};
use rocketmq_proto::v2::{self as pb, Code};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, Item, TOPIC, consumer_config, eventually, message, messages};

fn ids(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|it| it.message().id.as_str()).collect()
}

async fn receive_all(consumer: &Consumer, count: usize) -> Vec<Lease> {
    let mut leases = Vec::new();
    while leases.len() < count {
        leases.extend(consumer.receive(TOPIC, count - leases.len()).await.unwrap());
    }
    leases
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handed_over_while_the_answer_goes_on() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(vec![
        Item::Status(Code::Ok),
        message("1"),
        Item::Pause(Duration::from_secs(2)),
        message("2"),
    ]);
    let start = Instant::now();
    assert_eq!(ids(&consumer.receive(TOPIC, 2).await.unwrap()), ["1"]);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(ids(&consumer.receive(TOPIC, 1).await.unwrap()), ["2"]);
    assert_eq!(fake.state().seen.receives[0].batch_size, 2);
}

#[tokio::test(start_paused = true)]
async fn the_status_may_come_first_or_last_or_not_at_all() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(vec![Item::Status(Code::Ok), message("1")]);
    fake.push(vec![message("2"), Item::Status(Code::Ok)]);
    fake.push(vec![message("3")]);
    let leases = receive_all(&consumer, 3).await;
    assert_eq!(ids(&leases), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_found_is_no_error_and_is_asked_again_at_once() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(vec![Item::Status(Code::MessageNotFound)]);
    fake.push(vec![message("1")]);
    let start = Instant::now();
    assert_eq!(ids(&consumer.receive(TOPIC, 1).await.unwrap()), ["1"]);
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn messages_before_an_error_are_kept_and_the_attempt_is_repeated_under_its_id() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(vec![message("1"), Item::Break(Status::internal("broken"))]);
    fake.push(vec![message("2"), Item::Status(Code::InternalServerError)]);
    fake.push(vec![message("3"), Item::Status(Code::Ok)]);
    let leases = receive_all(&consumer, 3).await;
    assert_eq!(ids(&leases), ["1", "2", "3"]);
    let _ = tokio::time::timeout(Duration::from_secs(1), consumer.receive(TOPIC, 1)).await;
    let state = fake.state();
    let attempts: Vec<_> = state
        .seen
        .receives
        .iter()
        .map(|it| it.attempt_id.clone().unwrap())
        .collect();
    assert!(
        attempts[0] == attempts[1] && attempts[1] == attempts[2],
        "{attempts:?}"
    );
    assert_ne!(
        attempts[2], attempts[3],
        "an answer that arrived is not asked for again"
    );
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_slows_the_receives_down() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    for _ in 0..10_000 {
        fake.push(vec![Item::Status(Code::TooManyRequests)]);
    }
    let waiting = consumer.receive(TOPIC, 32);
    assert!(
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .is_err()
    );
    let receives = fake.calls("receive");
    assert!(
        (40..200).contains(&receives),
        "{receives} receives in a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn errors_that_pass_are_not_the_callers_and_are_not_repeated_in_a_hot_loop() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    for _ in 0..1000 {
        fake.push(vec![Item::Status(Code::InternalServerError)]);
    }
    let waiting = consumer.receive(TOPIC, 32);
    assert!(
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .is_err()
    );
    let receives = fake.calls("receive");
    assert!(
        (40..130).contains(&receives),
        "{receives} receives in a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_that_does_not_pass_is_the_callers() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.push(vec![Item::Status(Code::IllegalFilterExpression)]);
    fake.push(vec![message("1")]);
    let error = consumer.receive(TOPIC, 1).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::IllegalFilterExpression.into()));
    assert_eq!(ids(&consumer.receive(TOPIC, 1).await.unwrap()), ["1"]);
    assert!(consumer.receive("other", 1).await.unwrap_err().is_invalid());
    assert!(consumer.receive(TOPIC, 0).await.unwrap_err().is_invalid());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_message_goes_back_and_is_never_shown() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let Item::Message(mut damaged) = message("bad") else {
        unreachable!()
    };
    damaged.system_properties.as_mut().unwrap().body_digest = Some(pb::Digest {
        r#type: pb::DigestType::Md5.into(),
        checksum: "00".to_owned(),
    });
    let Item::Message(mut squeezed) = message("worse") else {
        unreachable!()
    };
    squeezed.system_properties.as_mut().unwrap().body_encoding = pb::Encoding::Gzip.into();
    fake.push(vec![
        Item::Message(damaged),
        Item::Message(squeezed),
        message("good"),
    ]);
    assert_eq!(ids(&consumer.receive(TOPIC, 3).await.unwrap()), ["good"]);
    eventually("both are back", || fake.state().seen.changes.len() == 2).await;
    let changes = fake.state().seen.changes.clone();
    let mut back: Vec<_> = changes.iter().map(|it| it.message_id.as_str()).collect();
    back.sort_unstable();
    assert_eq!(back, ["bad", "worse"]);
    let delay = changes[0].invisible_duration.as_ref().unwrap().seconds;
    assert_eq!(delay, 1, "the first step of the default policy");
    assert_eq!(consumer.stats().corrupted, 2);
    assert!(
        tokio::time::timeout(Duration::from_millis(1), consumer.settled())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_loses_nothing() {
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
    assert_eq!(receive_all(&consumer, 4).await.len(), 4);
    assert_eq!(
        fake.calls("receive"),
        1,
        "nothing is asked for while nobody waits"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waited_longer_than_its_lease_is_not_handed_over() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let waiting = consumer.receive(TOPIC, 2);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .is_err()
    );
    fake.push(messages(0..1));
    tokio::time::sleep(Duration::from_secs(11)).await;
    fake.push(messages(1..2));
    assert_eq!(ids(&consumer.receive(TOPIC, 2).await.unwrap()), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_and_what_is_returned_never_exceed_the_room() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    for batch in 0..20 {
        fake.push(messages(batch * 32..batch * 32 + 32));
    }
    let mut held = 0;
    while held < 100 {
        let leases = consumer.receive(TOPIC, 100 - held).await.unwrap();
        held += leases.len();
        assert!(held <= 100, "{held}");
    }
    // Nothing more is on its way: all that was asked for is held.
    let state = fake.state();
    let asked: i32 = state.seen.receives.iter().map(|it| it.batch_size).sum();
    assert!(state.seen.receives.iter().all(|it| it.batch_size <= 32));
    assert_eq!(asked, 100);
}

#[tokio::test(start_paused = true)]
async fn an_idle_consumer_keeps_one_long_poll_and_a_busy_one_several() {
    let fake = Fake::start();
    let consumer = fake
        .client()
        .consumer(consumer_config().receives_max(4))
        .await
        .unwrap();
    let waiting = consumer.receive(TOPIC, 128);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .is_err()
    );
    assert_eq!(fake.calls("receive"), 1);
    fake.push(messages(0..32));
    let mut held = receive_all(&consumer, 32).await.len();
    let room = 512;
    let waiting = async {
        loop {
            held += consumer.receive(TOPIC, room - held).await.unwrap().len();
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .is_err()
    );
    assert_eq!(fake.calls("receive"), 1 + 4);
    let request = fake.state().seen.receives[0].clone();
    assert!(!request.auto_renew);
    assert_eq!(request.invisible_duration.unwrap().seconds, 10);
    assert_eq!(request.message_queue.unwrap().id, -1);
}

#[tokio::test(start_paused = true)]
async fn a_tag_of_the_same_hash_is_acknowledged_and_not_handed_over() {
    let fake = Fake::start();
    let config = rocketmq_grpc::ConsumerConfig::new(crate::fake::GROUP)
        .subscribe(TOPIC, rocketmq_grpc::Filter::tags(" AaAa || other "));
    let consumer = fake.client().consumer(config).await.unwrap();
    let tagged = |id: &str, tag: &str| {
        let Item::Message(mut it) = message(id) else {
            unreachable!()
        };
        it.system_properties.as_mut().unwrap().tag = Some(tag.to_owned());
        Item::Message(it)
    };
    fake.push(vec![tagged("1", "BBBB"), tagged("2", "AaAa"), message("3")]);
    assert_eq!(ids(&consumer.receive(TOPIC, 4).await.unwrap()), ["2"]);
    eventually("the others are acknowledged", || {
        fake.state().seen.acks.iter().flatten().count() == 2
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_little_room_hears_of_every_broker() {
    let fake = Fake::start();
    fake.state().brokers = vec!["a", "b", "c"];
    let consumer = fake.consumer().await;
    let quiet = consumer.receive(TOPIC, 1);
    let _ = tokio::time::timeout(Duration::from_secs(60), quiet).await;
    let state = fake.state();
    let receives = state.seen.receives.iter();
    let queues = receives.filter_map(|it| it.message_queue.clone()?.broker);
    let polled: std::collections::BTreeSet<_> = queues.map(|it| it.name).collect();
    assert_eq!(polled.len(), 3, "{polled:?}");
}
