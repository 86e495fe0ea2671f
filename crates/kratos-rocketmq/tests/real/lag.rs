//! How far a subscription is behind on a real server.

use std::time::Duration;

use kratos::Live;
use kratos_broker::{
    Controls, Delivery, Message, Server, Subscription,
    testing::{Harness, Started, eventually, prime},
};
use kratos_rocketmq::{Client, Config};

use crate::{INVISIBLE, Real, env};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

async fn take(_: Delivery) {}

fn client() -> Client {
    Client::new(Config {
        endpoints: Some(env("ROCKETMQ_ENDPOINTS")),
        admin: Some(env("ROCKETMQ_NAMESRV")),
        lag_interval: Duration::from_secs(1),
        ..Config::default()
    })
    .unwrap()
}

fn lag(controls: &Controls) -> Option<u64> {
    Live::subscriptions(controls).first()?.lag
}

/// What waits on the server is told, and that the subscription is assigned.
#[tokio::test(flavor = "multi_thread")]
async fn lag_and_assignment_are_told() {
    const COUNT: u64 = 40;
    let h = Real::default();
    let (topic, group) = (h.topic("lag").await, h.group("lag").await);
    prime(&h, &topic, &group).await;
    let client = client();
    let of = |group| {
        Subscription::new(&topic, group)
            .invisible_duration(INVISIBLE)
            .prefetch(1)
            .concurrency(1)
    };
    let server = Server::<_, ()>::new(client.clone()).subscribe_with(of(&group), take);
    let controls = server.controls();
    let started = Started::start(server).await;
    eventually("it is assigned", PATIENCE, || {
        Live::subscriptions(&controls)
            .iter()
            .all(|it| it.assigned == Some(true))
    })
    .await;
    eventually("nothing waits", PATIENCE, || lag(&controls) == Some(0)).await;
    assert!(controls.pause(&topic, &group));
    for n in 0..COUNT {
        let message = Message::new(&topic, n.to_string());
        client.publisher().publish(message).await.unwrap();
    }
    // What a poll that was under way has taken is none.
    eventually("it is behind", PATIENCE, || {
        lag(&controls) >= Some(COUNT - 2)
    })
    .await;
    assert!(lag(&controls) <= Some(COUNT));
    assert!(controls.resume(&topic, &group));
    eventually("it is not", PATIENCE, || lag(&controls) == Some(0)).await;
    started.stop(PATIENCE).await.unwrap();

    // A group that is new to a topic with messages begins at its end: in each queue once it has asked
    // for it.
    let late = h.group("lag-late").await;
    let server = Server::<_, ()>::new(client.clone()).subscribe_with(of(&late), take);
    let controls = server.controls();
    let started = Started::start(server).await;
    eventually("nothing waits for it", PATIENCE, || {
        lag(&controls) == Some(0)
    })
    .await;
    started.stop(PATIENCE).await.unwrap();
}
