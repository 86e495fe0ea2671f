//! What is asked before a start, of a real server.

use kratos::{Check, Finding, Resource as _, Server as _};
use kratos_broker::{
    Bytes, Subscription,
    testing::{Harness, TopicKind},
};
use kratos_rocketmq::{Client, Server};

use crate::{Real, name};

async fn ignore(_: Bytes) {}

async fn asked(check: &Check) -> Result<String, String> {
    let answer = check.ask().await;
    answer.map_err(|Finding { wrong, remedy, .. }| format!("{wrong} / {remedy}"))
}

async fn group(client: &Client, subscription: Subscription) -> Result<String, String> {
    let server = Server::new(client.clone()).subscribe_with(subscription, ignore);
    asked(&server.describe().checks()[0]).await
}

async fn topic(client: Client, topic: &str) -> Result<String, String> {
    let described = client.publishes([topic]).describe();
    let checks = described.checks();
    assert!(asked(&checks[0]).await.is_ok(), "it answers");
    asked(&checks[1]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_what_is_missing_or_of_another_kind() {
    let h = Real::default();
    let client = h.driver().await;
    let (absent, orders) = (name("absent"), h.topic("checked").await);

    let wrong = topic(h.driver().await, &absent).await.unwrap_err();
    let make = format!("create it: rocketmq-admin topic create {absent}:NORMAL");
    assert!(wrong.contains(&make), "{wrong}");
    let wrong = group(&client, Subscription::new(absent.as_str(), "nobody"))
        .await
        .unwrap_err();
    assert!(wrong.contains(&make), "{wrong}");
    assert_eq!(
        topic(h.driver().await, &orders).await.as_deref(),
        Ok("NORMAL")
    );
    let payments = h
        .special_topic(TopicKind::Transactional, "checked")
        .await
        .unwrap();
    let wrong = topic(h.driver().await, &payments).await.unwrap_err();
    assert!(wrong.contains("takes TRANSACTION messages"), "{wrong}");

    let missing = name("missing");
    let wrong = group(&client, Subscription::new(&orders, missing.as_str()))
        .await
        .unwrap_err();
    let make = format!("create it: rocketmq-admin group create {missing}");
    assert!(wrong.contains(&make), "{wrong}");
    let there = h.group("checked").await;
    // Twice: it has left the group again.
    for _ in 0..2 {
        let answer = group(&client, Subscription::new(&orders, &there)).await;
        assert_eq!(answer.as_deref(), Ok("17 attempts"));
    }
    let wrong = group(&client, Subscription::new(&orders, &there).fifo())
        .await
        .unwrap_err();
    assert!(wrong.contains("does not consume in order"), "{wrong}");
}
