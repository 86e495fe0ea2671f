//! Defects of publishing.

use std::time::Duration;

use futures_util::future::join_all;
use kratos::{App, Resource};
use kratos_broker::{Headers, Message, testing::trace::spans};
use kratos_rocketmq::{Client, Config};
use rocketmq_devbroker::{Code, DevBroker, Rpc, TopicType};
use tokio::time::{Instant, timeout};

use super::{Got, get, running, start, stop};
use crate::site::{GROUP, PATIENCE, Site, TOPIC, within};

#[tokio::test]
async fn v2_3_one_client_publishes_to_several_topics() {
    let site = Site::new();
    let publisher = site.client.publisher();
    for topic in ["a", "b", "c"] {
        site.broker.create_topic(topic, TopicType::Normal).unwrap();
        publisher.publish(Message::new(topic, "x")).await.unwrap();
        assert_eq!(site.broker.messages(topic).len(), 1);
    }
}

#[tokio::test]
async fn v2_5_publishing_goes_on_after_an_outage() {
    let site = Site::new();
    let publisher = site.client.publisher();
    publisher.publish(Message::new(TOPIC, "1")).await.unwrap();
    site.broker.stop().await;
    for _ in 0..2 {
        let refused = publisher.publish(Message::new(TOPIC, "x")).await;
        assert!(refused.unwrap_err().is_transient());
    }
    site.broker.restart().await.unwrap();
    let again = async {
        // The connection may still be in its back-off.
        while publisher.publish(Message::new(TOPIC, "2")).await.is_err() {}
    };
    within(PATIENCE, Box::pin(again)).await;
}

#[tokio::test]
async fn v2_7_a_message_that_is_refused_harms_no_other() {
    let site = Site::new();
    let publisher = site.client.publisher();
    let large = publisher.publish(Message::new(TOPIC, vec![0; 5 * 1024 * 1024]));
    let good = join_all((0..100).map(|n| publisher.publish(Message::new(TOPIC, n.to_string()))));
    let (large, good) = tokio::join!(large, good);
    assert!(large.unwrap_err().is_invalid());
    assert!(good.into_iter().all(|sent| sent.is_ok()));
    assert_eq!(site.broker.messages(TOPIC).len(), 100);
}

#[tokio::test]
async fn v2_8_v5_15_a_publish_ends_when_its_caller_waits_no_longer() {
    let site = Site::new();
    let publisher = site.client.publisher();
    publisher.publish(Message::new(TOPIC, "1")).await.unwrap();
    site.broker.freeze();
    let asked = Instant::now();
    let sent = publisher.publish(Message::new(TOPIC, "2"));
    timeout(Duration::from_millis(50), sent).await.unwrap_err();
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    site.broker.thaw();
    let sent = publisher.publish(Message::new(TOPIC, "3"));
    within(PATIENCE, Box::pin(sent)).await.unwrap();
}

#[tokio::test]
async fn v2_9_the_same_headers_twice_are_two_messages() {
    let site = Site::new();
    let publisher = site.client.publisher();
    let mut headers = Headers::new();
    headers.insert("a", "1");
    let message = || Message::new(TOPIC, "x").headers(headers.clone());
    let first = publisher.publish(message()).await.unwrap();
    let second = publisher.publish(message()).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", "1")]);
}

#[tokio::test]
async fn v2_26_a_closed_client_says_so_and_is_not_made_again() {
    let site = Site::new();
    let publisher = site.client.publisher();
    publisher.publish(Message::new(TOPIC, "x")).await.unwrap();
    let by = Instant::now() + Duration::from_secs(5);
    site.client.clone().close(by).await.unwrap();
    let refused = publisher.publish(Message::new(TOPIC, "x")).await;
    assert!(refused.unwrap_err().is_closed());
    assert!(site.broker.connected_clients().is_empty());
}

#[tokio::test]
async fn v2_27_a_slow_look_up_delays_no_other_topic() {
    let site = Site::new();
    site.broker.create_topic("slow", TopicType::Normal).unwrap();
    let publisher = site.client.publisher();
    publisher.publish(Message::new(TOPIC, "1")).await.unwrap();
    site.broker
        .delay_answers(Rpc::QueryRoute, Duration::from_secs(2));
    let begin = Instant::now();
    let slow = publisher.publish(Message::new("slow", "x"));
    let quick = async {
        publisher.publish(Message::new(TOPIC, "2")).await.unwrap();
        begin.elapsed()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    slow.unwrap();
    assert!(quick < Duration::from_secs(2), "{quick:?}");
}

#[tokio::test]
async fn v2_29_what_was_consumed_can_be_sent_on() {
    let site = Site::new();
    site.broker
        .create_topic("delayed", TopicType::Delay)
        .unwrap();
    let (got, publisher) = (Got::default(), site.client.publisher());
    let client = Client::of(site.broker.clone());
    let server = kratos_rocketmq::Server::new(client.clone())
        .subscribe("delayed", GROUP, get)
        .with_state(got.clone());
    let running = start(App::new().resource(client).server(server)).await;
    let message = Message::new("delayed", "x")
        .tag("a")
        .key("k")
        .header("h", "1");
    publisher
        .publish(message.delay(Duration::from_millis(200)))
        .await
        .unwrap();
    got.reaches(1).await;
    let first = got.all().remove(0);
    let onward = Message::new(TOPIC, first.body().clone()).headers(first.headers().clone());
    let second = publisher.publish(onward).await.unwrap();
    assert_ne!(*first.id(), second.id, "an id of its own");
    let stored = site.broker.messages(TOPIC).remove(0);
    assert_eq!((stored.tag, stored.keys), (None, Vec::new()));
    assert_eq!(stored.properties.get("h").map(String::as_str), Some("1"));
    stop(running).await;
}

#[tokio::test]
async fn v2_34_a_message_that_was_not_flushed_is_no_success() {
    let site = Site::new();
    let codes = [
        Code::MasterPersistenceTimeout,
        Code::SlavePersistenceTimeout,
        Code::HaNotAvailable,
    ];
    for code in codes {
        site.broker.fail_sends_after_storing(100, code);
        let sent = site
            .client
            .publisher()
            .publish(Message::new(TOPIC, "x"))
            .await;
        assert!(sent.unwrap_err().is_transient(), "{code:?}");
        site.broker.clear_faults();
    }
}

#[tokio::test]
async fn v5_13_a_failed_send_ends_its_span_as_an_error() {
    let topic = "v5-13-nobody-made-this";
    let exporter = spans(topic);
    let site = Site::new();
    let publisher = site.client.publisher();
    publisher
        .publish(Message::new(topic, "x"))
        .await
        .unwrap_err();
    let spans = exporter.get_finished_spans().unwrap();
    let span = spans
        .iter()
        .find(|span| span.name == format!("send {topic}"));
    let status = &span.expect("the span has ended").status;
    assert!(
        matches!(status, opentelemetry::trace::Status::Error { .. }),
        "{status:?}"
    );
}

#[tokio::test]
async fn v5_22_many_topics_are_one_client() {
    let site = Site::new();
    let publisher = site.client.publisher();
    for n in 0..50 {
        let topic = format!("topic-{n}");
        site.broker.create_topic(&topic, TopicType::Normal).unwrap();
        publisher.publish(Message::new(topic, "x")).await.unwrap();
    }
    assert_eq!(site.broker.connected_clients().len(), 1);
}

#[tokio::test]
async fn v2_19_v5_16_a_host_name_will_do_and_an_endpoint_that_is_down_is_passed_over() {
    let broker = DevBroker::builder()
        .listen(([127, 0, 0, 1], 0))
        .start()
        .await
        .unwrap();
    let port = broker.addr().unwrap().port();
    for endpoints in [
        format!("localhost:{port}"),
        format!("127.0.0.1:1;127.0.0.1:{port}"),
    ] {
        let config = Config {
            endpoints: Some(endpoints.clone()),
            ..Config::default()
        };
        let publisher = Client::new(config).unwrap().publisher();
        let sent = publisher.publish(Message::new("any", "x"));
        let sent = within(PATIENCE, Box::pin(sent)).await;
        assert!(sent.is_ok(), "{endpoints}: {sent:?}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn al_1_an_error_of_the_server_is_an_error_of_the_publish() {
    let site = Site::new();
    site.broker.fail_sends(100, Code::InternalServerError);
    let sent = site
        .client
        .publisher()
        .publish(Message::new(TOPIC, "x"))
        .await;
    sent.unwrap_err();
    assert!(site.broker.messages(TOPIC).is_empty());
}

#[tokio::test]
async fn al_9_a_message_without_a_topic_is_refused() {
    let site = Site::new();
    let sent = site.client.publisher().publish(Message::new("", "x")).await;
    assert!(sent.unwrap_err().is_invalid());
}

#[tokio::test]
async fn v2_31_two_clients_of_one_process_publish_and_consume() {
    let (site, got) = (Site::new(), Got::default());
    // The first has published before the other starts.
    site.client
        .publisher()
        .publish(Message::new(TOPIC, "0"))
        .await
        .unwrap();
    let running = running(&site, &got).await;
    let ids = site.publish(5).await;
    got.reaches(5).await;
    assert_eq!(ids.len(), 5);
    stop(running).await;
}
