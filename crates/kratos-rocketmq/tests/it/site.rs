//! An App on a dev broker in memory, with signals sent by hand.

use std::{env, future::Future, process::Command, sync::Arc, time::Duration};

use kratos::{App, Phase, SignalSender, Signals};
use kratos_broker::{Message, MessageId};
use kratos_rocketmq::{Client, Server};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

pub(crate) const TOPIC: &str = "orders";
pub(crate) const GROUP: &str = "billing";

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    pub(crate) broker: DevBroker,
    pub(crate) client: Client,
}

/// An App that runs in a task.
pub(crate) struct Running {
    pub(crate) signals: SignalSender,
    pub(crate) handle: kratos::Handle,
    task: JoinHandle<kratos::Result<()>>,
}

/// Handlers wait here until the test lets them go on.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) entered: Arc<Semaphore>,
    pub(crate) open: Arc<Semaphore>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let broker = broker();
        let client = Client::of(broker.clone());
        Self { broker, client }
    }

    pub(crate) fn server(&self, gate: &Gate) -> Server {
        Server::new(self.client.clone())
            .subscribe(TOPIC, GROUP, wait)
            .with_state(gate.clone())
    }

    /// The client and the server, and nothing else.
    pub(crate) fn app(&self, gate: &Gate) -> App {
        App::new()
            .resource(self.client.clone())
            .server(self.server(gate))
    }

    /// Publishes through a client of its own and answers the ids.
    pub(crate) async fn publish(&self, count: usize) -> Vec<MessageId> {
        let publisher = Client::of(self.broker.clone()).publisher();
        let mut ids = Vec::new();
        for n in 0..count {
            ids.push(
                publisher
                    .publish(Message::new(TOPIC, n.to_string()))
                    .await
                    .unwrap()
                    .id,
            );
        }
        ids
    }

    /// Nothing of the group is waiting or held.
    pub(crate) fn is_settled(&self) -> bool {
        self.broker.lag(TOPIC, GROUP) == 0 && self.broker.in_flight(GROUP).is_empty()
    }

    pub(crate) fn consumers(&self) -> usize {
        let clients = self.broker.connected_clients();
        clients
            .iter()
            .filter(|client| client.group.is_some())
            .count()
    }
}

impl Running {
    pub(crate) fn start(app: App) -> Self {
        let (signals, source) = Signals::channel();
        let handle = app.handle();
        let task = tokio::spawn(app.signals(source).run());
        Self {
            signals,
            handle,
            task,
        }
    }

    pub(crate) async fn ready(&self) {
        self.reached(Phase::Ready).await;
    }

    /// Waits for `phase`, which must not have passed.
    pub(crate) async fn reached(&self, phase: Phase) {
        assert_eq!(within(PATIENCE, self.handle.reached(phase)).await, phase);
    }

    /// Ends it without a word to anybody, as a crash does.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    /// Waits for the end; answers the result and how long that took.
    pub(crate) async fn ended(self) -> (kratos::Result<()>, Duration) {
        let start = Instant::now();
        let result = timeout(PATIENCE, self.task)
            .await
            .expect("the App ends")
            .unwrap();
        (result, start.elapsed())
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            entered: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits until `count` handlers stand at the gate.
    pub(crate) async fn entered(&self, count: u32) {
        let entered = timeout(PATIENCE, self.entered.acquire_many(count)).await;
        entered.expect("the handlers start").unwrap().forget();
    }
}

/// A broker that knows the topic and the group, and makes no other.
pub(crate) fn broker() -> DevBroker {
    DevBroker::builder()
        .strict(true)
        .topic(TOPIC, TopicType::Normal)
        .group(GROUP, GroupConfig::new())
        .in_memory()
        .unwrap()
}

async fn wait(kratos_broker::State(gate): kratos_broker::State<Gate>) {
    gate.entered.add_permits(1);
    gate.open.acquire().await.unwrap().forget();
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// Runs `future`, which must end within `bound`.
pub(crate) async fn within<T>(bound: Duration, future: impl Future<Output = T>) -> T {
    timeout(bound, future)
        .await
        .unwrap_or_else(|_| panic!("not within {bound:?}"))
}

/// Runs `body` in a process of its own: this one again, with nothing but the test of this name, which
/// calls this.
pub(crate) fn alone<F: Future<Output = ()>>(test: &str, body: fn() -> F) {
    const ALONE: &str = "KRATOS_TEST_ALONE";
    if env::var_os(ALONE).is_some_and(|name| name == test) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        return runtime.unwrap().block_on(body());
    }
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test])
        .env(ALONE, test)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && told.contains("1 passed"),
        "{told}"
    );
}
