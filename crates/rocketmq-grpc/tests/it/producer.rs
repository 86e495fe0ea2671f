use std::time::Duration;

use rocketmq_grpc::{Message, Producer, ProducerConfig};
use rocketmq_proto::v2::{self as pb, Code};
use tokio::{task::JoinSet, time::Instant};
use tonic::Status;

use crate::fake::{Fake, TOPIC, status};

async fn producer(fake: &Fake) -> Producer {
    fake.client()
        .producer(ProducerConfig::new().topic(TOPIC))
        .await
        .unwrap()
}

fn answer(code: Code) -> Result<pb::SendMessageResponse, Status> {
    Ok(pb::SendMessageResponse {
        status: status(code),
        entries: vec![],
    })
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_under_the_same_id() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    fake.state().sends = [
        answer(Code::InternalServerError),
        answer(Code::TooManyRequests),
    ]
    .into();
    let message = Message::new(TOPIC, "x")
        .tag("t")
        .key("k")
        .property("p", "v");
    let receipt = producer.send(message.clone()).await.unwrap();
    assert_eq!(receipt.message_id, message.id());
    let state = fake.state();
    let sent: Vec<_> = state
        .seen
        .sends
        .iter()
        .map(|it| it.system_properties.clone().unwrap())
        .collect();
    assert_eq!(sent.len(), 3);
    assert!(
        sent.iter()
            .all(|it| it.message_id == message.id() && it.tag.as_deref() == Some("t"))
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_told_at_once() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    for code in [
        Code::MessagePropertyConflictWithType,
        Code::Forbidden,
        Code::MessageBodyTooLarge,
    ] {
        fake.state().sends = [answer(code)].into();
        let before = fake.calls("send");
        let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
        assert_eq!(error.code(), Some(code.into()));
        assert_eq!(error.endpoint(), Some("fake:1"));
        assert!(
            error.request_id().is_some() && !error.may_be_stored(),
            "{error:?}"
        );
        assert_eq!(fake.calls("send") - before, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_of_the_entry_decides() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    let entry = pb::SendResultEntry {
        status: status(Code::IllegalMessageKey),
        ..Default::default()
    };
    let answer = pb::SendMessageResponse {
        status: status(Code::Ok),
        entries: vec![entry],
    };
    fake.state().sends = [Ok(answer)].into();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::IllegalMessageKey.into()));
    fake.state().sends = [Ok(pb::SendMessageResponse::default())].into();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(
        error.may_be_stored(),
        "an answer without any status proves nothing: {error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_send_without_an_answer_ends_in_bounded_time_and_may_be_stored() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    fake.state().delay = Duration::from_secs(3600);
    let start = Instant::now();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(
        error.is_timeout() && error.may_be_stored() && error.is_retryable(),
        "{error:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(fake.calls("send"), 3);
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_attempt_is_remembered_when_a_later_one_is_refused() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    fake.state().sends = [answer(Code::ProxyTimeout), answer(Code::Forbidden)].into();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Forbidden.into()));
    assert!(error.may_be_stored());
}

#[tokio::test(start_paused = true)]
async fn messages_in_flight_are_bounded() {
    let fake = Fake::start();
    let config = ProducerConfig::new().topic(TOPIC).in_flight_max(4);
    let producer = fake.client().producer(config).await.unwrap();
    fake.state().delay = Duration::from_millis(10);
    let mut sends = JoinSet::new();
    for n in 0..64 {
        let producer = producer.clone();
        sends.spawn(async move { producer.send(Message::new(TOPIC, n.to_string())).await });
    }
    while let Some(sent) = sends.join_next().await {
        sent.unwrap().unwrap();
    }
    assert_eq!(fake.calls("send"), 64);
    assert_eq!(fake.state().seen.sending_max, 4);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_topic_is_not_asked_for_again_by_every_message() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    let before = fake.calls("route");
    for _ in 0..50 {
        let error = producer
            .send(Message::new("missing", "x"))
            .await
            .unwrap_err();
        assert!(
            error.is_unknown_topic() && error.to_string().contains("create missing:"),
            "{error}"
        );
    }
    assert_eq!(fake.calls("route") - before, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    producer
        .send(Message::new("missing", "x"))
        .await
        .unwrap_err();
    assert_eq!(fake.calls("route") - before, 2);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_messages_in_flight_and_closes_every_clone() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    fake.state().delay = Duration::from_millis(200);
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(Message::new(TOPIC, "x")).await }
    });
    crate::fake::eventually("it is sent", || fake.calls("send") == 1).await;
    producer
        .close(Instant::now() + Duration::from_secs(5))
        .await;
    sending.await.unwrap().unwrap();
    assert!(
        producer
            .clone()
            .send(Message::new(TOPIC, "x"))
            .await
            .unwrap_err()
            .is_closed()
    );
    assert_eq!(fake.state().seen.calls.last(), Some(&"termination"));
}

#[tokio::test(start_paused = true)]
async fn close_ends_the_sends_that_are_not_answered_and_tries_none_again() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    fake.state().delay = Duration::from_secs(3600);
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(Message::new(TOPIC, "x")).await }
    });
    crate::fake::eventually("it is sent", || fake.calls("send") == 1).await;
    let start = Instant::now();
    producer.close(start + Duration::from_millis(500)).await;
    let error = sending.await.unwrap().unwrap_err();
    assert!(error.is_closed() && error.may_be_stored(), "{error:?}");
    assert!(
        start.elapsed() < Duration::from_millis(800),
        "{:?}",
        start.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.calls("send"), 1);
}
