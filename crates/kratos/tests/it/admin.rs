//! The admin server, seen from outside.

mod hostile;
mod life;
mod live;
mod refusal;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos::{
    Action, Answer, App, BoundServer, Description, Entry, Handle, Health, Live, Phase, Pulse,
    Refusal, Result, Server, ServerState, Shutdown, StartContext, SubscriptionStatus, admin,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};

use crate::support::{app, eventually};

/// What a consumer would show, and what was done to it.
#[derive(Default)]
pub(crate) struct Consumer {
    pub(crate) pulse: Mutex<Pulse>,
    pub(crate) done: Mutex<Vec<(String, Action)>>,
    /// Whoever looks at the subscriptions waits for it.
    pub(crate) lock: Mutex<()>,
    /// What the broker has assigned.
    pub(crate) assigned: Mutex<Option<bool>>,
    /// What is behind.
    pub(crate) lag: Mutex<Option<u64>>,
}

/// A server with a consumer's live view.
pub(crate) struct Messages {
    consumer: Arc<Consumer>,
    health: watch::Receiver<Health>,
    /// How long it drains.
    drains: Duration,
}

/// An App with an admin server.
pub(crate) struct Watched {
    pub(crate) addr: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) task: JoinHandle<Result<()>>,
}

impl Live for Consumer {
    fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        let _held = self.lock.lock();
        let mut status = SubscriptionStatus::new("messages:orders:billing", "messages");
        (status.topic, status.group) = ("orders".to_owned(), "billing".to_owned());
        status.assigned = *self.assigned.lock().unwrap();
        status.lag = *self.lag.lock().unwrap();
        vec![status]
    }

    fn act(&self, id: &str, action: Action) -> Result<(), Refusal> {
        match (id, action) {
            ("messages:orders:billing", Action::Concurrency(0)) => {
                Err(Refusal::invalid("concurrency is 1 to 8"))
            }
            ("messages:orders:billing", Action::Concurrency(99)) => {
                Err(Refusal::conflict("it is stopping"))
            }
            ("messages:orders:billing", _) => {
                self.done.lock().unwrap().push((id.to_owned(), action));
                Ok(())
            }
            _ => Err(Refusal::unknown("who?")),
        }
    }

    fn pulse(&self) -> Pulse {
        self.pulse.lock().unwrap().clone()
    }

    fn replay(&self, id: &str, max: usize) -> Answer<Value> {
        let known = id == "messages:orders:billing";
        Box::pin(async move {
            if known {
                Ok(json!({ "replayed": max }))
            } else {
                Err(Refusal::unknown("who?"))
            }
        })
    }
}

impl Messages {
    pub(crate) fn new(consumer: &Arc<Consumer>) -> Self {
        Self {
            consumer: consumer.clone(),
            health: Health::always(),
            drains: Duration::ZERO,
        }
    }

    pub(crate) fn health(mut self, health: watch::Receiver<Health>) -> Self {
        self.health = health;
        self
    }

    pub(crate) fn drains(mut self, time: Duration) -> Self {
        self.drains = time;
        self
    }
}

impl Server for Messages {
    type Bound = Self;

    fn name(&self) -> &str {
        "messages"
    }

    fn describe(&self) -> Description {
        Description::new("messages")
            .entry(Entry::new("subscription", "orders in group billing"))
            .live(self.consumer.clone())
    }

    async fn bind(self, _: StartContext) -> Result<Self> {
        Ok(self)
    }
}

impl BoundServer for Messages {
    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    async fn serve(self, shutdown: Shutdown) -> Result<()> {
        shutdown.requested().await;
        tokio::time::sleep(self.drains).await;
        Ok(())
    }
}

pub(crate) fn config() -> admin::Config {
    admin::Config {
        addr: ([127, 0, 0, 1], 0).into(),
        ..Default::default()
    }
}

pub(crate) fn with_actions() -> admin::Config {
    admin::Config {
        actions: true,
        ..config()
    }
}

/// Runs an App with an admin server, which is first, until that answers.
pub(crate) async fn watched(config: admin::Config, more: impl FnOnce(App) -> App) -> Watched {
    let _remembered: kratos::Config = kratos::config::load("no-such-service").unwrap();
    let app = more(app().server(admin::Server::new(config)));
    let handle = app.handle();
    let task = tokio::spawn(app.run());
    handle
        .servers_reached(|all| all.first().is_some_and(|s| s.state >= ServerState::Bound))
        .await;
    let addr = handle.servers()[0].endpoints[0].addr();
    Watched { addr, handle, task }
}

/// The same, ready, with a consumer.
pub(crate) async fn ready(config: admin::Config) -> (Watched, Arc<Consumer>) {
    let consumer = Arc::<Consumer>::default();
    let watched = watched(config, |app| app.server(Messages::new(&consumer))).await;
    watched.handle.reached(Phase::Ready).await;
    (watched, consumer)
}

impl Watched {
    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.addr, path).await
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let kind = "content-type: application/json\r\n";
        ask(self.addr, "POST", path, kind, body.as_bytes()).await
    }

    pub(crate) async fn stop(self) {
        self.handle.stop();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.unwrap().unwrap().unwrap();
    }
}

pub(crate) async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    ask(addr, "GET", path, "", b"").await
}

/// One request on a connection of its own: its answer's status, and headers and body.
pub(crate) async fn exchange(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A body that is refused may not be read.
    let _ = stream.write_all(body).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) async fn ask(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> (u16, String) {
    let answer = exchange(addr, method, path, headers, body).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), body.to_owned())
}

/// The text of an error's JSON.
pub(crate) fn error(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    body["error"].as_str().unwrap().to_owned()
}

pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_status_is_what_the_page_reads() {
    let (watched, _consumer) = ready(config()).await;
    let status = watched.json("/status").await;
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["app"]["name"], "test");
    assert_eq!(
        (&status["actions"], &status["liveness"]["alive"]),
        (&json!(false), &json!(true))
    );
    let servers = status["servers"].as_array().unwrap();
    assert_eq!(servers[0]["kind"], "admin");
    assert_eq!(servers[1]["health"], "serving");
    assert_eq!(servers[1]["entries"][0]["what"], "subscription");
    let subscription = &status["subscriptions"][0];
    assert_eq!(subscription["id"], "messages:orders:billing");
    assert_eq!(subscription["state"], "running");
    for field in ["oldest_ms", "lag", "last_error", "assigned", "reason"] {
        assert!(
            subscription.get(field).is_some_and(Value::is_null),
            "{field}"
        );
    }
    assert_eq!(
        watched.json("/subscriptions").await["subscriptions"][0],
        *subscription
    );
    watched.stop().await;
}

#[tokio::test]
async fn pages_are_whole_and_every_answer_is_fresh() {
    let (watched, _consumer) = ready(config()).await;
    for path in ["/", "/documents"] {
        let answer = exchange(watched.addr, "GET", path, "", b"").await;
        let (head, page) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains("text/html"),
            "{head}"
        );
        for header in [
            "cache-control: no-store",
            "x-frame-options: deny",
            "nosniff",
        ] {
            assert!(head.contains(header), "{header}: {head}");
        }
        for outside in [
            "src=\"http",
            "href=\"http",
            "url(http",
            "@import",
            "src=\"//",
        ] {
            assert!(
                !page.contains(outside),
                "{path} loads from outside: {outside}"
            );
        }
    }
    assert!(watched.json("/config").await["config"].is_object());
    watched.stop().await;
}

#[tokio::test]
async fn the_admin_endpoint_is_not_told_to_clients() {
    let watched = watched(config(), |app| app).await;
    watched.handle.reached(Phase::Ready).await;
    eventually("bound", || {
        !watched.handle.servers()[0].endpoints.is_empty()
    })
    .await;
    assert!(watched.handle.info().unwrap().endpoints().is_empty());
    watched.stop().await;
}
