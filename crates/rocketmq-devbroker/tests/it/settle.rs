//! Settling what was received.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker, GroupConfig};
use rocketmq_proto::v2;

use crate::{
    client::{code, handle, id, message, resource, system},
    consume::pair,
};

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
async fn a_replaced_handle_settles_nothing_although_it_is_accepted() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    let old = handle(&consumer.receive("t", "g").await.messages[0]);
    let changed = consumer
        .change("t", "g", &old, Duration::from_secs(30))
        .await;
    assert_eq!(code(changed.status.as_ref()), Code::Ok);
    assert_ne!(changed.receipt_handle, old);
    let acked = consumer.ack("t", "g", &[old]).await;
    assert_eq!(code(acked.status.as_ref()), Code::Ok);
    assert_eq!(broker.in_flight("g").len(), 1);
    let acked = consumer.ack("t", "g", &[changed.receipt_handle]).await;
    assert_eq!(code(acked.status.as_ref()), Code::Ok);
    assert_eq!(broker.in_flight("g").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_suspended_spends_no_attempt() {
    let broker = DevBroker::start().await;
    broker
        .create_group("g", GroupConfig::new().retry_max_times(0))
        .unwrap();
    let (producer, consumer) = pair(&broker).await;
    producer.put("t", "ID-1").await;
    for _ in 0..3 {
        let received = consumer.receive("t", "g").await;
        let request = consumer.request(v2::ChangeInvisibleDurationRequest {
            group: resource("g"),
            topic: resource("t"),
            receipt_handle: handle(&received.messages[0]),
            invisible_duration: Some(prost_types::Duration::default()),
            suspend: Some(true),
            ..Default::default()
        });
        let mut stub = consumer.stub.clone();
        stub.change_invisible_duration(request).await.unwrap();
        assert_eq!(broker.dead_letters("g"), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_consumed_from_its_topic() {
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
    // As on the real server, only the topic's name tells where it came from.
    assert_eq!(system.dead_letter_queue, None);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_keeps_its_message_group_and_goes_on_with_its_attempts() {
    let broker = DevBroker::start().await;
    let few = GroupConfig::new().retry_max_times(0);
    broker.create_group("few", few).unwrap();
    let (producer, consumer) = pair(&broker).await;
    let mut ordered = message("t", "ID-1");
    system(&mut ordered).message_group = Some("k".to_owned());
    producer.send(vec![ordered]).await;
    let held = handle(&consumer.receive("t", "g").await.messages[0]);
    assert_eq!(consumer.forward("t", "g", &held).await, Code::Ok);

    let dead = consumer.receive("%DLQ%g", "g").await;
    let system = dead.messages[0].system_properties.clone().unwrap();
    assert_eq!(system.message_group.as_deref(), Some("k"));
    assert_eq!(dead.messages[0].user_properties["__SHARDINGKEY"], "k");
    assert_eq!(system.delivery_attempt, Some(2));
    // A group that allows one attempt has none left for it.
    let nothing = consumer.receive("%DLQ%g", "few").await;
    assert_eq!(nothing.messages.len(), 0);
    assert_eq!(broker.dead_letters("few")[0].id, "ID-1");
}

#[tokio::test(start_paused = true)]
async fn requests_with_nothing_in_them_are_refused_and_harm_nobody() {
    let broker = DevBroker::start().await;
    let (producer, consumer) = pair(&broker).await;
    let mut stub = consumer.stub.clone();
    let empty = consumer
        .receive_as(v2::ReceiveMessageRequest::default())
        .await;
    assert_eq!(
        (empty.code, empty.order.as_str()),
        (i32::from(Code::IllegalTopic), "st")
    );
    let ack = stub
        .ack_message(consumer.request(v2::AckMessageRequest::default()))
        .await
        .unwrap();
    assert_eq!(code(ack.into_inner().status.as_ref()), Code::IllegalTopic);
    let change = consumer.request(v2::ChangeInvisibleDurationRequest::default());
    let change = stub.change_invisible_duration(change).await.unwrap();
    assert_eq!(
        code(change.into_inner().status.as_ref()),
        Code::IllegalTopic
    );
    let send = producer.send(vec![v2::Message::default()]).await;
    assert_eq!(code(send.status.as_ref()), Code::IllegalTopic);
    let send = producer.send(vec![]).await;
    assert_eq!(code(send.status.as_ref()), Code::MessageCorrupted);
    let route = consumer.request(v2::QueryRouteRequest::default());
    let route = stub.query_route(route).await.unwrap().into_inner();
    assert_eq!(code(route.status.as_ref()), Code::IllegalTopic);
    let assignment = consumer.request(v2::QueryAssignmentRequest::default());
    let assignment = stub
        .query_assignment(assignment)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(code(assignment.status.as_ref()), Code::IllegalTopic);
    let end = consumer.request(v2::EndTransactionRequest::default());
    let end = stub.end_transaction(end).await.unwrap().into_inner();
    assert_eq!(code(end.status.as_ref()), Code::IllegalTopic);
    producer.put("t", "ID-1").await;
    assert_eq!(id(&consumer.receive("t", "g").await.messages[0]), "ID-1");
}
