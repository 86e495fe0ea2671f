//! Dead letters on the admin server, over the dev broker.

use std::{net::SocketAddr, time::Duration};

use kratos::{App, admin};
use kratos_broker::{AnyError, Disposition, Message, Subscription};
use kratos_rocketmq::{Client, Server};
use rocketmq_devbroker::{DevBroker, GroupConfig};
use rocketmq_proto::v2::{self, messaging_service_client::MessagingServiceClient};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::{Request, transport::Endpoint};

use crate::site::{self, GROUP, PATIENCE, Running, TOPIC, eventually};

const LETTERS: &str = "/dead-letters/rocketmq:orders:billing";

/// A service that gives up everything, and its admin server.
struct Site {
    broker: DevBroker,
    addr: SocketAddr,
    app: Running,
}

impl Site {
    async fn new(actions: bool) -> Self {
        async fn fail() -> Result<(), AnyError> {
            Err(AnyError::msg("on purpose"))
        }
        let broker = site::broker();
        let client = Client::of(broker.clone());
        let subscription =
            Subscription::new(TOPIC, GROUP).classify(|_: &AnyError| Disposition::Poison);
        let config = admin::Config {
            addr: ([127, 0, 0, 1], 0).into(),
            actions,
            ..admin::Config::default()
        };
        let server = Server::new(client.clone()).subscribe_with(subscription, fail);
        let controls = server.controls();
        let app = App::new()
            .resource(client)
            .server(admin::Server::new(config))
            .server(server);
        let app = Running::start(app);
        app.ready().await;
        eventually("it is listed", || !controls.subscriptions().is_empty()).await;
        let addr = app.handle.servers()[0].endpoints[0].addr();
        Self { broker, addr, app }
    }

    async fn with_letters(self, count: usize) -> Self {
        let publisher = Client::of(self.broker.clone()).publisher();
        for n in 0..count {
            let message = Message::new(TOPIC, n.to_string());
            publisher.publish(message).await.unwrap();
        }
        eventually("all are dead", || self.letters() == count).await;
        self
    }

    /// A message as other clients may send it: it does not say when it was made.
    async fn with_ageless_letter(self) -> Self {
        let endpoint = Endpoint::from_static("http://embedded.invalid");
        let channel = endpoint.connect_with_connector(self.broker.connector());
        let mut stub = MessagingServiceClient::new(channel.await.unwrap());
        let topic = Some(v2::Resource {
            name: TOPIC.to_owned(),
            ..Default::default()
        });
        let message = v2::Message {
            topic,
            system_properties: Some(v2::SystemProperties {
                message_id: "ageless".to_owned(),
                message_type: v2::MessageType::Normal.into(),
                ..Default::default()
            }),
            body: b"x".as_slice().into(),
            ..Default::default()
        };
        let mut request = Request::new(v2::SendMessageRequest {
            messages: vec![message],
        });
        let headers = request.metadata_mut();
        headers.insert("x-mq-client-id", "other".parse().unwrap());
        let sent = stub.send_message(request).await.unwrap().into_inner();
        assert_eq!(sent.status.unwrap().code, i32::from(v2::Code::Ok));
        eventually("it is dead", || self.letters() == 1).await;
        self
    }

    fn letters(&self) -> usize {
        self.broker.dead_letters(GROUP).len()
    }

    /// Asks, and answers status and body.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let asked = async {
            let mut stream = TcpStream::connect(self.addr).await.unwrap();
            let (addr, length) = (self.addr, body.len());
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = timeout(PATIENCE * 5, asked).await.expect("an answer");
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap())
    }

    async fn list(&self) -> (u16, Value) {
        self.ask("GET", LETTERS, "").await
    }

    async fn replay(&self, body: &str) -> (u16, Value) {
        self.ask("POST", &format!("{LETTERS}/replay"), body).await
    }

    async fn stop(self) {
        self.app.signals.send();
        self.app.ended().await.0.unwrap();
    }
}

fn letters(list: &Value) -> &[Value] {
    list["dead_letters"].as_array().map_or(&[], Vec::as_slice)
}

fn count(list: &Value) -> usize {
    letters(list).len()
}

fn ids(list: &Value) -> impl Iterator<Item = &str> {
    letters(list)
        .iter()
        .filter_map(|it| it["message_id"].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_say_when_it_was_made_is_shown_without_an_age() {
    let site = Site::new(true).await.with_ageless_letter().await;
    let (status, list) = site.list().await;
    assert_eq!((status, count(&list)), (200, 1), "{list}");
    assert_eq!(list["dead_letters"][0]["age_ms"], Value::Null, "{list}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_and_replayed_on_the_admin_server() {
    let site = Site::new(true).await;
    let none = json!({"dead_letters": [], "complete": true});
    assert_eq!(
        site.list().await,
        (200, none),
        "the broker has no place for them yet"
    );
    let site = site.with_letters(4).await;
    let (status, list) = site.list().await;
    assert_eq!(
        (status, count(&list), &list["complete"]),
        (200, 4, &json!(true)),
        "{list}"
    );
    let mut listed: Vec<_> = ids(&list).collect();
    let dead = site.broker.dead_letters(GROUP);
    let mut dead: Vec<_> = dead.iter().map(|letter| letter.id.as_str()).collect();
    // Who died first is not always who was born first.
    listed.sort_unstable();
    dead.sort_unstable();
    assert_eq!(listed, dead, "{list}");
    let first = &list["dead_letters"][0];
    assert_eq!(first["topic"], TOPIC);
    assert!(first["age_ms"].is_u64(), "{first}");
    assert_eq!(count(&site.list().await.1), 4, "they stay");

    // They die again: each of them is counted once.
    let (status, done) = site.replay(r#"{"at_most": 3}"#).await;
    let expected = json!({"replayed": 3, "unconfirmed": 0, "died_again": 0, "complete": false});
    assert_eq!((status, done), (200, expected));
    eventually("they died again", || site.letters() == 7).await;
    assert_eq!(
        count(&site.list().await.1),
        4,
        "one that stayed, and three that came again"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_over_http_is_throttled() {
    let site = Site::new(true).await.with_letters(60).await;
    let begin = Instant::now();
    let (status, done) = site.replay(r#"{"at_most": 60}"#).await;
    assert_eq!((status, &done["replayed"]), (200, &json!(60)), "{done}");
    // 100 per second.
    assert!(
        begin.elapsed() >= Duration::from_millis(590),
        "{:?}",
        begin.elapsed()
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_opt_in_dead_letters_are_neither_read_nor_replayed() {
    let site = Site::new(false).await.with_letters(1).await;
    for (status, answer) in [site.list().await, site.replay("{}").await] {
        assert_eq!(status, 403, "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains("admin.actions"), "{error}");
    }
    assert!(!site.broker.has_group("billing-replay"), "nothing was made");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_dead_letters_is_a_clear_answer() {
    let site = Site::new(true).await.with_letters(1).await;
    let (status, answer) = site
        .ask("GET", "/dead-letters/rocketmq:orders:other", "")
        .await;
    assert_eq!(status, 404, "{answer}");
    for wrong in [
        r#"{"at_most": 0}"#,
        r#"{"at_most": 10001}"#,
        r#"{"at_most": "all"}"#,
        "[]",
    ] {
        let (status, answer) = site.replay(wrong).await;
        assert_eq!(status, 400, "{wrong}: {answer}");
    }
    // A reader that somebody has made with few attempts.
    site.broker
        .create_group("billing-replay", GroupConfig::new())
        .unwrap();
    let (status, answer) = site.list().await;
    let error = answer["error"].as_str().unwrap();
    assert_eq!(status, 409, "{error}");
    assert!(
        error.contains("17 attempts") && error.contains("group create"),
        "{error}"
    );

    site.broker.stop().await;
    let begin = Instant::now();
    let (status, answer) = site.list().await;
    assert!((500..600).contains(&status), "{status} {answer}");
    assert!(!answer["error"].as_str().unwrap().is_empty());
    assert!(
        begin.elapsed() < Duration::from_secs(100),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        site.ask("GET", "/status", "").await.0,
        200,
        "all else goes on"
    );
    site.broker.restart().await.unwrap();
    site.stop().await;
}
