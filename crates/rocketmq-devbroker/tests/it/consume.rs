//! Receiving and settling.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker};
use rocketmq_proto::v2::settings::PubSub;
use tokio::time::Instant;

use crate::{
    client::{Client, attempt, code, handle, id, wire},
    eventually,
};

async fn pair(broker: &DevBroker) -> (Client, Client) {
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
async fn several_acks_in_one_request_have_a_result_each() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    for i in 0..32 {
        producer.put("t", &format!("ID-{i}")).await;
    }
    let received = consumer.receive("t", "g").await;
    let mut handles: Vec<String> = received.messages.iter().map(handle).collect();
    assert_eq!(handles.len(), 32);
    let all = consumer.ack("t", "g", &handles).await;
    assert_eq!(code(all.status.as_ref()), Code::Ok);
    assert_eq!(all.entries.len(), 32);
    let again = consumer.ack("t", "g", &handles).await;
    assert_eq!(
        code(again.status.as_ref()),
        Code::Ok,
        "an ack may be repeated"
    );
    handles.truncate(1);
    handles.push("garbage".to_owned());
    let mixed = consumer.ack("t", "g", &handles).await;
    assert_eq!(code(mixed.status.as_ref()), Code::MultipleResults);
    assert_eq!(code(mixed.entries[0].status.as_ref()), Code::Ok);
    assert_eq!(
        code(mixed.entries[1].status.as_ref()),
        Code::InternalServerError
    );
    assert_eq!(mixed.entries[1].receipt_handle, "garbage");
    let none = consumer.ack("t", "g", &[]).await;
    assert_eq!(code(none.status.as_ref()), Code::InternalServerError);
}

#[tokio::test(start_paused = true)]
async fn a_changed_handle_with_the_one_it_replaced_gives_multiple_results() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    let old = handle(&consumer.receive("t", "g").await.messages[0]);
    let changed = consumer
        .change("t", "g", &old, Duration::from_secs(30))
        .await;
    assert_eq!(code(changed.status.as_ref()), Code::Ok);
    assert_ne!(changed.receipt_handle, old);
    let acked = consumer.ack("t", "g", &[old, changed.receipt_handle]).await;
    assert_eq!(code(acked.status.as_ref()), Code::MultipleResults);
    assert_eq!(
        code(acked.entries[0].status.as_ref()),
        Code::InvalidReceiptHandle
    );
    assert_eq!(code(acked.entries[1].status.as_ref()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_consumed_from_its_topic_and_tells_where_it_came_from() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    let held = handle(&consumer.receive("t", "g").await.messages[0]);
    assert_eq!(consumer.forward("t", "g", &held).await, Code::Ok);
    assert_eq!(broker.dead_letters("g")[0].id, "ID-1");
    let route = consumer.route("%DLQ%g").await;
    assert_eq!(route.message_queues.len(), 1);
    assert_eq!(route.message_queues[0].accept_message_types, [1]);
    let dead = consumer.receive("%DLQ%g", "g").await;
    let system = dead.messages[0].system_properties.clone().unwrap();
    assert_eq!(system.message_id, "ID-1");
    assert_eq!(dead.messages[0].user_properties["colour"], "red");
    let origin = system.dead_letter_queue.unwrap();
    assert_eq!(
        (origin.topic.as_str(), origin.message_id.as_str()),
        ("t", "ID-1")
    );
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
    const MESSAGES: usize = 2_000;
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
