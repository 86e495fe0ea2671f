//! A broker that goes away, and other faults on request.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker};

use crate::client::{Client, attempt, code, handle, id, message};

async fn socket() -> DevBroker {
    DevBroker::builder()
        .listen(([127, 0, 0, 1], 0))
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_stopped_broker_cuts_connections_and_comes_back_with_its_messages() {
    let broker = socket().await;
    let mut client = Client::dial(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    client.put("t", "ID-1").await;
    let first = client.receive("t", "g").await;
    client.put("t", "ID-2").await;
    let addr = broker.addr().unwrap();
    broker.stop().await;
    assert!(broker.connected_clients().is_empty());
    tokio::net::TcpStream::connect(addr).await.unwrap_err();
    let request = client.request(rocketmq_proto::v2::HeartbeatRequest::default());
    let status = client.stub.clone().heartbeat(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    broker.restart().await.unwrap();
    assert_eq!(broker.addr(), Some(addr));
    let mut client = Client::dial(&broker, "c").await;
    assert_eq!(
        client.heartbeat(None).await.code,
        i32::from(Code::UnrecognizedClientType)
    );
    client.consume("t", "g").await.unwrap();
    let acked = client.ack("t", "g", &[handle(&first.messages[0])]).await;
    assert_eq!(
        code(acked.status.as_ref()),
        Code::Ok,
        "leases outlive the connection"
    );
    assert_eq!(id(&client.receive("t", "g").await.messages[0]), "ID-2");
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_a_waiting_receive_at_once() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    let waiting = client.try_receive(Client::ask("t", "g"), Duration::from_secs(25));
    let begin = tokio::time::Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        broker.stop().await;
    };
    let (cut, ()) = tokio::join!(waiting, stop);
    cut.unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_millis(2100),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_connector_is_refused_while_the_broker_is_stopped() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    client.put("t", "ID-1").await;
    broker.stop().await;
    let refused = broker.connector().connect().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    broker.restart().await.unwrap();
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    assert_eq!(id(&client.receive("t", "g").await.messages[0]), "ID-1");
}

#[tokio::test]
async fn a_channel_connects_again_when_the_broker_is_back() {
    for broker in [socket().await, DevBroker::start().await] {
        let mut client = if broker.addr().is_some() {
            Client::dial(&broker, "c").await
        } else {
            Client::embedded(&broker, "c").await
        };
        client.consume("t", "g").await.unwrap();
        broker.stop().await;
        let request = client.request(rocketmq_proto::v2::QueryRouteRequest::default());
        client.stub.clone().query_route(request).await.unwrap_err();
        broker.restart().await.unwrap();
        client.consume("t", "g").await.unwrap();
        client.put("t", "ID-1").await;
        assert_eq!(id(&client.receive("t", "g").await.messages[0]), "ID-1");
    }
}

#[tokio::test(start_paused = true)]
async fn time_goes_on_for_leases_while_the_broker_is_stopped() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    client.put("t", "ID-1").await;
    client.receive("t", "g").await;
    broker.stop().await;
    tokio::time::advance(Duration::from_secs(31)).await;
    broker.restart().await.unwrap();
    let mut client = Client::embedded(&broker, "d").await;
    client.consume("t", "g").await.unwrap();
    assert_eq!(attempt(&client.receive("t", "g").await.messages[0]), 2);
}

#[tokio::test]
async fn shutdown_is_bounded_with_clients_connected() {
    let broker = socket().await;
    let mut client = Client::dial(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    let idle = broker.clone();
    tokio::time::timeout(Duration::from_secs(4), broker.shutdown())
        .await
        .expect("it ends");
    assert!(idle.connector().connect().is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let broker = socket().await;
    let addr = broker.addr().unwrap();
    let error = DevBroker::builder().listen(addr).start().await.unwrap_err();
    assert!(error.is_address_in_use());
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[tokio::test]
async fn an_illegal_name_is_an_error_of_the_builder() {
    let kind = rocketmq_devbroker::TopicType::Normal;
    let error = DevBroker::builder()
        .topic("a b", kind)
        .in_memory()
        .unwrap_err();
    assert!(error.to_string().contains("\"a b\""), "{error}");
    let error = DevBroker::builder()
        .group("", Default::default())
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("blank"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn sends_fail_as_often_as_asked_for() {
    let broker = DevBroker::start().await;
    let client = Client::embedded(&broker, "p").await;
    broker.fail_sends(2, Code::TooManyRequests);
    for expected in [Code::TooManyRequests, Code::TooManyRequests, Code::Ok] {
        let answer = client.send(vec![message("t", "ID-1")]).await;
        assert_eq!(code(answer.status.as_ref()), expected);
    }
    broker.fail_sends_after_storing(1, Code::ProxyTimeout);
    let answer = client.send(vec![message("t", "ID-2")]).await;
    assert_eq!(code(answer.status.as_ref()), Code::ProxyTimeout);
    assert_eq!(broker.messages("t").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn acks_fail_or_are_lost_as_often_as_asked_for() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    client.put("t", "ID-1").await;
    let held = [handle(&client.receive("t", "g").await.messages[0])];
    broker.fail_acks(1, Code::InternalServerError);
    broker.drop_acks(1);
    for (expected, in_flight) in [(Code::InternalServerError, 1), (Code::Ok, 1), (Code::Ok, 0)] {
        let acked = client.ack("t", "g", &held).await;
        assert_eq!(code(acked.status.as_ref()), expected);
        assert_eq!(broker.in_flight("g").len(), in_flight);
    }
}

#[tokio::test(start_paused = true)]
async fn expired_leases_bring_messages_back_at_once() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    client.put("t", "ID-1").await;
    let held = [handle(&client.receive("t", "g").await.messages[0])];
    broker.expire_leases("g");
    let acked = client.ack("t", "g", &held).await;
    assert_eq!(code(acked.status.as_ref()), Code::InvalidReceiptHandle);
    assert_eq!(attempt(&client.receive("t", "g").await.messages[0]), 2);
}

#[tokio::test(start_paused = true)]
async fn the_broker_ends_with_its_last_handle() {
    let broker = DevBroker::start().await;
    let mut pipe = broker.connector().connect().unwrap();
    drop(broker);
    let mut rest = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut pipe, &mut rest);
    let end = tokio::time::timeout(Duration::from_secs(1), end).await;
    assert!(end.is_ok(), "the connection is cut");
}

#[tokio::test(start_paused = true)]
async fn a_client_may_cancel_hundreds_of_receives_at_once() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    for _ in 0..5 {
        let polls =
            (0..200).map(|_| client.try_receive(Client::ask("t", "g"), Duration::from_secs(25)));
        let all = futures_util::future::join_all(polls);
        tokio::time::timeout(Duration::from_secs(1), all)
            .await
            .expect_err("nothing is there");
    }
    client.put("t", "ID-1").await;
    assert_eq!(attempt(&client.receive("t", "g").await.messages[0]), 1);
    assert_eq!(
        broker.connected_clients().len(),
        1,
        "the connection was not cut"
    );
}
