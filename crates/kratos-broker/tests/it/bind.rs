//! What `bind` refuses.

use kratos::{Entry, Server as _};
use kratos_broker::{
    Bytes, Policy, Router, Subscription, driver::Capabilities, memory::Broker,
    testing::start_context,
};

use crate::support::server;

async fn ignore(_: Bytes) {}

async fn refused(broker: &Broker, subscriptions: impl IntoIterator<Item = Subscription>) -> String {
    let subscribe = |router: Router, s| router.subscribe_with(s, ignore);
    let router = subscriptions.into_iter().fold(Router::new(), subscribe);
    server(broker, router)
        .bind(start_context())
        .await
        .expect_err("refused")
        .to_string()
}

fn of(topic: &str, group: &str) -> Subscription {
    Subscription::new(topic, group)
}

#[tokio::test]
async fn duplicate_and_overlapping_subscriptions_are_named() {
    let broker = Broker::new();
    assert_eq!(
        refused(&broker, [of("orders", "billing"), of("orders", "billing")]).await,
        "two subscriptions would get the same message: (topic orders, group billing, filter *) and \
         (topic orders, group billing, filter *); give them other groups, or disjoint tags of \
         topic orders",
    );
    let overlapping = [of("t", "g").tags(["a", "b"]), of("t", "g").tags(["c", "b"])];
    let error = refused(&broker, overlapping).await;
    assert!(
        error.contains("filter a || b) and (topic t, group g, filter b || c)"),
        "{error}"
    );
    let beside = [of("t", "g").tags(["a"]), of("t", "g")];
    assert!(
        refused(&broker, beside)
            .await
            .contains("filter a) and (topic t, group g, filter *)")
    );
}

#[tokio::test]
async fn one_topic_in_two_groups_and_two_topics_in_one_group_are_fine() {
    let router = Router::new()
        .subscribe("a", "g1", ignore)
        .subscribe("a", "g2", ignore)
        .subscribe("b", "g1", ignore);
    let server = server(&Broker::new(), router);
    let described = server.describe();
    assert_eq!(described.kind(), "messages");
    assert_eq!(
        described
            .entries()
            .iter()
            .map(Entry::name)
            .collect::<Vec<_>>(),
        [
            "a in group g1, filter *",
            "a in group g2, filter *",
            "b in group g1, filter *",
        ]
    );
    server.bind(start_context()).await.unwrap();
}

#[tokio::test]
async fn what_the_broker_cannot_do_is_refused() {
    let broker = Broker::new();
    let error = refused(&broker, [of("t", "g").sql("a > 1")]).await;
    assert_eq!(
        error,
        "memory cannot filter by sql: subscription topic t, group g, filter a > 1"
    );
    let poor = Broker::new().with_capabilities(Capabilities::none());
    assert!(
        refused(&poor, [of("t", "g")])
            .await
            .contains("cannot dead-letter messages")
    );
    assert!(
        refused(&broker, [of("t", "g").tags(Vec::<String>::new())])
            .await
            .contains("empty list")
    );
    assert!(
        refused(&broker, [of("", "g")])
            .await
            .contains("without a name")
    );
}

#[tokio::test]
async fn more_attempts_than_the_broker_gives_are_refused_if_somebody_asked_for_them() {
    let broker = Broker::new().max_attempts(3);
    let asked = of("t", "g").policy(Policy::new().max_attempts(5));
    assert_eq!(
        refused(&broker, [of("t", "other"), asked]).await,
        "subscription topic t, group g, filter *: its policy asks for 5 attempts, the group has 3 \
         on memory: lower max_attempts, or raise the group's limit there"
    );
    for fine in [
        of("t", "g"),
        of("t", "g").policy(Policy::new().max_attempts(3)),
        of("t", "g").ordered_policy(Policy::ordered().max_attempts(9)),
    ] {
        let router = Router::new().subscribe_with(fine, ignore);
        server(&broker, router).bind(start_context()).await.unwrap();
    }
}

#[tokio::test]
async fn times_in_which_nothing_can_be_handled_are_refused() {
    let broker = Broker::new();
    let never = std::time::Duration::ZERO;
    for (subscription, what) in [
        (of("t", "g").invisible_duration(never), "invisible_duration"),
        (of("t", "g").max_hold(never), "max_hold"),
        (of("t", "g").handler_timeout(never), "handler_timeout"),
    ] {
        let error = refused(&broker, [subscription]).await;
        assert!(error.contains(what), "{error}");
    }
}

#[tokio::test]
async fn a_rate_limit_over_no_time_is_refused() {
    let limit = kratos_broker::RateLimit::per(5, std::time::Duration::ZERO);
    let error = refused(&Broker::new(), [of("t", "g").rate_limit(limit)]).await;
    assert!(error.contains("over a time of 0 limits nothing"), "{error}");
}
