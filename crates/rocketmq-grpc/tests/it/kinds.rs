//! Types of messages, batches, and what the server may change at run time.

use std::time::{Duration, SystemTime};

use rocketmq_grpc::{Message, Producer, ProducerConfig};
use rocketmq_proto::v2::{self as pb, Code, MessageType};
use tokio::time::Instant;
use tonic::Status;

use crate::fake::{Fake, TOPIC, eventually, route, status};

async fn producer(fake: &Fake, kind: MessageType) -> Producer {
    fake.state().producing.accepts = vec![kind];
    fake.state().backoff_ms.get_or_insert(10);
    let config = ProducerConfig::new().topic(TOPIC);
    fake.client().producer(config).await.unwrap()
}

fn send_hosts(fake: &Fake) -> Vec<String> {
    let hosts = std::mem::take(&mut fake.state().producing.hosts);
    hosts.into_iter().map(|(_, host)| host).collect()
}

fn refusal(code: Code) -> Result<pb::SendMessageResponse, Status> {
    Ok(pb::SendMessageResponse {
        status: status(code),
        entries: vec![],
    })
}

fn last_sent(fake: &Fake) -> pb::SystemProperties {
    let sent = fake.state().seen.sends.last().cloned();
    sent.unwrap().system_properties.unwrap()
}

fn batch(count: usize) -> Vec<Message> {
    (0..count)
        .map(|n| Message::new(TOPIC, n.to_string()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_group_go_to_one_queue_and_are_tried_again_only_there() {
    let fake = Fake::start();
    fake.state().brokers = vec!["a", "b", "c"];
    let producer = producer(&fake, MessageType::Fifo).await;
    for (group, host) in [("order-1", "a"), ("a", "b"), ("fifoGroup001", "c")] {
        fake.state().sends = [
            refusal(Code::InternalServerError),
            Err(Status::unavailable("restart")),
        ]
        .into();
        producer
            .send(Message::new(TOPIC, "x").group(group))
            .await
            .unwrap();
        assert_eq!(send_hosts(&fake), [host; 3]);
        let sent = last_sent(&fake);
        assert_eq!(sent.message_type(), MessageType::Fifo);
        assert_eq!(sent.message_group.as_deref(), Some(group));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_spread_over_the_brokers_in_turn_and_tried_again_on_another() {
    let fake = Fake::start();
    fake.state().brokers = vec!["a", "b", "c"];
    let producer = producer(&fake, MessageType::Normal).await;
    for message in batch(6) {
        producer.send(message).await.unwrap();
    }
    let hosts = send_hosts(&fake);
    for three in hosts.windows(3) {
        let mut three = three.to_vec();
        three.sort();
        assert_eq!(three, ["a", "b", "c"], "{hosts:?}");
    }
    fake.state().sends = [refusal(Code::ProxyTimeout), refusal(Code::HaNotAvailable)].into();
    producer.send(Message::new(TOPIC, "x")).await.unwrap();
    let mut hosts = send_hosts(&fake);
    hosts.sort();
    assert_eq!(hosts, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn replicas_and_queues_that_take_nothing_are_not_sent_to() {
    let fake = Fake::start();
    let mut scripted = route(Code::Ok, &["read-only", "replica", "good", "gone"]).unwrap();
    let queues = &mut scripted.message_queues;
    queues[0].permission = pb::Permission::Read.into();
    queues[1].broker.as_mut().unwrap().id = 1;
    queues[3].permission = pb::Permission::None.into();
    fake.state().routes = [Ok(scripted)].into();
    let producer = producer(&fake, MessageType::Normal).await;
    fake.state().sends = [refusal(Code::InternalServerError)].into();
    for message in batch(4) {
        producer.send(message).await.unwrap();
    }
    assert_eq!(send_hosts(&fake), ["good"; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_type_that_the_topic_does_not_take_is_not_sent_unless_the_server_says_so() {
    let fake = Fake::start();
    let producer = producer(&fake, MessageType::Normal).await;
    let soon = || Message::new(TOPIC, "x").delay(Duration::from_secs(9));
    let error = producer.send(soon()).await.unwrap_err();
    assert!(
        error.is_wrong_topic_type() && !error.may_be_stored(),
        "{error:?}"
    );
    assert!(error.to_string().contains("DELAY"), "{error}");
    assert_eq!(fake.calls("send"), 0);
    fake.push_publishing(4 << 20, false);
    eventually("the settings", || {
        !producer.settings().validate_message_type
    })
    .await;
    producer.send(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_and_delays_that_the_server_changes_hold_from_then_on() {
    let fake = Fake::start();
    let producer = producer(&fake, MessageType::Normal).await;
    producer
        .send(Message::new(TOPIC, vec![0; 1001]))
        .await
        .unwrap();
    fake.state().backoff_ms = Some(700);
    fake.push_publishing(1000, true);
    eventually("the settings", || producer.settings().max_body_size == 1000).await;
    let error = producer
        .send(Message::new(TOPIC, vec![0; 1001]))
        .await
        .unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().contains("takes 1000"),
        "{error}"
    );
    fake.state().sends = [Err(Status::resource_exhausted("flow limit"))].into();
    let start = Instant::now();
    producer
        .send(Message::new(TOPIC, vec![0; 1000]))
        .await
        .unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(700),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_throttled_message_waits_even_if_there_is_another_broker() {
    for throttled in [
        refusal(Code::TooManyRequests),
        Err(Status::resource_exhausted("flow limit")),
    ] {
        let fake = Fake::start();
        fake.state().brokers = vec!["a", "b"];
        fake.state().backoff_ms = Some(500);
        let producer = producer(&fake, MessageType::Normal).await;
        fake.state().sends = [throttled].into();
        let start = Instant::now();
        producer.send(Message::new(TOPIC, "x")).await.unwrap();
        assert!(
            start.elapsed() >= Duration::from_millis(500),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_has_its_time_and_can_be_recalled_at_the_access_point() {
    let fake = Fake::start();
    fake.state().brokers = vec!["a", "b"];
    let producer = producer(&fake, MessageType::Delay).await;
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(4_000_000_000_250);
    let message = Message::new(TOPIC, "x").deliver_at(time);
    let receipt = producer.send(message).await.unwrap();
    let sent = last_sent(&fake);
    assert_eq!(sent.message_type(), MessageType::Delay);
    let told = sent.delivery_timestamp.unwrap();
    assert_eq!((told.seconds, told.nanos), (4_000_000_000, 250_000_000));

    let handle = receipt.recall_handle.unwrap();
    let id = producer.recall(TOPIC, &handle).await.unwrap();
    assert_eq!(id, receipt.message_id);
    assert_eq!(fake.state().producing.seen_recalls[0].recall_handle, handle);
    assert_eq!(
        fake.state().producing.hosts.pop().unwrap(),
        ("recall", "fake".to_owned())
    );

    fake.state().producing.recalls = [Ok(pb::RecallMessageResponse {
        status: status(Code::InternalServerError),
        message_id: String::new(),
    })]
    .into();
    let error = producer.recall(TOPIC, &handle).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::InternalServerError.into()));
    assert!(producer.recall(TOPIC, "").await.unwrap_err().is_invalid());
    assert_eq!(fake.calls("recall"), 2);
}

#[tokio::test(start_paused = true)]
async fn priority_and_lite_topic_are_sent_as_such() {
    let fake = Fake::start();
    let priority = producer(&fake, MessageType::Priority).await;
    let receipt = priority
        .send(Message::new(TOPIC, "x").priority(3))
        .await
        .unwrap();
    assert_eq!(receipt.recall_handle, None);
    let sent = last_sent(&fake);
    assert_eq!(
        (sent.message_type(), sent.priority),
        (MessageType::Priority, Some(3))
    );
    let lite = producer(&fake, MessageType::Lite).await;
    lite.send(Message::new(TOPIC, "x").lite_topic("s-7"))
        .await
        .unwrap();
    let sent = last_sent(&fake);
    assert_eq!(sent.message_type(), MessageType::Lite);
    assert_eq!(sent.lite_topic.as_deref(), Some("s-7"));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_request_and_one_entry_answers_for_all() {
    let fake = Fake::start();
    let producer = producer(&fake, MessageType::Normal).await;
    assert_eq!(producer.send_batch(vec![]).await.unwrap(), []);
    let messages = batch(3);
    let receipts = producer.send_batch(messages.clone()).await.unwrap();
    assert_eq!(fake.state().producing.seen_sizes, [3]);
    let ids: Vec<_> = messages.iter().map(Message::id).collect();
    let received: Vec<_> = receipts.iter().map(|it| &*it.message_id).collect();
    assert_eq!(received, ids);
    let offsets: Vec<_> = receipts.iter().map(|it| it.offset).collect();
    assert_eq!(offsets, [7, 8, 9], "the entry has the place of the first");
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_messages_are_answered_one_by_one_is_read_so() {
    let fake = Fake::start();
    let producer = producer(&fake, MessageType::Normal).await;
    let entry = |code, offset| pb::SendResultEntry {
        status: status(code),
        offset,
        ..Default::default()
    };
    let answer = |entries| {
        Ok(pb::SendMessageResponse {
            status: status(Code::Ok),
            entries,
        })
    };
    let fine = vec![entry(Code::Ok, 4), entry(Code::Ok, 9), entry(Code::Ok, 2)];
    fake.state().sends = [answer(fine)].into();
    let receipts = producer.send_batch(batch(3)).await.unwrap();
    let offsets: Vec<_> = receipts.iter().map(|it| it.offset).collect();
    assert_eq!(offsets, [4, 9, 2]);

    let partly = vec![entry(Code::Ok, 4), entry(Code::IllegalMessageKey, 0)];
    fake.state().sends = [answer(partly)].into();
    let error = producer.send_batch(batch(2)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::IllegalMessageKey.into()));
    assert!(error.may_be_stored(), "one of them is: {error:?}");

    fake.state().sends = [answer(vec![entry(Code::Ok, 0), entry(Code::Ok, 1)])].into();
    let error = producer.send_batch(batch(3)).await.unwrap_err();
    assert!(
        error.may_be_stored() && error.to_string().contains("2 entries for 3"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_of_one_topic_of_plain_messages_and_not_larger_than_one_message_may_be() {
    let fake = Fake::start();
    let producer = producer(&fake, MessageType::Normal).await;
    let large = || Message::new(TOPIC, vec![0; 3 << 20]);
    let cases = [
        (Message::new("other", "x"), "one topic"),
        (Message::new(TOPIC, "x").group("g"), "FIFO"),
        (Message::new(TOPIC, "x").delay(Duration::ZERO), "DELAY"),
        (Message::new(TOPIC, ""), "empty body"),
        (large(), "bytes together"),
    ];
    for (message, why) in cases {
        let error = producer
            .send_batch(vec![large(), message])
            .await
            .unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains(why),
            "{error}"
        );
    }
    assert_eq!(fake.calls("send"), 0);
}

#[tokio::test(start_paused = true)]
async fn bodies_are_compressed_where_asked_for_but_not_in_batches() {
    let fake = Fake::start();
    let config = ProducerConfig::new().topic(TOPIC).compress_above(100);
    let producer = fake.client().producer(config).await.unwrap();
    fake.push_publishing(1000, true);
    eventually("the settings", || producer.settings().max_body_size == 1000).await;
    let large = || Message::new(TOPIC, vec![b'x'; 2000]);
    producer.send(large()).await.unwrap();
    assert_eq!(last_sent(&fake).body_encoding(), pb::Encoding::Gzip);
    assert!(fake.state().seen.sends[0].body.len() < 100);
    producer
        .send(Message::new(TOPIC, vec![b'x'; 100]))
        .await
        .unwrap();
    assert_eq!(last_sent(&fake).body_encoding(), pb::Encoding::Identity);
    let error = producer.send_batch(vec![large()]).await.unwrap_err();
    assert!(error.is_invalid(), "{error:?}");
    producer
        .send_batch(vec![Message::new(TOPIC, vec![b'x'; 500])])
        .await
        .unwrap();
    assert_eq!(last_sent(&fake).body_encoding(), pb::Encoding::Identity);
    assert!(last_sent(&fake).body_digest.is_some());
}
