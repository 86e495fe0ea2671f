//! What tests may see.

use std::time::Duration;

use rocketmq_devbroker::{Code, DevBroker, TopicType};
use rocketmq_proto::v2;

use crate::client::{Client, code, id, message, system};

#[tokio::test(start_paused = true)]
async fn queues_lags_and_delayed_messages_are_seen() {
    let broker = DevBroker::builder()
        .topic_with_queues("t", TopicType::Mixed, 2)
        .in_memory()
        .unwrap();
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    for id in ["ID-1", "ID-2", "ID-3"] {
        client.put("t", id).await;
    }
    let mut later = message("t", "ID-4");
    let due = std::time::SystemTime::now() + Duration::from_secs(60);
    system(&mut later).delivery_timestamp = Some(due.into());
    client.send(vec![later]).await;
    let queues: Vec<_> = broker
        .queues("t")
        .iter()
        .map(|q| (q.queue, q.min, q.max))
        .collect();
    assert_eq!(queues.len(), 2);
    assert_eq!(queues.iter().map(|(_, min, max)| max - min).sum::<u64>(), 3);
    assert_eq!(broker.queues("nosuch"), []);
    let mut ask = Client::ask("t", "g");
    ask.batch_size = 2;
    client.receive_as(ask).await;
    let lags = broker.queue_lags("t", "g");
    let sum = |of: fn(&rocketmq_devbroker::QueueLag) -> u64| lags.iter().map(of).sum::<u64>();
    assert_eq!((sum(|lag| lag.waiting), sum(|lag| lag.in_flight)), (1, 2));
    assert_eq!(broker.delayed_messages("t")[0].id, "ID-4");
    assert_eq!(broker.delayed_messages("u"), []);
}

#[tokio::test(start_paused = true)]
async fn the_subscriptions_of_a_client_are_seen_with_their_filters() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    let sql = |text: &str| v2::FilterExpression {
        r#type: v2::FilterType::Sql.into(),
        expression: text.to_owned(),
    };
    let refused = client
        .consume_filtered("t", "g", sql(""))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("expression format"), "{refused}");
    client
        .consume_filtered("t", "g", sql("a > 1"))
        .await
        .unwrap();
    let seen = &broker.connected_clients()[0];
    assert_eq!(seen.group.as_deref(), Some("g"));
    let subscription = &seen.subscriptions[0];
    assert_eq!(subscription.topic, "t");
    assert_eq!(
        (subscription.filter.as_deref(), subscription.is_sql),
        (Some("a > 1"), true)
    );
}

#[tokio::test(start_paused = true)]
async fn messages_of_higher_priority_come_first() {
    let broker = DevBroker::builder()
        .topic("t", TopicType::Priority)
        .in_memory()
        .unwrap();
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    for (n, priority) in [0, 1, 2, 3, 4, 9, 1].into_iter().enumerate() {
        let mut message = message("t", &format!("ID-{n}"));
        system(&mut message).priority = Some(priority);
        let answer = client.send(vec![message]).await;
        assert_eq!(code(answer.status.as_ref()), Code::Ok);
    }
    let mut negative = message("t", "ID-x");
    system(&mut negative).priority = Some(-1);
    let answer = client.send(vec![negative]).await;
    assert_eq!(code(answer.status.as_ref()), Code::InternalServerError);
    let received = client.receive("t", "g").await;
    let order: Vec<&str> = received.messages.iter().map(id).collect();
    assert_eq!(
        order,
        ["ID-3", "ID-4", "ID-5", "ID-2", "ID-1", "ID-6", "ID-0"]
    );
    let first = received.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(
        (first.priority, first.message_type()),
        (Some(3), v2::MessageType::Priority)
    );
}

#[tokio::test(start_paused = true)]
async fn lite_topics_can_be_sent_to_and_not_consumed() {
    let broker = DevBroker::builder()
        .topic("t", TopicType::Lite)
        .in_memory()
        .unwrap();
    let client = Client::embedded(&broker, "c").await;
    let sent = |lite: &str| {
        let mut message = message("t", "ID-1");
        system(&mut message).lite_topic = Some(lite.to_owned());
        client.send(vec![message])
    };
    let long = "x".repeat(65);
    for (name, expected) in [
        ("l1", Code::Ok),
        ("l 1", Code::IllegalLiteTopic),
        (&long, Code::IllegalLiteTopic),
        ("", Code::MessagePropertyConflictWithType),
    ] {
        assert_eq!(code(sent(name).await.status.as_ref()), expected, "{name:?}");
    }
    for (name, expected) in [
        ("l1", Code::InternalServerError),
        ("l 1", Code::IllegalLiteTopic),
    ] {
        let request = client.request(v2::SyncLiteSubscriptionRequest {
            lite_topic_set: vec![name.to_owned()],
            ..Default::default()
        });
        let answer = client.stub.clone().sync_lite_subscription(request).await;
        assert_eq!(code(answer.unwrap().into_inner().status.as_ref()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn properties_are_given_out_as_the_server_does() {
    let broker = DevBroker::start().await;
    let mut client = Client::embedded(&broker, "c").await;
    client.consume("t", "g").await.unwrap();
    let mut sent = message("t", "ID-1");
    sent.user_properties
        .insert("empty".to_owned(), String::new());
    system(&mut sent).message_group = Some("mine".to_owned());
    client.send(vec![sent]).await;
    let received = client.receive("t", "g").await;
    let properties = &received.messages[0].user_properties;
    assert_eq!(properties.get("empty"), None);
    assert_eq!(properties["__SHARDINGKEY"], "mine");
    assert_eq!(properties["colour"], "red");
}
