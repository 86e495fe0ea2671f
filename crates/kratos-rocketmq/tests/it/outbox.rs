//! An outbox without a table: a row in SQLite and a message, both or neither, whatever dies.

use std::{sync::Arc, time::Duration};

use kratos_broker::{Delivery, Json, Resolution, State, testing::eventually as within};
use kratos_rocketmq::{Client, Server, TopicPublisher};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::sync::{Mutex, Notify};

use crate::site::{PATIENCE, Running, eventually};

const TOPIC: &str = "payments";
const GROUP: &str = "mails";

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Payment {
    order: String,
}

/// Where the local transaction ends, and how much of it anybody hears of.
#[derive(Clone, Copy)]
enum Fate {
    /// It commits, and the broker is told.
    Committed,
    /// It commits, and the process dies before it can tell.
    DiesAfterTheCommit,
    /// The process dies before the commit.
    DiesBeforeTheCommit,
    /// It commits, but the database's answer is lost.
    CommittedUnheard,
    /// It is rolled back, and the broker is told.
    RolledBack,
}

/// A process of the service: its publisher, its database.
struct Process {
    payments: TopicPublisher<Payment>,
    pool: SqlitePool,
}

/// Answers for what other processes left open: by the row that the local transaction wrote.
fn client(broker: &DevBroker, pool: &SqlitePool) -> Client {
    let pool = pool.clone();
    Client::of(broker.clone()).transaction_checker(TOPIC, move |message: Delivery| {
        let pool = pool.clone();
        async move {
            let order = message.keys().first().cloned().unwrap_or_default();
            let row = sqlx::query("SELECT 1 FROM payments WHERE name = $1").bind(order);
            match row.fetch_optional(&pool).await {
                Ok(Some(_)) => Resolution::Commit,
                Ok(None) => Resolution::Rollback,
                Err(_) => Resolution::Unknown,
            }
        }
    })
}

impl Process {
    fn start(broker: &DevBroker, pool: &SqlitePool) -> Self {
        let payments = TopicPublisher::json(client(broker, pool).publisher(), TOPIC)
            .key(|payment: &Payment| payment.order.clone());
        let pool = pool.clone();
        Self { payments, pool }
    }

    /// Writes the row and sends the message; ends where `fate` says.
    async fn pay(&self, order: &str, fate: Fate, reached: Arc<Notify>) {
        let payment = Payment {
            order: order.to_owned(),
        };
        let (pool, order) = (self.pool.clone(), order.to_owned());
        let done = self.payments.transaction(&payment, |_receipt| async move {
            let mut row = pool.begin().await.unwrap();
            let insert = sqlx::query("INSERT INTO payments (name) VALUES ($1)").bind(order);
            insert.execute(&mut *row).await.unwrap();
            match fate {
                Fate::DiesBeforeTheCommit => {
                    reached.notify_one();
                    std::future::pending().await
                }
                Fate::RolledBack => {
                    row.rollback().await.unwrap();
                    return Resolution::Rollback;
                }
                Fate::Committed | Fate::DiesAfterTheCommit | Fate::CommittedUnheard => {}
            }
            row.commit().await.unwrap();
            match fate {
                Fate::DiesAfterTheCommit => {
                    reached.notify_one();
                    std::future::pending().await
                }
                Fate::CommittedUnheard => Resolution::Unknown,
                _ => Resolution::Commit,
            }
        });
        done.await.unwrap();
    }
}

#[tokio::test]
async fn exactly_the_committed_are_delivered_whatever_dies_in_between() {
    let broker = DevBroker::builder()
        .strict(true)
        .topic(TOPIC, TopicType::Transaction)
        .group(GROUP, GroupConfig::new())
        .transaction_check(Duration::from_secs(1), Duration::from_secs(1))
        .in_memory()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConnectOptions::new()
        .filename(folder.path().join("rows.sqlite"))
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new().connect_with(file).await.unwrap();
    let table = sqlx::raw_sql("CREATE TABLE payments (name TEXT PRIMARY KEY)");
    table.execute(&pool).await.unwrap();

    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = async |State(seen): State<Arc<Mutex<Vec<String>>>>, Json(it): Json<Payment>| {
        seen.lock().await.push(it.order);
    };
    let consumer = Client::of(broker.clone());
    let app = kratos::App::new().resource(consumer.clone()).server(
        Server::new(consumer)
            .subscribe(TOPIC, GROUP, handler)
            .with_state(seen.clone()),
    );
    let app = Running::start(app);
    app.ready().await;

    let all = [
        ("committed", Fate::Committed),
        ("dies-after", Fate::DiesAfterTheCommit),
        ("dies-before", Fate::DiesBeforeTheCommit),
        ("unheard", Fate::CommittedUnheard),
        ("rolled-back", Fate::RolledBack),
    ];
    for (order, fate) in all {
        let process = Process::start(&broker, &pool);
        let reached = Arc::new(Notify::new());
        let at = reached.clone();
        let paying = tokio::spawn(async move { process.pay(order, fate, at).await });
        match fate {
            Fate::DiesAfterTheCommit | Fate::DiesBeforeTheCommit => {
                reached.notified().await;
                paying.abort(); // and with it the process's client
                assert!(paying.await.unwrap_err().is_cancelled());
            }
            _ => paying.await.unwrap(),
        }
    }
    // The service is started again: its checker answers for what is open.
    let again = client(&broker, &pool);
    let restarted = Running::start(kratos::App::new().resource(again));
    restarted.ready().await;
    eventually("no transaction is open", || {
        broker.half_messages(TOPIC).is_empty()
    })
    .await;
    within("all are delivered", PATIENCE, || {
        broker.lag(TOPIC, GROUP) == 0 && broker.in_flight(GROUP).is_empty()
    })
    .await;
    let mut delivered = seen.lock().await.clone();
    delivered.sort_unstable();
    assert_eq!(delivered, ["committed", "dies-after", "unheard"]);
    let rows = sqlx::query_scalar("SELECT name FROM payments ORDER BY name");
    let rows: Vec<String> = rows.fetch_all(&pool).await.unwrap();
    assert_eq!(rows, delivered, "a message for each row, and no other");
    for app in [app, restarted] {
        app.signals.send();
        app.ended().await.0.unwrap();
    }
}
