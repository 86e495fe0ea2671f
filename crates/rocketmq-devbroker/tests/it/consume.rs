//! Receiving and settling.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker};
use tokio::time::Instant;

use crate::client::{Client, attempt, code, handle, id};

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
    ask.long_polling_timeout = crate::client::wire(Duration::from_secs(1));
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
async fn a_lapsed_lease_comes_again_with_the_next_attempt() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    let first = consumer.receive("t", "g").await;
    let begin = Instant::now();
    let mut again = consumer.receive_as(long(Client::ask("t", "g"))).await;
    if again.messages.is_empty() {
        again = consumer.receive_as(long(Client::ask("t", "g"))).await;
    }
    assert_eq!(attempt(&again.messages[0]), 2);
    assert!(begin.elapsed() >= Duration::from_secs(29));
    let late = consumer.ack("t", "g", &[handle(&first.messages[0])]).await;
    assert_eq!(code(late.status.as_ref()), Code::InvalidReceiptHandle);
}

fn long(
    mut ask: rocketmq_proto::v2::ReceiveMessageRequest,
) -> rocketmq_proto::v2::ReceiveMessageRequest {
    ask.long_polling_timeout = crate::client::wire(Duration::from_secs(20));
    ask
}
