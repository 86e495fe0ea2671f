//! Receiving.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker, GroupConfig, TopicType};
use rocketmq_proto::v2::{self, settings::PubSub};
use tokio::time::Instant;

use crate::{
    client::{Client, attempt, code, handle, id, message, resource, system, wire},
    eventually,
};

pub(crate) async fn pair(broker: &DevBroker) -> (Client, Client) {
    let mut producer = Client::embedded(broker, "p").await;
    producer.produce("t").await;
    let mut consumer = Client::embedded(broker, "c").await;
    consumer.consume("t", "g").await.unwrap();
    (producer, consumer)
}

#[tokio::test(start_paused = true)]
async fn delivers_what_was_sent_with_everything_on_it() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    let received = consumer.receive("t", "g").await;
    assert_eq!(received.order, "smt");
    assert_eq!(received.code, i32::from(Code::Ok));
    let message = &received.messages[0];
    assert_eq!(message.topic.as_ref().unwrap().name, "t");
    assert_eq!(message.user_properties["colour"], "red");
    assert_eq!(&message.body[..], b"hello");
    let system = message.system_properties.clone().unwrap();
    assert_eq!(system.message_id, "ID-1");
    assert_eq!(
        system.body_digest.unwrap().checksum,
        "5D41402ABC4B2A76B9719D911017C592"
    );
    assert_eq!(system.born_host, "testhost");
    assert_eq!(system.born_timestamp.unwrap().seconds, 1_700_000_000);
    assert_eq!(system.delivery_attempt, Some(1));
    assert_eq!(system.queue_offset, Some(0));
    assert!(system.store_timestamp.unwrap().seconds > 1_700_000_000);
    assert!(system.dead_letter_queue.is_none());
    let acked = consumer.ack("t", "g", &[handle(message)]).await;
    assert_eq!(code(acked.status.as_ref()), Code::Ok);
    assert_eq!(broker.in_flight("g"), []);
    assert_eq!(broker.lag("t", "g"), 0);
}

#[tokio::test]
async fn delivers_over_a_socket() {
    let broker = DevBroker::builder()
        .listen(([127, 0, 0, 1], 0))
        .start()
        .await
        .unwrap();
    let mut producer = Client::dial(&broker, "p").await;
    producer.produce("t").await;
    let mut consumer = Client::dial(&broker, "c").await;
    consumer.consume("t", "g").await.unwrap();
    let waiting = consumer.receive("t", "g");
    let (received, ()) = tokio::join!(waiting, producer.put("t", "ID-1"));
    assert_eq!(id(&received.messages[0]), "ID-1");
    let endpoints = producer.route("t").await.message_queues[0]
        .broker
        .clone()
        .unwrap()
        .endpoints;
    let address = endpoints.unwrap().addresses[0].clone();
    assert_eq!(address.host, "127.0.0.1");
    assert_eq!(address.port, i32::from(broker.addr().unwrap().port()));
    broker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_receive_gets_a_message_the_moment_it_is_sent() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    let begin = Instant::now();
    let send = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        producer.put("t", "ID-1").await;
    };
    let (received, ()) = tokio::join!(consumer.receive("t", "g"), send);
    assert_eq!(id(&received.messages[0]), "ID-1");
    assert!(
        begin.elapsed() < Duration::from_millis(2100),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_receive_ends_with_message_not_found_after_the_shortest_poll() {
    let broker = DevBroker::start().await;
    let (_producer, consumer) = pair(&broker).await;
    let begin = Instant::now();
    let mut ask = Client::ask("t", "g");
    ask.long_polling_timeout = wire(Duration::from_secs(1));
    let received = consumer.receive_as(ask).await;
    assert_eq!(received.code, i32::from(Code::MessageNotFound));
    assert_eq!(received.order, "st");
    let took = begin.elapsed();
    assert!(
        took > Duration::from_millis(4800) && took <= Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_lease_wakes_a_waiting_receive_with_the_next_attempt() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    let first = consumer.receive("t", "g").await;
    let begin = Instant::now();
    tokio::time::advance(Duration::from_secs(15)).await;
    let mut ask = Client::ask("t", "g");
    ask.long_polling_timeout = wire(Duration::from_secs(20));
    let again = consumer.receive_as(ask).await;
    assert_eq!(attempt(&again.messages[0]), 2);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(29_900), "{took:?}");
    assert!(took < Duration::from_millis(30_100), "{took:?}");
    let late = consumer.ack("t", "g", &[handle(&first.messages[0])]).await;
    assert_eq!(code(late.status.as_ref()), Code::InvalidReceiptHandle);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_poll_takes_no_message_with_it() {
    let broker = DevBroker::start().await;
    let (producer, a) = pair(&broker).await;
    let mut b = Client::embedded(&broker, "b").await;
    b.consume("t", "g").await.unwrap();
    let poll = a.try_receive(Client::ask("t", "g"), Duration::from_secs(25));
    tokio::time::timeout(Duration::from_secs(1), poll)
        .await
        .expect_err("nothing is there");
    producer.put("t", "ID-1").await;
    let begin = Instant::now();
    let received = b.receive("t", "g").await;
    assert_eq!(attempt(&received.messages[0]), 1);
    assert!(
        begin.elapsed() < Duration::from_millis(100),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_takes_no_message_with_it() {
    let broker = DevBroker::start().await;
    let (producer, b) = pair(&broker).await;
    let mut a = Client::embedded(&broker, "a").await;
    a.consume("t", "g").await.unwrap();
    let poll = a.try_receive(Client::ask("t", "g"), Duration::from_secs(25));
    tokio::time::timeout(Duration::from_secs(1), poll)
        .await
        .expect_err("nothing is there");
    drop(a);
    eventually(|| {
        broker
            .connected_clients()
            .iter()
            .all(|client| client.id != "a")
    })
    .await;
    producer.put("t", "ID-1").await;
    assert_eq!(attempt(&b.receive("t", "g").await.messages[0]), 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_call_bounds_the_poll() {
    let broker = DevBroker::start().await;
    let (_producer, consumer) = pair(&broker).await;
    let mut ask = Client::ask("t", "g");
    ask.long_polling_timeout = wire(Duration::from_secs(20));
    let begin = Instant::now();
    let received = consumer
        .try_receive(ask.clone(), Duration::from_secs(8))
        .await
        .unwrap();
    assert_eq!(received.code, i32::from(Code::MessageNotFound));
    assert!(begin.elapsed() < Duration::from_secs(8));
    let received = consumer
        .try_receive(ask, Duration::from_secs(4))
        .await
        .unwrap();
    assert_eq!(received.code, i32::from(Code::IllegalPollingTime));
    assert_eq!(received.order, "st");
}

#[tokio::test(start_paused = true)]
async fn polls_and_leases_may_be_short_for_fast_tests() {
    let broker = DevBroker::builder()
        .long_poll(Duration::from_millis(50), Duration::from_millis(200))
        .min_invisible(Duration::from_millis(100))
        .in_memory()
        .unwrap();
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    let mut ask = Client::ask("t", "g");
    ask.invisible_duration = wire(Duration::from_millis(100));
    let begin = Instant::now();
    let first = consumer
        .try_receive(ask.clone(), Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(attempt(&first.messages[0]), 1);
    let second = consumer
        .try_receive(ask.clone(), Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(attempt(&second.messages[0]), 2);
    assert!(
        begin.elapsed() < Duration::from_millis(200),
        "{:?}",
        begin.elapsed()
    );
    let settings = Client::embedded(&broker, "d")
        .await
        .consume("t", "g")
        .await
        .unwrap();
    let Some(PubSub::Subscription(subscription)) = settings.pub_sub else {
        panic!()
    };
    assert_eq!(
        subscription.long_polling_timeout,
        wire(Duration::from_millis(200))
    );
}

#[tokio::test]
async fn many_receives_at_once_share_the_messages() {
    const MESSAGES: usize = 500;
    let broker = DevBroker::builder()
        .listen(([127, 0, 0, 1], 0))
        .start()
        .await
        .unwrap();
    let mut consumer = Client::dial(&broker, "c").await;
    consumer.consume("t", "g").await.unwrap();
    let consumer = std::sync::Arc::new(consumer);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let mut loops = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (consumer, seen) = (
            std::sync::Arc::clone(&consumer),
            std::sync::Arc::clone(&seen),
        );
        loops.spawn(async move {
            loop {
                let received = consumer.receive("t", "g").await;
                let handles: Vec<String> = received.messages.iter().map(handle).collect();
                if !handles.is_empty() {
                    let acked = consumer.ack("t", "g", &handles).await;
                    assert_eq!(code(acked.status.as_ref()), Code::Ok);
                }
                let ids = received.messages.iter().map(|m| id(m).to_owned());
                seen.lock().unwrap().extend(ids);
            }
        });
    }
    let producer = Client::dial(&broker, "p").await;
    for i in 0..MESSAGES {
        producer.put("t", &format!("ID-{i}")).await;
    }
    eventually(|| seen.lock().unwrap().len() >= MESSAGES).await;
    loops.shutdown().await;
    let seen = seen.lock().unwrap().clone();
    let distinct: std::collections::BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (MESSAGES, MESSAGES));
    assert_eq!(broker.in_flight("g"), []);
    assert_eq!(broker.lag("t", "g"), 0);
}

#[tokio::test(start_paused = true)]
async fn times_and_numbers_without_sense_are_refused_or_ignored() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    let mut odd = message("t", "ID-1");
    let far = prost_types::Timestamp {
        seconds: i64::MIN,
        nanos: i32::MAX,
    };
    system(&mut odd).born_timestamp = Some(far);
    system(&mut odd).message_type = 99;
    system(&mut odd).body_encoding = -1;
    let sent = producer.send(vec![odd]).await;
    assert_eq!(code(sent.status.as_ref()), Code::Ok);
    let negative = prost_types::Duration {
        seconds: -1,
        nanos: 0,
    };
    let mut ask = Client::ask("t", "g");
    ask.invisible_duration = Some(negative);
    let refused = consumer.receive_as(ask.clone()).await;
    assert_eq!(refused.code, i32::from(Code::IllegalInvisibleTime));
    ask.invisible_duration = Some(prost_types::Duration {
        seconds: i64::MAX,
        nanos: i32::MAX,
    });
    let refused = consumer.receive_as(ask.clone()).await;
    assert_eq!(refused.code, i32::from(Code::IllegalInvisibleTime));
    ask.invisible_duration = wire(Duration::from_secs(10));
    ask.long_polling_timeout = Some(negative);
    ask.batch_size = i32::MAX;
    let received = consumer.receive_as(ask).await;
    assert_eq!(id(&received.messages[0]), "ID-1");
}

#[tokio::test(start_paused = true)]
async fn an_ordered_group_polls_every_queue_and_blocks_what_it_holds() {
    let broker = DevBroker::builder()
        .topic_with_queues("t", TopicType::Fifo, 2)
        .group("g", GroupConfig::new().fifo(true))
        .in_memory()
        .unwrap();
    let (producer, consumer) = pair(&broker).await;
    let request = v2::QueryAssignmentRequest {
        topic: resource("t"),
        group: resource("g"),
        endpoints: None,
    };
    let request = consumer.request(request);
    let answer = consumer
        .stub
        .clone()
        .query_assignment(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.assignments.len(), 2);
    for i in 0..3 {
        let mut ordered = message("t", &format!("ID-{i}"));
        system(&mut ordered).message_group = Some("one".to_owned());
        let sent = producer.send(vec![ordered]).await;
        assert_eq!(code(sent.status.as_ref()), Code::Ok);
    }
    let mut ask = Client::ask("t", "g");
    ask.attempt_id = Some("first".to_owned());
    ask.batch_size = 2;
    let held = consumer.receive_as(ask.clone()).await;
    assert_eq!(
        held.messages.iter().map(id).collect::<Vec<_>>(),
        ["ID-0", "ID-1"]
    );
    assert_eq!(
        held.messages[0]
            .system_properties
            .as_ref()
            .unwrap()
            .message_type,
        2
    );
    ask.attempt_id = Some("second".to_owned());
    let blocked = consumer.receive_as(ask.clone()).await;
    assert_eq!(blocked.code, i32::from(Code::MessageNotFound));
    let handles: Vec<String> = held.messages.iter().map(handle).collect();
    let settle = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        consumer.ack("t", "g", &handles).await;
    };
    let begin = Instant::now();
    let (next, ()) = tokio::join!(consumer.receive_as(ask), settle);
    assert_eq!(id(&next.messages[0]), "ID-2");
    assert!(
        begin.elapsed() < Duration::from_millis(1100),
        "{:?}",
        begin.elapsed()
    );
}
