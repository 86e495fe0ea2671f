//! Defects of start and stop.

use std::time::Duration;

use kratos::{App, Server as _};
use kratos_broker::{Message, testing::start_context};
use kratos_rocketmq::{Client, Server};
use tokio::time::{Instant, sleep};

use super::{Got, get, running, start, stop};
use crate::site::{GROUP, Gate, Running, Site, TOPIC, eventually};

#[tokio::test]
async fn v2_14_v5_7_al_4_a_stopped_app_gets_nothing_and_what_it_did_is_not_done_again() {
    let (site, got) = (Site::new(), Got::default());
    let first = running(&site, &got).await;
    let before = site.publish(10).await;
    got.reaches(10).await;
    stop(first).await;
    assert_eq!(site.consumers(), 0);

    let after = site.publish(10).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(got.count(), 10, "nothing comes to a stopped App");
    let second = running(&site, &got).await;
    got.reaches(20).await;
    eventually("all is acknowledged", || site.is_settled()).await;
    let seen: Vec<_> = got.all().iter().map(|d| d.id().clone()).collect();
    for id in before.iter().chain(&after) {
        assert_eq!(seen.iter().filter(|seen| *seen == id).count(), 1, "{id}");
    }
    stop(second).await;
}

#[tokio::test]
async fn v2_15_the_share_of_a_member_that_leaves_goes_to_the_others() {
    let (site, got) = (Site::new(), Got::default());
    let stays = running(&site, &got).await;
    let leaves = running(&site, &Got::default()).await;
    stop(leaves).await;
    site.publish(40).await;
    got.reaches(40).await;
    eventually("none is left", || site.is_settled()).await;
    stop(stays).await;
}

#[tokio::test]
async fn v5_1_a_client_without_topics_starts() {
    let site = Site::new();
    let begin = Instant::now();
    let running = start(App::new().resource(site.client.clone())).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    stop(running).await;
}

#[tokio::test]
async fn v5_3_every_start_receives() {
    let (site, got) = (Site::new(), Got::default());
    for round in 1..=30 {
        let running = running(&site, &got).await;
        site.publish(1).await;
        got.reaches(round).await;
        stop(running).await;
    }
}

#[tokio::test]
async fn al_9_a_subscription_without_a_topic_or_a_group_is_refused() {
    let site = Site::new();
    for (topic, group) in [("", GROUP), (TOPIC, "")] {
        let server = Server::new(site.client.clone()).subscribe(topic, group, || async {});
        server.bind(start_context()).await.unwrap_err();
    }
}

#[tokio::test]
async fn sv_4_a_start_that_failed_does_not_spoil_the_next() {
    let (site, got) = (Site::new(), Got::default());
    site.broker.stop().await;
    let client = Client::of(site.broker.clone());
    let app = App::new()
        .start_timeout(Duration::from_millis(500))
        .resource(client.clone())
        .server(Server::new(client).subscribe(TOPIC, GROUP, || async {}));
    Running::start(app).ended().await.0.unwrap_err();
    site.broker.restart().await.unwrap();
    let running = running(&site, &got).await;
    site.publish(1).await;
    got.reaches(1).await;
    stop(running).await;
}

#[tokio::test]
async fn sv_1_one_subscription_that_cannot_be_made_fails_the_start_and_is_named() {
    let (site, gate) = (Site::new(), Gate::new());
    let server = site
        .server(&gate)
        .subscribe("nobody-made-this", GROUP, || async {});
    let app = App::new().resource(site.client.clone()).server(server);
    let error = Running::start(app).ended().await.0.unwrap_err();
    let chain = kratos::error_chain(&error).to_string();
    assert!(chain.contains("nobody-made-this"), "{chain}");
    eventually("nothing is left behind", || site.consumers() == 0).await;
}

#[tokio::test]
async fn sv_3_a_handler_that_runs_at_the_stop_is_finished_and_no_other_starts() {
    let (site, gate) = (Site::new(), Gate::new());
    let running = start(site.app(&gate)).await;
    site.publish(1).await;
    gate.entered(1).await;
    running.signals.send();
    running.reached(kratos::Phase::Draining).await;
    let publisher = Client::of(site.broker.clone()).publisher();
    sleep(Duration::from_millis(300)).await; // intake has ended
    publisher
        .publish(Message::new(TOPIC, "late"))
        .await
        .unwrap();
    gate.open.add_permits(2);
    running.ended().await.0.unwrap();
    assert_eq!(gate.entered.available_permits(), 0, "no other has started");
    assert_eq!(site.broker.lag(TOPIC, GROUP), 1, "the late one waits");
    assert!(site.broker.in_flight(GROUP).is_empty());
}

#[tokio::test]
async fn sv_8_a_stopped_service_starts_again() {
    let (site, got) = (Site::new(), Got::default());
    for round in 1..=3 {
        // As main does it: everything is made anew.
        let client = Client::of(site.broker.clone());
        let server = Server::new(client.clone())
            .subscribe(TOPIC, GROUP, get)
            .with_state(got.clone());
        let running = start(App::new().resource(client).server(server)).await;
        site.publish(1).await;
        got.reaches(round).await;
        stop(running).await;
    }
}
