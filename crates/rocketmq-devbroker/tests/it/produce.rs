//! Sending, and routes.

use rocketmq_devbroker::{Code, DevBroker, TopicType};
use rocketmq_proto::v2;

use crate::client::{Client, code, message, resource, system};

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_with_one_entry_and_stored_whole() {
    let broker = DevBroker::start().await;
    let mut producer = Client::embedded(&broker, "p").await;
    producer.produce("t").await;
    let messages = ["ID-1", "ID-2", "ID-3"].map(|id| message("t", id)).to_vec();
    let answer = producer.send(messages).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    assert_eq!(answer.entries.len(), 1);
    assert_eq!(broker.messages("t").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_sent_message_is_confirmed_under_its_own_id() {
    let broker = DevBroker::start().await;
    let producer = Client::embedded(&broker, "p").await;
    let answer = producer.send(vec![message("t", "ID-1")]).await;
    let entry = &answer.entries[0];
    assert_eq!(code(entry.status.as_ref()), Code::Ok);
    assert_eq!(
        (entry.message_id.as_str(), entry.transaction_id.as_str()),
        ("ID-1", "ID-1")
    );
    assert_eq!((entry.offset, entry.recall_handle.as_str()), (0, ""));
    let stored = &broker.messages("t")[0];
    assert_eq!(
        (stored.id.as_str(), &stored.body[..]),
        ("ID-1", b"hello".as_slice())
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_send_has_a_status_and_no_entries() {
    let broker = DevBroker::builder()
        .topic("t", TopicType::Normal)
        .in_memory()
        .unwrap();
    let producer = Client::embedded(&broker, "p").await;
    let mut ordered = message("t", "ID-1");
    system(&mut ordered).message_group = Some("g".to_owned());
    let answer = producer.send(vec![ordered]).await;
    assert_eq!(
        code(answer.status.as_ref()),
        Code::MessagePropertyConflictWithType
    );
    assert!(answer.entries.is_empty());
    let mut bare = message("t", "ID-1");
    bare.system_properties = None;
    let answer = producer.send(vec![bare]).await;
    assert_eq!(code(answer.status.as_ref()), Code::IllegalMessageId);
    assert_eq!(broker.messages("t"), []);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_4_mib_passes_in_both_directions() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    let mut large = message("t", "ID-1");
    large.body = vec![7; 4 << 20].into();
    let answer = client.send(vec![large]).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    let received = client.receive("t", "g").await;
    assert_eq!(received.messages[0].body.len(), 4 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_route_names_every_queue_the_type_and_where_to_go() {
    let broker = DevBroker::builder()
        .topic_with_queues("t", TopicType::Fifo, 2)
        .advertise("broker.test", 1234)
        .in_memory()
        .unwrap();
    let client = Client::embedded(&broker, "c").await;
    let route = client.route("t").await;
    assert_eq!(code(route.status.as_ref()), Code::Ok);
    let ids: Vec<i32> = route.message_queues.iter().map(|queue| queue.id).collect();
    assert_eq!(ids, [0, 1]);
    for queue in &route.message_queues {
        assert_eq!(queue.topic, resource("t"));
        assert_eq!(queue.permission(), v2::Permission::ReadWrite);
        assert_eq!(
            queue.accept_message_types,
            [i32::from(v2::MessageType::Fifo)]
        );
        let broker = queue.broker.clone().unwrap();
        assert_eq!(broker.id, 0);
        let endpoints = broker.endpoints.unwrap();
        assert_eq!(endpoints.scheme(), v2::AddressScheme::DomainName);
        assert_eq!(endpoints.addresses[0].host, "broker.test");
        assert_eq!(endpoints.addresses[0].port, 1234);
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_needs_a_client_id() {
    let broker = DevBroker::start().await;
    let mut nobody = Client::embedded(&broker, "").await;
    assert_eq!(
        code(nobody.route("t").await.status.as_ref()),
        Code::ClientIdRequired
    );
    let sent = nobody.send(vec![message("t", "ID-1")]).await;
    assert_eq!(code(sent.status.as_ref()), Code::ClientIdRequired);
    let received = nobody.receive("t", "g").await;
    assert_eq!(received.code, i32::from(Code::ClientIdRequired));
    let acked = nobody.ack("t", "g", &["x".to_owned()]).await;
    assert_eq!(code(acked.status.as_ref()), Code::ClientIdRequired);
    assert_eq!(
        nobody.heartbeat(None).await.code,
        i32::from(Code::ClientIdRequired)
    );
    assert_eq!(nobody.terminate().await, Code::ClientIdRequired);
    let stream = nobody.consume_raw("t", "g").await;
    assert_eq!(code(stream.status.as_ref()), Code::ClientIdRequired);
}

#[tokio::test(start_paused = true)]
async fn a_language_that_the_server_cannot_read_is_an_internal_error() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client
        .headers
        .insert("x-mq-language", "KLINGON".parse().unwrap());
    let status = client.consume("t", "g").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal);
    // Its stream has ended, and the client with it.
    crate::eventually(|| broker.connected_clients().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_is_recalled() {
    let broker = DevBroker::start().await;
    let client = Client::embedded(&broker, "c").await;
    let mut late = message("t", "ID-1");
    let in_an_hour = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    system(&mut late).delivery_timestamp = Some(in_an_hour.into());
    let answer = client.send(vec![late]).await;
    let recall_handle = answer.entries[0].recall_handle.clone();
    // The second time is that of a client that has lost the first answer.
    for _ in 0..2 {
        let request = client.request(v2::RecallMessageRequest {
            topic: resource("t"),
            recall_handle: recall_handle.clone(),
        });
        let answer = client.stub.clone().recall_message(request).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(code(answer.status.as_ref()), Code::Ok);
        assert_eq!(answer.message_id, "ID-1");
        assert_eq!(broker.delayed_messages("t"), []);
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_and_pulls_are_unimplemented() {
    let broker = DevBroker::start().await;
    let client = Client::embedded(&broker, "c").await;
    let request = client.request(v2::GetOffsetRequest::default());
    let status = client.stub.clone().get_offset(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    let request = client.request(v2::PullMessageRequest::default());
    let status = client.stub.clone().pull_message(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}
