//! What the broker has for a subscription, and how far it is behind.

use std::time::Duration;

use kratos::{Health, Live, SubscriptionStatus};
use kratos_broker::{Controls, Message, Subscription, testing::Started};
use kratos_rocketmq::{Client, Config, Server};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::site::{GROUP, Gate, Site, TOPIC, eventually};

fn one(controls: &Controls) -> SubscriptionStatus {
    let all = Live::subscriptions(controls);
    let [one] = &*all else { panic!("{all:?}") };
    one.clone()
}

#[tokio::test]
async fn lag_and_assignment_are_in_the_status() {
    let (site, gate) = (Site::new(), Gate::new());
    let server = site.server(&gate);
    let controls = server.controls();
    let started = Started::start(server).await;
    let all = || Live::subscriptions(&controls);
    let assigned = || all().first().is_some_and(|it| it.assigned == Some(true));
    eventually("it is assigned", assigned).await;
    eventually("nothing waits", || one(&controls).lag == Some(0)).await;
    assert!(controls.pause(TOPIC, GROUP));
    // A poll that was under way takes some.
    site.publish(200).await;
    let behind = || {
        let status = one(&controls);
        status.lag.is_some_and(|lag| lag >= 100)
            && status.lag == Some(site.broker.lag(TOPIC, GROUP))
    };
    eventually("it is behind", behind).await;
    assert!(controls.resume(TOPIC, GROUP));
    gate.open.add_permits(200);
    eventually("it is not", || one(&controls).lag == Some(0)).await;
    started.stop(Duration::from_secs(5)).await.unwrap();
    let stopped = one(&controls);
    assert_eq!((stopped.lag, stopped.assigned), (None, None));
}

/// Over TCP, with name servers at `admin`.
async fn behind(admin: String) -> (DevBroker, Client) {
    let broker = DevBroker::builder()
        .listen(([127, 0, 0, 1], 0))
        .topic(TOPIC, TopicType::Normal)
        .group(GROUP, GroupConfig::new())
        .start()
        .await
        .unwrap();
    let config = Config {
        endpoints: Some(broker.addr().unwrap().to_string()),
        admin: Some(admin),
        lag_interval: Duration::from_secs(1),
        ..Config::default()
    };
    (broker, Client::new(config).unwrap())
}

/// A name server that is not there, and one that takes connections and says nothing.
#[tokio::test]
async fn name_servers_that_do_not_answer_leave_the_lag_unknown_and_disturb_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let absent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, gone) = (silent.local_addr().unwrap(), absent.local_addr().unwrap());
    drop(absent);
    for admin in [at, gone] {
        let (broker, client) = behind(admin.to_string()).await;
        let server = Server::<()>::new(client.clone())
            .subscribe_with(Subscription::new(TOPIC, GROUP), || async {});
        let (controls, counters) = (server.controls(), server.counters());
        let started = Started::start(server).await;
        let begin = Instant::now();
        let mut published = 0;
        // Three rounds at one that refuses.
        while begin.elapsed() < Duration::from_millis(3_500) {
            let message = Message::new(TOPIC, "x");
            client.publisher().publish(message).await.unwrap();
            published += 1;
            let status = one(&controls);
            assert_eq!(status.lag, None, "{admin}");
            assert_eq!(started.health(), Health::Serving);
            sleep(Duration::from_millis(100)).await;
        }
        eventually("all are handled", || counters.stats().handled == published).await;
        assert_eq!(one(&controls).assigned, Some(true));
        let begin = Instant::now();
        started.stop(Duration::from_secs(5)).await.unwrap();
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "{:?}",
            begin.elapsed()
        );
        broker.stop().await;
    }
}
