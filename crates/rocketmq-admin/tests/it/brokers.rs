//! What name servers and brokers answer, and what becomes of it.

use std::time::Duration;

use rocketmq_admin::{Admin, Config, GroupSpec, Position, TopicSpec};
use serde_json::json;

use crate::fake::{Act, Fake, LONG, SHORT, cluster};

fn ok() -> Act {
    Act::Body(String::new())
}

#[tokio::test]
async fn a_topic_is_created_at_every_master() {
    let (a, b) = (
        Fake::start(|_, _| ok()).await,
        Fake::start(|_, _| ok()).await,
    );
    let names = Fake::name_server(&[("a", &a), ("b", &b)]).await;
    names
        .admin()
        .create_topic(&TopicSpec::new("t").queues(2))
        .await
        .unwrap();
    for broker in [&a, &b] {
        let [asked] = &broker.asked()[..] else {
            panic!("one request")
        };
        assert_eq!((asked.code, asked.fields["topic"].as_str()), (17, "t"));
        assert_eq!(asked.fields["readQueueNums"], "2");
        assert_eq!(asked.fields["attributes"], "+message.type=NORMAL");
    }
}

#[tokio::test]
async fn one_failing_broker_is_named_and_the_others_do_their_part() {
    let good = Fake::start(|_, _| ok()).await;
    let bad = Fake::start(|_, _| Act::Refuse(1, "disk full\nstack trace")).await;
    let names = Fake::name_server(&[("bad", &bad), ("good", &good)]).await;
    let error = names
        .admin()
        .create_group(&GroupSpec::new("g"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.broker(), error.address()),
        (Some("bad"), Some(bad.address()))
    );
    assert_eq!(
        (error.request_code(), error.response_code()),
        (Some(200), Some(1))
    );
    assert_eq!(
        (error.remark(), error.done()),
        (Some("disk full\nstack trace"), &["good".to_owned()][..])
    );
    let text = error.to_string();
    assert!(
        text.contains("create group g") && text.contains("disk full"),
        "{text}"
    );
    assert!(
        text.ends_with("done at good") && !text.contains("stack trace"),
        "{text}"
    );
    assert_eq!(good.asked().len(), 1);
}

#[tokio::test]
async fn a_dead_broker_is_named() {
    let good = Fake::start(|_, _| ok()).await;
    let dead = Fake::start(|_, _| ok()).await;
    let names = Fake::name_server(&[("dead", &dead), ("good", &good)]).await;
    drop(dead);
    let error = names.admin().delete_topic("t").await.unwrap_err();
    assert!(error.is_disconnected() && error.is_retryable(), "{error}");
    assert_eq!(error.broker(), Some("dead"));
    // Name servers keep a topic that a broker would register again.
    assert!(names.asked().iter().all(|it| it.code != 216));
}

#[tokio::test]
async fn codes_are_answers_to_questions() {
    for (code, remark, retryable, not_found, invalid, denied, unsupported) in [
        (1, "x", false, false, false, false, false),
        (1, "AclException: no", false, false, false, true, false),
        (2, "[REJECTREQUEST]", true, false, false, false, false),
        (3, "not supported", false, false, false, false, true),
        (14, "slave", true, false, false, false, false),
        (16, "no", false, false, false, true, false),
        (17, "no topic", false, true, false, false, false),
        (26, "no group", false, true, false, false, false),
        (29, "bad", false, false, true, false, false),
        (1500, "go away", true, false, false, false, false),
        (9999, "?", false, false, false, false, false),
    ] {
        let broker = Fake::start(move |_, _| Act::Refuse(code, remark)).await;
        let names = Fake::name_server(&[("a", &broker)]).await;
        let error = names
            .admin()
            .create_topic(&TopicSpec::new("t"))
            .await
            .unwrap_err();
        assert_eq!(error.response_code(), Some(code));
        assert_eq!(error.is_retryable(), retryable, "{error}");
        assert_eq!(error.is_not_found(), not_found, "{error}");
        assert_eq!(error.is_invalid(), invalid, "{error}");
        assert_eq!(error.is_permission_denied(), denied, "{error}");
        assert_eq!(error.is_unsupported(), unsupported, "{error}");
    }
}

#[tokio::test]
async fn no_broker_is_an_error_that_passes() {
    let names = Fake::name_server(&[]).await;
    let error = names.admin().topics().await.unwrap_err();
    assert!(error.is_retryable() && !error.is_disconnected(), "{error}");
    let broker = Fake::start(|_, _| ok()).await;
    let names = Fake::name_server(&[("a", &broker)]).await;
    let config = Config::new(names.address()).cluster("other");
    let error = Admin::new(config).unwrap().groups().await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("other"),
        "{error}"
    );
}

#[tokio::test]
async fn a_bad_spec_sends_nothing() {
    let names = Fake::name_server(&[]).await;
    let admin = names.admin();
    assert!(
        admin
            .create_topic(&TopicSpec::new("a.b"))
            .await
            .unwrap_err()
            .is_invalid()
    );
    assert!(
        admin
            .create_group(&GroupSpec::new(""))
            .await
            .unwrap_err()
            .is_invalid()
    );
    assert!(admin.lag("a b").await.unwrap_err().is_invalid());
    assert!(admin.delete_topic("é").await.unwrap_err().is_invalid());
    assert_eq!(names.connections(), 0);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let broker = Fake::start({
        let pages = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        move |code, _| {
            assert_eq!(code, 201);
            let page = pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let table = match page {
                0 => json!({"a": {"retryMaxTimes": 1}, "b": {}}),
                _ => json!({"c": {"groupRetryPolicy": {"type": "CUSTOMIZED"}}}),
            };
            let body = json!({"subscriptionGroupTable": table});
            Act::Fields(json!({"totalGroupNum": "3"}), body.to_string())
        }
    })
    .await;
    let names = Fake::name_server(&[("x", &broker)]).await;
    let groups = names.admin().groups().await.unwrap();
    let found: Vec<_> = groups.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(found, ["a", "b", "c"]);
    let starts: Vec<_> = broker
        .asked()
        .iter()
        .map(|it| it.fields["groupSeq"].clone())
        .collect();
    assert_eq!(starts, ["0", "2"]);
}

#[tokio::test]
async fn a_list_that_never_ends_does() {
    // It always announces more, and sends the same again.
    let broker = Fake::start(|_, _| {
        let body = json!({"topicConfigTable": {"a": {}}});
        Act::Fields(json!({"totalTopicNum": "1000000"}), body.to_string())
    })
    .await;
    let names = Fake::name_server(&[("x", &broker)]).await;
    let error = names.admin().topics().await.unwrap_err();
    assert!(error.to_string().contains("pages"), "{error}");
}

#[tokio::test]
async fn brokers_that_differ_are_told() {
    let list = |queues: u32| {
        let body = json!({"topicConfigTable": {"t": {"readQueueNums": queues, "perm": 6}}});
        move |_, _| Act::Body(body.to_string())
    };
    let (a, b, c) = (
        Fake::start(list(4)).await,
        Fake::start(list(8)).await,
        Fake::start(list(4)).await,
    );
    let names = Fake::name_server(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let topics = names.admin().topics().await.unwrap();
    assert_eq!(topics[0].brokers, ["a", "b", "c"]);
    assert_eq!(topics[0].different_at, ["b"]);
}

fn offsets(broker: &str, topic: &str, lag: i64) -> String {
    format!(
        r#"{{"consumeTps":0.0,"offsetTable":{{{{"brokerName":"{broker}","queueId":0,"topic":"{topic}"}}:{{"brokerOffset":{lag},"consumerOffset":-1,"lastTimestamp":0,"pullOffset":0}}}}}}"#
    )
}

#[tokio::test]
async fn lag_is_summed_over_brokers() {
    let group = json!({"subscriptionGroupTable": {"g": {}}}).to_string();
    let script = |broker: &'static str, lag: i64| {
        let group = group.clone();
        move |code, _| match code {
            201 => Act::Body(group.clone()),
            208 => Act::Body(offsets(broker, "t", lag)),
            _ => Act::Refuse(3, "not supported"),
        }
    };
    let (a, b) = (
        Fake::start(script("a", 5)).await,
        Fake::start(script("b", 7)).await,
    );
    let names = Fake::name_server(&[("a", &a), ("b", &b)]).await;
    let admin = names.admin();
    let lag = admin.lag("g").await.unwrap();
    assert_eq!(
        (lag.total(), lag.by_topic()["t"], lag.queues.len()),
        (12, 12, 2)
    );
    // An offset of -1 is none.
    assert!(
        lag.queues
            .iter()
            .all(|it| it.consumer_offset == 0 && it.consumed_until.is_none())
    );
    assert_eq!(admin.lag_of_topic("g", "t").await.unwrap().total(), 12);
    assert!(admin.lag("h").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_group_is_given_a_place_only_at_brokers_where_it_has_none() {
    let script = |broker: &'static str, topics: serde_json::Value| {
        move |code, _| match code {
            343 => Act::Body(json!({"topicList": topics}).to_string()),
            222 => {
                let key = format!(r#"{{"brokerName":"{broker}","queueId":1,"topic":"t"}}"#);
                Act::Body(format!(r#"{{"offsetTable":{{{key}:0}}}}"#))
            }
            _ => Act::Refuse(3, "not supported"),
        }
    };
    let (known, new) = (
        Fake::start(script("known", json!(["s", "t"]))).await,
        Fake::start(script("new", json!(["s"]))).await,
    );
    let names = Fake::name_server(&[("known", &known), ("new", &new)]).await;
    let admin = names.admin();
    let set = admin.init_offset("g", "t", Position::Start).await.unwrap();
    let brokers: Vec<_> = set.keys().map(|queue| queue.broker.as_str()).collect();
    assert_eq!(brokers, ["new"]);
    assert!(known.asked().iter().all(|it| it.code != 222));
    assert_eq!(new.asked().last().unwrap().fields["timestamp"], "0");
    assert!(
        admin
            .init_offset("a b", "t", Position::End)
            .await
            .unwrap_err()
            .is_invalid()
    );
}

#[tokio::test]
async fn a_reset_says_when_and_answers_offsets() {
    let broker = Fake::start(|_, _| {
        let key = r#"{"brokerName":"a","queueId":1,"topic":"t"}"#;
        Act::Body(format!(r#"{{"offsetTable":{{{key}:42}}}}"#))
    })
    .await;
    let names = Fake::name_server(&[("a", &broker)]).await;
    let admin = names.admin();
    let at = std::time::UNIX_EPOCH + Duration::from_millis(1234);
    for to in [Position::Start, Position::End, Position::Time(at)] {
        let offsets = admin.reset_offset("g", "t", to).await.unwrap();
        let [(queue, 42)] = &offsets.iter().map(|(q, o)| (q, *o)).collect::<Vec<_>>()[..] else {
            panic!("{offsets:?}")
        };
        assert_eq!((queue.broker.as_str(), queue.id), ("a", 1));
    }
    let times: Vec<_> = broker
        .asked()
        .iter()
        .map(|it| it.fields["timestamp"].clone())
        .collect();
    assert_eq!(times, ["0", "-1", "1234"]);
}

#[tokio::test]
async fn the_retries_of_another_group_are_not_deleted() {
    // `%RETRY%a_b` may belong to topic `b` in group `a`, or to group `a_b`.
    let broker = Fake::start(|code, _| match code {
        201 => Act::Body(json!({"subscriptionGroupTable": {"a": {}, "a_b": {}}}).to_string()),
        21 => {
            let names = [
                "b",
                "c",
                "%RETRY%a",
                "%RETRY%a_b",
                "%RETRY%a_c",
                "%RETRY%a+b",
                "%DLQ%a",
            ];
            let table: serde_json::Map<_, _> = names
                .iter()
                .map(|it| ((*it).to_owned(), json!({})))
                .collect();
            Act::Body(json!({ "topicConfigTable": table }).to_string())
        }
        343 => Act::Body(json!({"topicList": ["b", "c", "%RETRY%a_c"]}).to_string()),
        _ => ok(),
    })
    .await;
    let names = Fake::name_server(&[("x", &broker)]).await;
    names.admin().delete_group("a").await.unwrap();
    let asked = broker.asked();
    let deleted: Vec<_> = asked
        .iter()
        .filter(|it| it.code == 215)
        .map(|it| it.fields["topic"].as_str())
        .collect();
    assert_eq!(deleted, ["%RETRY%a", "%RETRY%a+b", "%RETRY%a_c"]);
    let group = asked.iter().find(|it| it.code == 207).unwrap();
    assert_eq!(
        (
            group.fields["groupName"].as_str(),
            group.fields["cleanOffset"].as_str()
        ),
        ("a", "true")
    );
    assert!(group.body.is_empty());
}

#[tokio::test]
async fn a_topic_is_waited_for_at_every_name_server() {
    let broker = Fake::start(|_, _| ok()).await;
    let first = Fake::name_server(&[("a", &broker)]).await;
    let late = Fake::start({
        let times = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let cluster = cluster(&[]);
        move |code, _| match code {
            105 if times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 3 => {
                Act::Refuse(17, "No topic route info")
            }
            105 => Act::Body(json!({"brokerDatas": [{"brokerName": "a"}]}).to_string()),
            _ => Act::Body(cluster.clone()),
        }
    })
    .await;
    // One that is down does not matter.
    let list = format!("127.0.0.1:1;{};{}", first.address(), late.address());
    let admin = Admin::new(list).unwrap();
    let route = admin.wait_for_topic("t", LONG).await.unwrap();
    assert_eq!(route.brokers[0].broker, "a");
    assert_eq!(late.asked().len(), 4);

    let none = Admin::new("127.0.0.1:1").unwrap();
    let error = none.wait_for_topic("t", SHORT).await.unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("wait for topic t"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broker_without_a_version_is_listed() {
    let good = Fake::start(|_, _| {
        Act::Body(json!({"table": {"brokerVersionDesc": "V4_9_7"}}).to_string())
    })
    .await;
    let silent = Fake::start(|_, _| Act::Silence).await;
    let names = Fake::name_server(&[("good", &good), ("silent", &silent)]).await;
    let brokers = names.admin_within(SHORT).cluster().await.unwrap();
    let found: Vec<_> = brokers
        .iter()
        .map(|it| (it.name.as_str(), it.version.as_deref()))
        .collect();
    assert_eq!(found, [("good", Some("V4_9_7")), ("silent", None)]);
    assert_eq!(brokers[0].master(), Some(good.address()));
    assert_eq!(brokers[0].addresses[&1], "127.0.0.1:1");
}
