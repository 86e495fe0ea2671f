//! The whole App in a test: `TestApp` on the memory driver.

use std::time::Duration;

use kratos::App;
use kratos_broker::{
    AnyError, Attempt, Bytes, Delivery, Message, Publisher, Server, State, memory::Broker,
    testing::TestApp,
};
use tokio::time::sleep;

use crate::support::{Log, secs, subscription};

/// An App with one subscription of topic `t` by group `g`.
async fn start<T>(
    broker: &Broker,
    handler: impl kratos_broker::IntoRoute<T, (), tower_layer::Identity>,
) -> TestApp<Broker> {
    let server = Server::new(broker.clone()).subscribe_with(subscription(), handler);
    TestApp::start(broker, App::new().server(server)).await
}

fn attempts(app: &TestApp<Broker>) -> Vec<u32> {
    app.attempts("g").iter().map(Delivery::attempt).collect()
}

#[tokio::test(start_paused = true)]
async fn settle_waits_for_retries_and_what_handlers_publish() {
    async fn pass_on(
        State(publisher): State<Publisher<Broker>>,
        Attempt(attempt): Attempt,
        body: Bytes,
    ) -> Result<(), AnyError> {
        if attempt < 5 {
            return Err(AnyError::msg("not yet"));
        }
        publisher.publish(Message::new("next", body)).await?;
        Ok(())
    }
    let broker = Broker::new().watched();
    let server = Server::new(broker.clone())
        .subscribe("t", "g", pass_on)
        .subscribe("next", "last", |_: State<Publisher<Broker>>| sleep(secs(3)))
        .with_state(Publisher::new(broker.clone()));
    let app = TestApp::start(&broker, App::new().server(server)).await;
    app.publish(Message::new("t", "x")).await;
    app.settle().await;
    assert_eq!(attempts(&app), [1, 2, 3, 4, 5]);
    assert_eq!(app.published("next")[0].body(), "x");
    assert_eq!(app.consumed("last")[0].id(), app.published("next")[0].id());
    app.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_a_dead_letter_and_settled() {
    let broker = Broker::new().watched();
    let app = start(&broker, |_: Bytes| async {
        Err::<(), _>(AnyError::msg("never"))
    })
    .await;
    app.publish(Message::new("t", "x")).await;
    app.settle().await;
    assert_eq!(app.dead_letters("g").len(), 1);
    assert!(app.consumed("g").is_empty());
    assert_eq!(attempts(&app).len(), 16);
    app.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_counts_from_its_time() {
    let broker = Broker::new().watched();
    let app = start(&broker, |_: Bytes| async {}).await;
    app.publish(Message::new("t", "x").delay(secs(3600))).await;
    let back = app
        .publisher()
        .publish(Message::new("t", "back").delay(secs(60)))
        .await;
    app.publisher()
        .recall(&back.unwrap().recall.unwrap())
        .await
        .unwrap();
    app.settle().await;
    assert!(app.consumed("g").is_empty());
    sleep(secs(3600)).await;
    app.settle().await;
    assert_eq!(app.consumed("g").len(), 1);
    app.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_acknowledgement_brings_the_message_again() {
    let broker = Broker::new().watched();
    let app = start(&broker, |_: Bytes| async {}).await;
    app.drop_acks(1);
    app.publish(Message::new("t", "x")).await;
    app.settle().await;
    assert_eq!(attempts(&app), [1, 2]);
    assert_eq!(app.consumed("g").len(), 2, "both were confirmed");
    app.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_comes_at_once() {
    let broker = Broker::new().watched();
    let app = start(&broker, |_: Bytes| async {}).await;
    app.duplicate();
    app.publish(Message::new("t", "x")).await;
    app.publish(Message::new("t", "y")).await;
    app.settle().await;
    assert_eq!(attempts(&app).len(), 3);
    app.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_cancels_the_handler_and_brings_the_message_again() {
    let broker = Broker::new().watched();
    let began = Log::default();
    let handler = {
        let began = began.clone();
        move |Attempt(attempt): Attempt| {
            let began = began.clone();
            async move {
                began.add(attempt);
                if attempt == 1 {
                    std::future::pending::<()>().await;
                }
            }
        }
    };
    let app = start(&broker, handler).await;
    app.publish(Message::new("t", "x")).await;
    while began.len() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    app.expire_lease();
    app.settle().await;
    assert_eq!(began.all(), [1, 2]);
    assert_eq!(app.consumed("g").len(), 1);
    app.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_groups_each_have_to_finish() {
    let broker = Broker::new().watched();
    let server = Server::<_, ()>::new(broker.clone())
        .subscribe("t", "g", |_: Bytes| async {})
        .subscribe("t", "slow", |_: Bytes| sleep(secs(60)));
    let app = TestApp::start(&broker, App::new().server(server)).await;
    app.publish(Message::new("t", "x")).await;
    app.settle().await;
    assert_eq!(
        (app.consumed("g").len(), app.consumed("slow").len()),
        (1, 1)
    );
    app.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the App has ended by itself")]
async fn an_app_that_ends_is_told_by_settle() {
    let broker = Broker::new().watched();
    let subscription = subscription().classify(|_: &AnyError| kratos_broker::Disposition::Fatal);
    let fatal = |_: Bytes| async { Err::<(), _>(AnyError::msg("the disk is gone")) };
    let server = Server::<_, ()>::new(broker.clone())
        .subscribe_with(subscription, fatal)
        // Keeps the journal open when the other group has left.
        .subscribe("t", "other", |_: Bytes| sleep(secs(20)));
    let app = TestApp::start(&broker, App::new().server(server)).await;
    app.publish(Message::new("t", "x")).await;
    sleep(secs(60)).await;
    app.settle().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the App does not start: server `memory`")]
async fn an_app_that_does_not_start_says_why() {
    let broker = Broker::new().watched();
    let server = Server::<_, ()>::new(broker.clone())
        .subscribe("t", "g", || async {})
        .subscribe("t", "g", || async {});
    TestApp::start(&broker, App::new().server(server)).await;
}
