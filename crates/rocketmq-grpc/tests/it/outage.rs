//! What a client does while servers are away, and how soon it is back.

use std::time::Duration;

use rocketmq_grpc::{Message, Producer, ProducerConfig, Settlement};
use rocketmq_proto::v2::{self as pb, Code};
use tokio::{task::JoinSet, time::Instant};
use tonic::Status;

use crate::fake::{
    Fake, Item, TOPIC, consumer_config, eventually, message, messages, route, status,
};

const MINUTE: Duration = Duration::from_secs(60);

async fn producer(fake: &Fake) -> Producer {
    let config = ProducerConfig::new().topic(TOPIC);
    fake.client().producer(config).await.unwrap()
}

async fn send(producer: &Producer) -> Result<(), rocketmq_grpc::Error> {
    producer.send(Message::new(TOPIC, "x")).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_a_consumer_is_back_within_seconds() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    fake.link.refuse(true);
    fake.link.cut();
    tokio::time::sleep(10 * MINUTE).await;
    fake.link.refuse(false);
    let start = Instant::now();
    eventually("the session", || consumer.is_connected()).await;
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_session_is_asked_ever_more_rarely() {
    let fake = Fake::start();
    let _consumer = fake.consumer().await;
    let start = Instant::now();
    while start.elapsed() < 2 * MINUTE {
        tokio::time::sleep(Duration::from_millis(10)).await;
        fake.break_telemetry();
    }
    let streams = fake.calls("telemetry");
    assert!((20..90).contains(&streams), "{streams} in two minutes");
}

/// All servers at these hosts go and come back; each has a broker of its own name.
async fn a_send_outlasts_a_restart_of(hosts: &[&str]) {
    let fake = Fake::start();
    let mut several = route(Code::Ok, hosts).unwrap();
    for (n, queue) in several.message_queues.iter_mut().enumerate() {
        queue.broker.as_mut().unwrap().name = format!("broker-{n}");
    }
    fake.state().backoff_ms = Some(10);
    fake.state().routes = [Ok(several)].into();
    let producer = producer(&fake).await;
    fake.link.refuse(true);
    fake.link.cut();
    let sending = tokio::spawn(async move { send(&producer).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.link.refuse(false);
    sending.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_send_outlasts_a_restart_of_a_few_seconds() {
    a_send_outlasts_a_restart_of(&["fake"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_send_outlasts_a_restart_of_a_proxy_before_several_brokers() {
    a_send_outlasts_a_restart_of(&["fake"; 3]).await;
}

#[tokio::test(start_paused = true)]
async fn a_send_outlasts_a_moment_in_which_no_broker_can_be_reached() {
    a_send_outlasts_a_restart_of(&["a", "b"]).await;
    a_send_outlasts_a_restart_of(&["a", "b", "c", "d"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_cannot_make_a_send_wait_for_hours() {
    let fake = Fake::start();
    fake.state().backoff_ms = Some(2 * 3600 * 1000);
    let producer = producer(&fake).await;
    fake.state().sends = [Err(Status::unavailable("busy"))].into();
    let start = Instant::now();
    send(&producer).await.unwrap();
    let took = start.elapsed();
    assert!(took < MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn senders_that_wait_for_one_route_hear_of_its_failure_together() {
    let fake = Fake::start();
    let producer = fake.client().producer(ProducerConfig::new()).await.unwrap();
    fake.state().delay = Duration::from_secs(3600);
    let start = Instant::now();
    let mut sends = JoinSet::new();
    for n in 0..50 {
        let (producer, topic) = (producer.clone(), format!("t{}", n % 5));
        sends.spawn(async move { producer.send(Message::new(topic, "x")).await });
    }
    while let Some(sent) = sends.join_next().await {
        assert!(sent.unwrap().unwrap_err().is_timeout());
    }
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(fake.calls("route"), 5, "one for each topic");
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_brokers_are_away_is_a_failure_that_passes() {
    let fake = Fake::start();
    fake.state().routes = [route(Code::Ok, &[])].into();
    let producer = fake.client().producer(ProducerConfig::new()).await.unwrap();
    let error = send(&producer).await.unwrap_err();
    assert!(
        error.is_retryable() && !error.is_invalid() && !error.may_be_stored(),
        "{error:?}"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    send(&producer).await.unwrap();

    fake.state().routes = [route(Code::Ok, &[])].into();
    let error = fake.client().consumer(consumer_config()).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_invalid(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn brokers_that_leave_the_route_and_come_back_are_used_again_within_seconds() {
    let fake = Fake::start();
    let (producer, consumer) = (producer(&fake).await, fake.consumer().await);
    let away = || (0..10_000).map(|_| route(Code::Ok, &[]));
    fake.state().routes = away().collect();
    let waiting = tokio::time::timeout(5 * MINUTE, consumer.receive(TOPIC, 1));
    assert!(waiting.await.is_err());
    send(&producer).await.unwrap_err();
    fake.state().routes.clear();
    fake.push(messages(0..1));
    let start = Instant::now();
    consumer.receive(TOPIC, 1).await.unwrap();
    send(&producer).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_a_restarted_server_does_not_know_yet_stays_routed() {
    let fake = Fake::start();
    let producer = producer(&fake).await;
    fake.state().routes = [route(Code::TopicNotFound, &[])].into();
    let before = fake.calls("route");
    eventually("a refresh", || fake.calls("route") > before).await;
    send(&producer).await.unwrap();
    assert_eq!(fake.calls("route"), before + 1, "from the cache");
}

#[tokio::test(start_paused = true)]
async fn topics_that_never_existed_are_forgotten() {
    let fake = Fake::start();
    let producer = fake.client().producer(ProducerConfig::new()).await.unwrap();
    for n in 0..100 {
        let message = Message::new(format!("missing{n}"), "x");
        producer.send(message).await.unwrap_err();
    }
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(fake.calls("route"), 100, "none of them is refreshed");
}

#[tokio::test(start_paused = true)]
async fn one_dead_broker_does_not_keep_the_others_from_work() {
    let fake = Fake::start();
    fake.state().brokers = vec!["dead", "alive"];
    fake.link.refuse_host("dead");
    let producer = producer(&fake).await;
    for _ in 0..4 {
        send(&producer).await.unwrap();
    }
    let consumer = fake.consumer().await;
    assert!(!consumer.is_connected());
    fake.push(messages(0..1));
    consumer.receive(TOPIC, 8).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_without_messages_that_come_at_once_are_not_asked_for_in_a_hot_loop() {
    for empty in [
        vec![Item::Status(Code::MessageNotFound)],
        vec![Item::Status(Code::Ok)],
        vec![Item::Break(Status::deadline_exceeded("at once"))],
    ] {
        let fake = Fake::start();
        let consumer = fake.consumer().await;
        fake.state().receives = (0..100_000).map(|_| empty.clone()).collect();
        let waiting = consumer.receive(TOPIC, 32);
        let silence = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        assert!(silence.is_err(), "{silence:?}");
        let asked = fake.calls("receive");
        assert!((5..60).contains(&asked), "{asked} in ten seconds");
        fake.state().receives.clear();
        fake.push(vec![message("1")]);
        consumer.receive(TOPIC, 1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_left_the_routes_are_disconnected_from() {
    let fake = Fake::start();
    fake.state().brokers = vec!["before"];
    let consumer = fake.consumer().await;
    fake.push(messages(0..1));
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    consumer.settle(lease, Settlement::Ack);
    assert_eq!(consumer.settled().await.len(), 1);
    for moved in ["after", "last"] {
        fake.state().brokers = vec![moved];
        tokio::time::sleep(15 * MINUTE).await;
        fake.push(messages(0..1));
        let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
        assert_eq!(lease.endpoints().to_string(), format!("{moved}:1"));
        consumer.ack(lease).await.unwrap();
        assert_eq!(fake.link.open(), 2, "access point and broker");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passed_unheard_is_not_told_later() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let waiting = consumer.receive(TOPIC, 1);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .is_err()
    );
    fake.push(vec![Item::Status(Code::Forbidden)]);
    tokio::time::sleep(5 * MINUTE).await;
    fake.push(vec![Item::Pause(Duration::from_secs(1)), message("1")]);
    assert_eq!(consumer.receive(TOPIC, 1).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_with_another_type_is_looked_up_again_at_once() {
    let fake = Fake::start();
    let mut before = route(Code::Ok, &["fake"]).unwrap();
    before.message_queues[0].accept_message_types = vec![pb::MessageType::Fifo.into()];
    fake.state().routes = [Ok(before)].into();
    let producer = producer(&fake).await;
    let error = send(&producer).await.unwrap_err();
    assert!(error.is_wrong_topic_type(), "{error:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    send(&producer).await.unwrap();

    // The server may know it first.
    for code in [Code::MessagePropertyConflictWithType, Code::TopicNotFound] {
        let refused = pb::SendMessageResponse {
            status: status(code),
            entries: vec![],
        };
        fake.state().sends = [Ok(refused)].into();
        let asked = fake.calls("route");
        send(&producer).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(2)).await;
        send(&producer).await.unwrap();
        assert_eq!(fake.calls("route"), asked + 1, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_names_no_type_leaves_the_check_to_the_server() {
    let fake = Fake::start();
    let mut untyped = route(Code::Ok, &["fake"]).unwrap();
    untyped.message_queues[0].accept_message_types = vec![pb::MessageType::Unspecified.into()];
    fake.state().routes = [Ok(untyped)].into();
    send(&producer(&fake).await).await.unwrap();
}

/// The real proxy says GOAWAY and keeps the streams of the old connection for half a minute.
#[tokio::test(start_paused = true)]
async fn the_session_follows_to_the_new_connection_when_the_old_one_is_drained() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    let drained_at = Instant::now();
    fake.drain();
    eventually("the settings", || fake.state().seen.settings.len() == 2).await;
    assert!(
        drained_at.elapsed() < Duration::from_secs(15),
        "{:?}",
        drained_at.elapsed()
    );
    eventually("the session", || consumer.is_connected()).await;
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(fake.calls("telemetry"), 2, "and stays there");
}

#[tokio::test(start_paused = true)]
async fn a_session_on_a_drained_connection_is_not_up_while_there_is_no_other() {
    let fake = Fake::start();
    fake.state().backoff_ms = Some(10);
    let producer = producer(&fake).await;
    fake.link.refuse(true);
    fake.drain();
    let start = Instant::now();
    let error = send(&producer).await.unwrap_err();
    assert!(error.is_disconnected(), "{error:?}");
    assert!(start.elapsed() > Duration::from_secs(1), "no hot loop");
    assert!(!producer.is_connected());
}

#[tokio::test(start_paused = true)]
async fn throttling_by_status_or_by_grpc_slows_down_and_loses_nothing() {
    let by_grpc = || Status::resource_exhausted("flow limit");
    let fake = Fake::start();
    fake.state().backoff_ms = Some(100);
    let producer = producer(&fake).await;
    let by_status = pb::SendMessageResponse {
        status: status(Code::TooManyRequests),
        entries: vec![],
    };
    fake.state().sends = [Ok(by_status), Err(by_grpc())].into();
    let start = Instant::now();
    send(&producer).await.unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "a pause each"
    );
    fake.state().sends = (0..3).map(|_| Err(by_grpc())).collect();
    let error = producer.send(Message::new(TOPIC, "x")).await.unwrap_err();
    assert!(error.is_throttled() && !error.may_be_stored(), "{error:?}");

    let consumer = fake.consumer().await;
    let before = fake.calls("receive");
    for _ in 0..5 {
        fake.push(vec![Item::Status(Code::TooManyRequests)]);
        fake.push(vec![Item::Break(by_grpc())]);
    }
    fake.push(messages(0..1));
    let start = Instant::now();
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    assert_eq!(fake.calls("receive") - before, 11);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );

    let throttled = pb::AckMessageResponse {
        status: status(Code::TooManyRequests),
        entries: vec![],
    };
    fake.state().acks = [Err(by_grpc()), Ok(throttled)].into();
    consumer.ack(lease).await.unwrap();
    assert_eq!(fake.calls("ack"), 3);
    fake.state().heartbeats = (0..10).map(|_| Err(by_grpc())).collect();
    tokio::time::sleep(5 * MINUTE).await;
    assert!(consumer.is_connected() && fake.link.connections() <= 2);
}

/// After a restart the server knows no settings; some versions say so with an internal error.
#[tokio::test(start_paused = true)]
async fn a_receive_that_meets_a_server_without_memory_goes_on_after_the_settings() {
    let fake = Fake::start();
    let consumer = fake.consumer().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    fake.push(vec![Item::Status(Code::UnrecognizedClientType)]);
    fake.push(vec![Item::Status(Code::InternalServerError)]);
    fake.push(messages(0..1));
    let start = Instant::now();
    let lease = consumer.receive(TOPIC, 1).await.unwrap().remove(0);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    consumer.ack(lease).await.unwrap();
    assert!(fake.state().seen.settings.len() >= 2, "sent again");
    assert_eq!(fake.calls("telemetry"), 1, "on the same stream");
}

#[tokio::test(start_paused = true)]
async fn settings_that_the_server_pushes_are_obeyed_from_then_on() {
    use pb::{settings::PubSub, telemetry_command::Command};
    let fake = Fake::start();
    let (producer, consumer) = (producer(&fake).await, fake.consumer().await);
    let push = |pub_sub| {
        fake.command(&Command::Settings(pb::Settings {
            pub_sub: Some(pub_sub),
            metric: Some(pb::Metric {
                on: true,
                endpoints: Some(pb::Endpoints {
                    scheme: pb::AddressScheme::DomainName.into(),
                    addresses: vec![pb::Address {
                        host: "otel".to_owned(),
                        port: 4317,
                    }],
                }),
            }),
            ..Default::default()
        }));
    };
    push(PubSub::Publishing(pb::Publishing {
        max_body_size: 3,
        validate_message_type: false,
        ..Default::default()
    }));
    eventually("the limit", || producer.settings().max_body_size == 3).await;
    let error = producer
        .send(Message::new(TOPIC, "1234"))
        .await
        .unwrap_err();
    assert!(error.is_invalid(), "{error:?}");
    send(&producer).await.unwrap();
    let metrics = producer.settings().metrics_endpoints.unwrap();
    assert_eq!(metrics.to_string(), "otel:4317");

    push(PubSub::Subscription(pb::Subscription {
        receive_batch_size: Some(4),
        long_polling_timeout: Some(prost_types::Duration {
            seconds: 7,
            nanos: 0,
        }),
        ..Default::default()
    }));
    eventually("the batch", || consumer.settings().receive_batch_size == 4).await;
    fake.push(messages(0..1));
    consumer.receive(TOPIC, 32).await.unwrap();
    fake.push(messages(1..2));
    consumer.receive(TOPIC, 32).await.unwrap();
    let state = fake.state();
    let last = state.seen.receives.last().unwrap();
    assert_eq!(last.batch_size, 4);
    assert_eq!(last.long_polling_timeout.as_ref().unwrap().seconds, 7);
}
