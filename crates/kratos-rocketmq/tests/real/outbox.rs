//! Who is asked about a transaction, and when: what a checker has to live with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos_broker::{
    Delivery, Message, Resolution, Server, State, Subscription, Topic,
    testing::{Harness, Started, TopicKind, eventually, start_context},
};
use kratos_rocketmq::Client;
use tokio::{sync::Notify, time::sleep};

use crate::{INVISIBLE, Real};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(90);

/// Longer than the server takes to deliver what it was told to.
const QUIET: Duration = Duration::from_secs(15);

/// What all instances see: the table of the local transactions, by message; `false` for a row that
/// only keeps the place of one that is not to come any more.
#[derive(Clone, Default)]
struct Rows {
    rows: Arc<Mutex<BTreeMap<String, bool>>>,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Rows {
    /// Writes a row, unless its place is taken; answers the one that is there.
    fn write(&self, message: &str, paid: bool) -> bool {
        let mut rows = self.rows.lock().unwrap();
        *rows.entry(message.to_owned()).or_insert(paid)
    }

    fn was_asked(&self, message: &str) -> bool {
        self.asked.lock().unwrap().contains(message)
    }

    /// Another instance of the service.
    async fn instance(&self, topic: &Topic) -> Client {
        let rows = self.clone();
        let checker = move |message: Delivery| {
            let paid = rows.write(message.id(), false);
            rows.asked.lock().unwrap().insert(message.id().to_string());
            std::future::ready(match paid {
                true => Resolution::Commit,
                false => Resolution::Rollback,
            })
        };
        let client = Real::default().driver().await;
        let mut client = client.transaction_checker(topic.as_str(), checker);
        kratos::Resource::open(&mut client, start_context())
            .await
            .unwrap();
        client
    }
}

async fn note(State(seen): State<Arc<Mutex<BTreeSet<String>>>>, delivery: Delivery) {
    seen.lock().unwrap().insert(delivery.id().to_string());
}

/// The server asks another instance while the local transaction still runs. One that has not written
/// its row by then cannot any more; one that has written it is delivered, also if its process dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_asked_about_elsewhere_while_it_runs_and_both_come_to_the_same_end() {
    let h = Real::default();
    if !h.transactions() {
        return; // Only where the server is ours.
    }
    let kind = TopicKind::Transactional;
    let topic = h.special_topic(kind, "asked").await.unwrap();
    let group = h.group("asked").await;
    let seen = Arc::<Mutex<BTreeSet<String>>>::default();
    let subscription = Subscription::new(&topic, &group).invisible_duration(INVISIBLE);
    let server = Server::new(h.driver().await)
        .subscribe_with(subscription, note)
        .with_state(seen.clone());
    let started = Started::start(server).await;
    let rows = Rows::default();
    let slow = rows.instance(&topic).await;
    let _other = rows.instance(&topic).await;

    let (mine, paid) = (rows.clone(), Arc::new(Mutex::new(None)));
    let local = |receipt: kratos_broker::Receipt| {
        let (rows, paid) = (mine.clone(), paid.clone());
        async move {
            eventually("another is asked", PATIENCE, || rows.was_asked(&receipt.id)).await;
            *paid.lock().unwrap() = Some(rows.write(&receipt.id, true));
            Resolution::Rollback
        }
    };
    let late = Message::new(&topic, "late");
    let done = slow.publisher().transaction(late, local).await.unwrap();
    assert_eq!(*paid.lock().unwrap(), Some(false), "its place is taken");

    let reached = Arc::new(Notify::new());
    let (written, at) = (rows.clone(), reached.clone());
    let early = Message::new(&topic, "early");
    let dying = tokio::spawn(async move {
        let local = |receipt: kratos_broker::Receipt| async move {
            assert!(written.write(&receipt.id, true));
            at.notify_one();
            std::future::pending().await
        };
        slow.publisher().transaction(early, local).await
    });
    reached.notified().await;
    eventually("it is delivered", PATIENCE, || {
        !seen.lock().unwrap().is_empty()
    })
    .await;
    dying.abort();
    sleep(QUIET).await;
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.len() == 1 && !seen.contains(&*done.receipt.id),
        "{seen:?}"
    );
    started.stop(PATIENCE).await.unwrap();
}
