//! Faults on request, one test each.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker, Rpc};
use tokio::time::{Instant, timeout};

use crate::client::{Client, attempt, code, handle, id, message};

async fn consumer(broker: &DevBroker) -> Client {
    let mut client = Client::embedded(broker, "c").await;
    client.consume("t", "g").await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn any_call_can_be_refused() {
    let broker = DevBroker::start().await;
    let client = consumer(&broker).await;
    for rpc in [Rpc::QueryRoute, Rpc::Heartbeat, Rpc::ReceiveMessage] {
        broker.fail_calls(rpc, 1, Code::TooManyRequests);
    }
    let busy = i32::from(Code::TooManyRequests);
    assert_eq!(client.route("t").await.status.unwrap().code, busy);
    assert_eq!(client.heartbeat(None).await.code, busy);
    assert_eq!(client.receive("t", "g").await.code, busy);
    client.put("t", "ID-1").await;
    assert_eq!(client.receive("t", "g").await.messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_telemetry_stream_can_be_refused_and_dropped() {
    let broker = DevBroker::start().await;
    broker.fail_calls(Rpc::Telemetry, 1, Code::TooManyRequests);
    let mut client = Client::embedded(&broker, "c").await;
    let refused = client.consume_raw("t", "g").await;
    assert_eq!(code(refused.status.as_ref()), Code::TooManyRequests);
    client.consume("t", "g").await.unwrap();
    broker.drop_telemetry();
    assert_eq!(client.command().await, None);
    assert!(broker.connected_clients().is_empty());
    client.put("t", "ID-1").await;
    client.consume("t", "g").await.unwrap();
    assert_eq!(broker.connected_clients().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_be_lost_although_the_call_was_done() {
    let broker = DevBroker::start().await;
    let client = Client::embedded(&broker, "p").await;
    broker.lose_answers(Rpc::SendMessage, 1);
    let send = client.send(vec![message("t", "ID-1")]);
    timeout(Duration::from_secs(60), send).await.unwrap_err();
    assert_eq!(broker.messages("t").len(), 1);
    client.put("t", "ID-2").await;
}

#[tokio::test(start_paused = true)]
async fn answers_are_late_until_faults_are_cleared() {
    let broker = DevBroker::start().await;
    let client = consumer(&broker).await;
    client.put("t", "ID-1").await;
    let held = [handle(&client.receive("t", "g").await.messages[0])];
    broker.delay_answers(Rpc::AckMessage, Duration::from_secs(3));
    let begin = Instant::now();
    let acked = client.ack("t", "g", &held).await;
    assert_eq!(code(acked.status.as_ref()), Code::Ok);
    assert!(begin.elapsed() >= Duration::from_secs(3));
    broker.clear_faults();
    let begin = Instant::now();
    client.ack("t", "g", &held).await;
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_receive_breaks_after_some_messages_and_the_rest_stays_leased() {
    for (after, status_last) in [(0, false), (2, false), (2, true), (9, false)] {
        let broker = DevBroker::builder()
            .status_last(status_last)
            .in_memory()
            .unwrap();
        let client = consumer(&broker).await;
        for id in ["ID-1", "ID-2", "ID-3"] {
            client.put("t", id).await;
        }
        broker.break_receives(1, after);
        let (messages, end) = client.receive_until_error(Client::ask("t", "g")).await;
        assert_eq!(messages.len(), after.min(3));
        assert_eq!(end.unwrap().code(), tonic::Code::Unavailable);
        assert_eq!(broker.in_flight("g").len(), 3);
        tokio::time::advance(Duration::from_secs(31)).await;
        let again = client.receive("t", "g").await;
        assert_eq!(again.messages.len(), 3);
        assert!(again.messages.iter().all(|message| attempt(message) == 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_made_again_although_it_is_held_or_acked() {
    let broker = DevBroker::start().await;
    let client = consumer(&broker).await;
    broker.duplicate_deliveries(2);
    client.put("t", "ID-1").await;
    let first = client.receive("t", "g").await;
    let acked = client.ack("t", "g", &[handle(&first.messages[0])]).await;
    assert_eq!(code(acked.status.as_ref()), Code::Ok);
    let second = client.receive("t", "g").await;
    assert_eq!(id(&second.messages[0]), "ID-1");
    let third = client.receive("t", "g").await;
    assert_eq!(
        (id(&third.messages[0]), attempt(&third.messages[0])),
        ("ID-1", 2)
    );
    let late = client.ack("t", "g", &[handle(&second.messages[0])]).await;
    assert_eq!(code(late.status.as_ref()), Code::InvalidReceiptHandle);
    client.ack("t", "g", &[handle(&third.messages[0])]).await;
    assert_eq!(client.receive("t", "g").await.messages.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_receive_hands_messages_out_in_reverse() {
    let broker = DevBroker::builder()
        .topic_with_queues("t", rocketmq_devbroker::TopicType::Normal, 1)
        .in_memory()
        .unwrap();
    let client = consumer(&broker).await;
    broker.reorder_deliveries(1);
    for id in ["ID-1", "ID-2", "ID-3"] {
        client.put("t", id).await;
    }
    let received = client.receive("t", "g").await;
    let order: Vec<&str> = received.messages.iter().map(id).collect();
    assert_eq!(order, ["ID-3", "ID-2", "ID-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_with_an_entry_for_each_message() {
    let broker = DevBroker::start().await;
    let client = Client::embedded(&broker, "p").await;
    let batch = || ["ID-1", "ID-2"].map(|id| message("t", id)).to_vec();
    broker.answer_each_message();
    let answer = client.send(batch()).await;
    let ids: Vec<&str> = answer
        .entries
        .iter()
        .map(|e| e.message_id.as_str())
        .collect();
    assert_eq!(ids, ["ID-1", "ID-2"]);
    broker.clear_faults();
    assert_eq!(client.send(batch()).await.entries.len(), 1);
    let broker = DevBroker::builder()
        .one_entry_batch(false)
        .in_memory()
        .unwrap();
    let client = Client::embedded(&broker, "p").await;
    assert_eq!(client.send(batch()).await.entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_receive_can_come_last() {
    let broker = DevBroker::start().await;
    let client = consumer(&broker).await;
    client.put("t", "ID-1").await;
    broker.send_status_last();
    assert_eq!(client.receive("t", "g").await.order, "tms");
    assert_eq!(client.receive("t", "g").await.order, "ts");
    broker.clear_faults();
    assert_eq!(client.receive("t", "g").await.order, "st");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_broker_is_silent_and_goes_on_when_it_thaws() {
    let broker = DevBroker::start().await;
    let client = consumer(&broker).await;
    broker.freeze();
    let send = client.send(vec![message("t", "ID-1")]);
    timeout(Duration::from_secs(300), send).await.unwrap_err();
    broker.connector().connect().unwrap();
    assert_eq!(broker.messages("t"), []);
    assert_eq!(broker.connected_clients().len(), 1);
    broker.thaw();
    client.put("t", "ID-2").await;
    let kept = broker.messages("t");
    assert!(kept.iter().any(|message| message.id == "ID-2"));
}

#[tokio::test]
async fn a_frozen_socket_is_accepted_and_silent() {
    let broker = DevBroker::builder()
        .listen(([127, 0, 0, 1], 0))
        .start()
        .await
        .unwrap();
    let client = Client::dial(&broker, "c").await;
    broker.freeze();
    let route = client.route("t");
    timeout(Duration::from_millis(300), route)
        .await
        .unwrap_err();
    let addr = broker.addr().unwrap();
    tokio::net::TcpStream::connect(addr).await.unwrap();
    broker.thaw();
    assert_eq!(code(client.route("t").await.status.as_ref()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn forgotten_clients_are_told_so_on_the_same_connection() {
    let broker = DevBroker::start().await;
    let mut client = consumer(&broker).await;
    broker.forget_clients();
    let unknown = i32::from(Code::UnrecognizedClientType);
    assert_eq!(client.heartbeat(Some("g")).await.code, unknown);
    client.consume("t", "g").await.unwrap();
    assert_eq!(client.heartbeat(Some("g")).await.code, i32::from(Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn a_restart_can_lose_everything_but_names() {
    let broker = DevBroker::builder()
        .strict(true)
        .topic("t", rocketmq_devbroker::TopicType::Normal)
        .group("g", Default::default())
        .in_memory()
        .unwrap();
    let client = consumer(&broker).await;
    client.put("t", "ID-1").await;
    let old = [handle(&client.receive("t", "g").await.messages[0])];
    client.put("t", "ID-2").await;
    broker.stop().await;
    broker.lose_messages();
    broker.restart().await.unwrap();
    let client = consumer(&broker).await;
    assert_eq!(broker.messages("t"), []);
    client.put("t", "ID-3").await;
    let received = client.receive("t", "g").await;
    assert_eq!(id(&received.messages[0]), "ID-3");
    let acked = client.ack("t", "g", &old).await;
    assert_eq!(code(acked.status.as_ref()), Code::InvalidReceiptHandle);
    assert_eq!(
        broker.in_flight("g").len(),
        1,
        "an old handle settles nothing"
    );
}
