use rocketmq_admin::{MessageType, TopicSpec};
use tokio::time::Instant;

use crate::server::{SOON, admin, unique};

#[tokio::test]
async fn a_topic_is_created_changed_shown_and_deleted() {
    let (admin, name) = (admin(), unique("topic"));
    let spec = TopicSpec::new(&name)
        .message_type(MessageType::Fifo)
        .queues(3);
    admin.create_topic(&spec).await.unwrap();
    let route = admin.wait_for_topic(&name, SOON).await.unwrap();
    let [broker] = &route.brokers[..] else {
        panic!("{route:?}")
    };
    assert_eq!(
        (broker.read_queues, broker.write_queues, broker.permissions),
        (3, 3, 6)
    );

    let detail = admin.topic(&name).await.unwrap();
    assert_eq!(detail.topic.message_type(), Some(MessageType::Fifo));
    assert_eq!(detail.topic.brokers, [broker.broker.as_str()]);
    assert!(!detail.topic.is_system() && !detail.topic.is_of_group());
    let ids: Vec<_> = detail.queues.iter().map(|it| it.queue.id).collect();
    assert_eq!(ids, [0, 1, 2]);
    assert!(
        detail
            .queues
            .iter()
            .all(|it| it.max_offset == 0 && it.updated_at.is_none())
    );

    // Once more with other settings is a change.
    admin
        .create_topic(&TopicSpec::new(&name).queues(5))
        .await
        .unwrap();
    let topics = admin.topics().await.unwrap();
    let topic = topics.iter().find(|it| it.name == name).unwrap();
    assert_eq!(topic.message_type(), Some(MessageType::Normal));
    assert_eq!((topic.read_queues, topic.write_queues), (5, 5));
    assert!(
        topics
            .iter()
            .any(|it| it.name == "TBW102" && it.is_system())
    );

    admin.delete_topic(&name).await.unwrap();
    let error = admin.topic(&name).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(
        admin
            .topics()
            .await
            .unwrap()
            .iter()
            .all(|it| it.name != name)
    );
    admin.delete_topic(&name).await.unwrap();
}

#[tokio::test]
async fn what_the_broker_refuses_is_told_with_its_name() {
    let (admin, name) = (admin(), unique("refused"));
    let spec = TopicSpec::new(&name).attribute("message.typ", "FIFO");
    let error = admin.create_topic(&spec).await.unwrap_err();
    assert_eq!(
        (error.request_code(), error.response_code()),
        (Some(17), Some(1))
    );
    assert!(error.remark().unwrap().contains("message.typ"), "{error}");
    assert!(
        error.broker().is_some() && error.address().is_some(),
        "{error}"
    );
    assert!(!error.is_retryable() && !error.is_not_found());

    let error = admin.delete_topic("TBW102").await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
}

#[tokio::test]
async fn every_kind_of_messages_has_topics() {
    let admin = admin();
    for kind in [
        MessageType::Normal,
        MessageType::Fifo,
        MessageType::Delay,
        MessageType::Transaction,
        MessageType::Priority,
        MessageType::Lite,
    ] {
        let name = unique("kind");
        let spec = TopicSpec::new(&name).message_type(kind).queues(1);
        admin.create_topic(&spec).await.unwrap();
        admin.wait_for_topic(&name, SOON).await.unwrap();
        let detail = admin.topic(&name).await.unwrap();
        assert_eq!(detail.topic.message_type(), Some(kind));
        admin.delete_topic(&name).await.unwrap();
    }
}

#[tokio::test]
async fn a_mixed_topic_is_refused_by_a_broker_as_it_comes() {
    let spec = TopicSpec::new(unique("mixed")).message_type(MessageType::Mixed);
    let error = admin().create_topic(&spec).await.unwrap_err();
    assert!(
        error.is_invalid() && error.remark().unwrap().contains("MIXED"),
        "{error}"
    );
}

#[tokio::test]
async fn waiting_for_a_topic_that_never_comes_ends_in_time() {
    let within = std::time::Duration::from_millis(700);
    let start = Instant::now();
    let error = admin()
        .wait_for_topic(&unique("never"), within)
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("code 17"), "{cause}");
    assert!(start.elapsed() < within * 3);
}

#[tokio::test]
async fn the_cluster_is_shown() {
    let brokers = admin().cluster().await.unwrap();
    let [broker] = &brokers[..] else {
        panic!("{brokers:?}")
    };
    assert_eq!(broker.cluster, "DefaultCluster");
    assert!(broker.master().is_some());
    assert_eq!(broker.version.as_deref(), Some("V5_5_0"));
}
