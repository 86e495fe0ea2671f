//! The saver on the dev broker, with a database that misbehaves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::PathBuf, time::Duration};

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kratos::{App, Resource, Signals, StartContext};
use kratos_broker::{Message, testing::TestApp};
use kratos_rocketmq::{Client, Server, testing};
use report_proto::{AcceptStatusReportData, RealTimeWarehousingData};
use rocketmq_devbroker::DevBroker;
use saver_service::{Config, GROUP, Store, TOPIC_EVENT, TOPIC_USER, save_event, save_status};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

struct Saver {
    folder: TempDir,
    client: Client,
    store: Store,
    app: TestApp<Client>,
}

impl Saver {
    async fn start() -> Self {
        Self::start_on(testing::embedded()).await
    }

    async fn start_on(client: Client) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Config {
            path: folder.path().join("rows.sqlite"),
        });
        let server = Server::new(client.clone())
            .subscribe(TOPIC_EVENT, GROUP, save_event)
            .subscribe(TOPIC_USER, GROUP, save_status)
            .with_state(store.clone());
        let app = App::new()
            .resource(store.clone())
            .resource(client.clone())
            .server(server);
        let app = TestApp::start(&client, app).await;
        Self {
            folder,
            client,
            store,
            app,
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("rows.sqlite")
    }

    async fn post_event(&self, name: &str) {
        let event = RealTimeWarehousingData {
            event_name: Some(name.to_owned()),
            ..RealTimeWarehousingData::default()
        };
        let message = Message::json(TOPIC_EVENT, &event).unwrap();
        self.app.publish(message).await;
    }

    async fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .store
            .newest(1000)
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.event_name)
            .collect();
        names.sort_unstable();
        names
    }

    /// The broker in this process.
    fn broker(&self) -> &DevBroker {
        self.client.broker().unwrap()
    }

    /// The broker still has an event for the group, waiting or held.
    fn is_kept(&self) -> bool {
        self.broker().lag(TOPIC_EVENT, GROUP) > 0 || !self.broker().in_flight(GROUP).is_empty()
    }

    /// Waits until the handler has failed and the message is being tried again.
    async fn retries(&self) {
        let start = Instant::now();
        let again = || {
            self.broker()
                .in_flight(GROUP)
                .iter()
                .any(|held| held.attempt > 1)
        };
        while !again() {
            assert!(self.is_kept(), "acknowledged without a row");
            assert!(start.elapsed() < PATIENCE, "it is not retried");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_for(&self, names: &[&str]) {
        let start = Instant::now();
        loop {
            let found = self.names().await;
            if found == names {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{found:?} rather than {names:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.app.stop().await.unwrap();
    }
}

/// On a broker in this process; on a real server, if `TEST_ROCKETMQ` names its proxy (`make e2e`).
/// Nobody else may use the topics there.
#[tokio::test]
async fn both_topics_are_stored_and_listed_newest_first() {
    let endpoints = std::env::var("TEST_ROCKETMQ").ok();
    let client = testing::real_or_embedded(endpoints).unwrap();
    let saver = Saver::start_on(client).await;
    saver.post_event("login").await;
    saver.app.settle().await;
    let status = AcceptStatusReportData {
        part_event: Some("signup".to_owned()),
        ..AcceptStatusReportData::default()
    };
    let message = Message::json(TOPIC_USER, &status).unwrap();
    saver.app.publish(message).await;
    saver.app.settle().await;
    assert_eq!(saver.names().await, ["login", "signup"]);
    let newest = saver.store.newest(1).await.unwrap();
    assert_eq!(newest[0].event_name, "signup");
    saver.stop().await;
}

#[tokio::test]
async fn a_locked_database_costs_retries_and_loses_nothing() {
    let saver = Saver::start().await;
    let options = SqliteConnectOptions::new().filename(saver.database());
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    saver.post_event("login").await;
    saver.retries().await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    saver.wait_for(&["login"]).await;
    saver.stop().await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_waited_for() {
    let saver = Saver::start().await;
    let options = SqliteConnectOptions::new().filename(saver.database());
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("ALTER TABLE realtime_warehousing RENAME TO away")
        .execute(&mut other)
        .await
        .unwrap();
    saver.post_event("login").await;
    saver.retries().await;
    sqlx::raw_sql("ALTER TABLE away RENAME TO realtime_warehousing")
        .execute(&mut other)
        .await
        .unwrap();
    saver.wait_for(&["login"]).await;
    saver.stop().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_is_a_dead_letter_and_the_next_message_is_stored() {
    let saver = Saver::start().await;
    let bad = Message::new(TOPIC_EVENT, "{not json");
    saver.app.publish(bad).await;
    saver.post_event("login").await;
    saver.app.settle().await;
    assert_eq!(saver.names().await, ["login"]);
    let letters = saver.app.dead_letters(GROUP);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].body(), "{not json", "the raw bytes are kept");
    saver.stop().await;
}

#[tokio::test]
async fn a_message_that_comes_again_is_stored_once_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Config {
        path: folder.path().join("rows.sqlite"),
    });
    let info = kratos::AppInfo::new("test", "0");
    let cx = StartContext::detached(info, Instant::now() + PATIENCE);
    store.clone().open(cx).await.unwrap();
    let event = RealTimeWarehousingData::default();
    assert_eq!(store.save_event("id-1", "trace", &event).await.unwrap(), 1);
    assert_eq!(store.save_event("id-1", "trace", &event).await.unwrap(), 2);
    let rows = store.newest(10).await.unwrap();
    assert_eq!((rows.len(), rows[0].deliveries), (1, 2));
}

#[tokio::test]
async fn a_lost_acknowledgement_stores_nothing_twice() {
    let saver = Saver::start().await;
    saver.app.duplicate();
    saver.post_event("login").await;
    saver.app.settle().await;
    let rows = saver.store.newest(10).await.unwrap();
    assert_eq!((rows.len(), rows[0].deliveries), (1, 2));
    saver.stop().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_made_says_where_and_what_to_set() {
    let store = Store::new(Config {
        path: "/proc/nowhere/rows.sqlite".into(),
    });
    let error = App::new()
        .signals(Signals::none())
        .resource(store)
        .run()
        .await
        .unwrap_err();
    let chain = kratos::error_chain(&error).to_string();
    for word in ["store", "/proc/nowhere/rows.sqlite", "store.path"] {
        assert!(chain.contains(word), "{word:?} is not in: {chain}");
    }
}

#[tokio::test]
async fn a_limit_out_of_range_answers_400_with_the_range() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Config {
        path: folder.path().join("rows.sqlite"),
    });
    let routes = saver_service::routes(store);
    for query in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limt=1"] {
        let request = Request::get(format!("/saver/v1/reports?{query}"))
            .body(Body::empty())
            .unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"{\"code\":400"), "{query}: {body:?}");
    }
}
