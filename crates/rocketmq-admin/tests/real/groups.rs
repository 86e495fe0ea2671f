use std::time::Duration;

use rocketmq_admin::{Backoff, GroupSpec};

use crate::server::{admin, unique};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_group_is_created_changed_shown_and_deleted() {
    let (admin, name) = (admin(), unique("group"));
    let error = admin.group(&name).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");

    let spec = GroupSpec::new(&name)
        .orderly(true)
        .retry_max_times(3)
        .backoff(SECOND, 10 * SECOND)
        .attribute("lite.bind.topic", "some-topic");
    admin.create_group(&spec).await.unwrap();
    let group = admin.group(&name).await.unwrap();
    assert!(group.orderly && group.consume_enable && !group.is_system());
    assert_eq!(group.retry_max_times, 3);
    let backoff = Backoff::Exponential {
        first: SECOND,
        max: 10 * SECOND,
        factor: 2,
    };
    assert_eq!(group.backoff, backoff);
    assert_eq!(group.attributes["lite.bind.topic"], "some-topic");

    // A change replaces every setting, attributes that are not named stay.
    let spec = GroupSpec::new(&name)
        .consume_enable(false)
        .backoff_steps([SECOND, 5 * SECOND]);
    admin.create_group(&spec).await.unwrap();
    let group = admin.group(&name).await.unwrap();
    assert!(!group.orderly && !group.consume_enable);
    assert_eq!(group.retry_max_times, 16);
    assert_eq!(group.backoff, Backoff::Steps(vec![SECOND, 5 * SECOND]));
    assert_eq!(group.attributes["lite.bind.topic"], "some-topic");

    let spec = GroupSpec::new(&name).remove_attribute("lite.bind.topic");
    admin.create_group(&spec).await.unwrap();
    let group = admin.group(&name).await.unwrap();
    assert_eq!(
        (group.backoff, group.attributes.len()),
        (Backoff::Default, 0)
    );

    let groups = admin.groups().await.unwrap();
    assert!(groups.iter().any(|it| it.name == name && !it.is_system()));
    assert!(
        groups
            .iter()
            .any(|it| it.name == "TOOLS_CONSUMER" && it.is_system())
    );
    admin.delete_group(&name).await.unwrap();
    assert!(admin.group(&name).await.unwrap_err().is_not_found());
    admin.delete_group(&name).await.unwrap();
}

#[tokio::test]
async fn an_attribute_that_no_broker_knows_is_refused() {
    let spec = GroupSpec::new(unique("refused")).attribute("no.such", "1");
    let error = admin().create_group(&spec).await.unwrap_err();
    assert_eq!(
        (error.request_code(), error.response_code()),
        (Some(200), Some(1))
    );
    assert!(
        error.broker().is_some() && error.to_string().contains("no.such"),
        "{error}"
    );
}
