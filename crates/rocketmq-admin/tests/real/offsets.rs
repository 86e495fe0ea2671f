//! Lag and reset without a consumer; with one, they are tried in rocketmq-grpc's `tests/real`.

use std::time::{Duration, SystemTime};

use rocketmq_admin::{GroupSpec, Position, TopicSpec};

use crate::server::{SOON, admin, unique};

#[tokio::test]
async fn a_new_group_has_no_lag_and_can_be_set() {
    let (admin, topic, group) = (admin(), unique("topic"), unique("group"));
    admin
        .create_topic(&TopicSpec::new(&topic).queues(2))
        .await
        .unwrap();
    admin.create_group(&GroupSpec::new(&group)).await.unwrap();
    admin.wait_for_topic(&topic, SOON).await.unwrap();

    assert!(admin.lag(&group).await.unwrap().queues.is_empty());
    let lag = admin.lag_of_topic(&group, &topic).await.unwrap();
    assert_eq!((lag.queues.len(), lag.total()), (2, 0));
    assert!(lag.queues.iter().all(|it| it.consumed_until.is_none()));

    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for to in [Position::Start, Position::End, Position::Time(hour_ago)] {
        let offsets = admin.reset_offset(&group, &topic, to).await.unwrap();
        assert_eq!(offsets.values().collect::<Vec<_>>(), [&0, &0]);
    }
    // Now it has offsets, so its topics are known.
    assert_eq!(
        admin.lag(&group).await.unwrap().by_topic()[topic.as_str()],
        0
    );

    admin.delete_group(&group).await.unwrap();
    assert!(admin.lag(&group).await.unwrap_err().is_not_found());
    admin.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn a_group_is_given_a_place_in_a_topic_once() {
    let (admin, topic, group) = (admin(), unique("topic"), unique("group"));
    admin
        .create_topic(&TopicSpec::new(&topic).queues(2))
        .await
        .unwrap();
    admin.create_group(&GroupSpec::new(&group)).await.unwrap();
    admin.wait_for_topic(&topic, SOON).await.unwrap();
    let set = admin.init_offset(&group, &topic, Position::Start).await;
    assert_eq!(set.unwrap().values().collect::<Vec<_>>(), [&0, &0]);
    let again = admin.init_offset(&group, &topic, Position::End).await;
    assert!(again.unwrap().is_empty(), "it has one");
    admin.delete_group(&group).await.unwrap();
    admin.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_not_made() {
    let (admin, topic, group) = (admin(), unique("topic"), unique("group"));
    admin.create_topic(&TopicSpec::new(&topic)).await.unwrap();
    admin.wait_for_topic(&topic, SOON).await.unwrap();
    for error in [
        admin.lag(&group).await.unwrap_err(),
        admin.lag_of_topic(&group, &topic).await.unwrap_err(),
        admin
            .lag_of_topic(&group, &unique("none"))
            .await
            .unwrap_err(),
        admin
            .reset_offset(&group, &topic, Position::End)
            .await
            .unwrap_err(),
        admin
            .reset_offset(&group, &unique("none"), Position::End)
            .await
            .unwrap_err(),
        admin.group(&group).await.unwrap_err(),
    ] {
        assert!(error.is_not_found() && !error.is_retryable(), "{error}");
    }
    // A broker that is asked for one group may make it: no call here asks so.
    assert!(
        admin
            .groups()
            .await
            .unwrap()
            .iter()
            .all(|it| it.name != group)
    );
    admin.delete_topic(&topic).await.unwrap();
}
