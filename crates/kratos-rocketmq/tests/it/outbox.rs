//! An outbox without a table of its own: a row in SQLite and a message, both or neither, whatever
//! dies, and whoever is slow.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use kratos_broker::{Delivery, Json, Resolution, State, testing::eventually as within};
use kratos_rocketmq::{Client, Server, TopicPublisher};
use rocketmq_devbroker::{DevBroker, GroupConfig, TopicType};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::site::{PATIENCE, Running};

const TOPIC: &str = "payments";
const GROUP: &str = "mails";

/// How often a payment is made that comes out void.
const PAYMENTS_MAX: usize = 10;

/// The broker's first question: long enough for a payment that nobody holds up.
const ASKED_AFTER: Duration = Duration::from_secs(2);

/// 15 of them are all there are.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// How long the test waits for what must happen.
const LONG: Duration = Duration::from_secs(120);

/// How long a question may take that need not wait for a local transaction.
const A_WHILE: Duration = Duration::from_secs(1);

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
    /// Others are asked before it has written anything.
    SlowBeforeTheRow,
    /// Others are asked while its row is written and not committed; then it commits, and the process
    /// dies before it can tell.
    SlowBeforeTheCommit,
}

/// What all processes of the service share, but for the broker: the database.
#[derive(Clone)]
struct Rows {
    pool: SqlitePool,
    /// Messages that the broker has asked about.
    asked: Arc<Mutex<BTreeSet<String>>>,
    /// Those of which it was told.
    answered: Arc<Mutex<BTreeSet<String>>>,
}

/// A process of the service.
struct Process {
    payments: TopicPublisher<Payment>,
    rows: Rows,
}

// === impl Rows ===

impl Rows {
    async fn create(folder: &tempfile::TempDir) -> Self {
        let file = SqliteConnectOptions::new()
            .filename(folder.path().join("rows.sqlite"))
            .create_if_missing(true)
            // A crash of the machine is not tried here, and others use its disk.
            .synchronous(SqliteSynchronous::Off)
            .busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new().connect_with(file).await.unwrap();
        let table = "CREATE TABLE payments (
            message TEXT PRIMARY KEY, name TEXT, void BOOLEAN NOT NULL DEFAULT FALSE)";
        sqlx::raw_sql(table).execute(&pool).await.unwrap();
        Self {
            pool,
            asked: Arc::default(),
            answered: Arc::default(),
        }
    }

    /// What became of a message's local transaction, once and for all. If its row is not there, its
    /// place is taken, so that a process that is slow cannot write it any more.
    async fn outcome(&self, message: &str) -> Resolution {
        let void = async {
            let claim = "INSERT INTO payments (message, void) VALUES ($1, TRUE)
                ON CONFLICT (message) DO NOTHING";
            let claim = sqlx::query(claim).bind(message).execute(&self.pool);
            claim.await?;
            let void = "SELECT void FROM payments WHERE message = $1";
            let void = sqlx::query_scalar(void).bind(message);
            void.fetch_one(&self.pool).await
        };
        match void.await {
            Ok(false) => Resolution::Commit,
            Ok(true) => Resolution::Rollback,
            // The database is away, or the row is being written.
            Err::<_, sqlx::Error>(_) => Resolution::Unknown,
        }
    }

    async fn paid(&self) -> Vec<String> {
        let paid = sqlx::query_scalar("SELECT name FROM payments WHERE NOT void ORDER BY name");
        paid.fetch_all(&self.pool).await.unwrap()
    }
}

/// Answers for what other processes left open.
fn client(broker: &DevBroker, rows: &Rows) -> Client {
    let rows = rows.clone();
    Client::of(broker.clone()).transaction_checker(TOPIC, move |message: Delivery| {
        let rows = rows.clone();
        async move {
            rows.asked.lock().unwrap().insert(message.id().to_string());
            let outcome = rows.outcome(message.id()).await;
            rows.answered
                .lock()
                .unwrap()
                .insert(message.id().to_string());
            outcome
        }
    })
}

// === impl Process ===

impl Process {
    fn start(broker: &DevBroker, rows: &Rows) -> Self {
        let payments = TopicPublisher::json(client(broker, rows).publisher(), TOPIC)
            .key(|payment: &Payment| payment.order.clone());
        let rows = rows.clone();
        Self { payments, rows }
    }

    /// Writes the row and sends the message; ends where `fate` says. A payment that is void because
    /// this machine was slow is made again, with another message.
    async fn pay(&self, order: &str, fate: Fate, reached: Arc<Notify>) {
        let is_meant = matches!(fate, Fate::RolledBack | Fate::SlowBeforeTheRow);
        for _ in 0..PAYMENTS_MAX {
            let done = self.pay_once(order, fate, reached.clone()).await;
            if is_meant || done != Resolution::Rollback {
                return;
            }
        }
        panic!("{order} was void {PAYMENTS_MAX} times");
    }

    async fn pay_once(&self, order: &str, fate: Fate, reached: Arc<Notify>) -> Resolution {
        let payment = Payment {
            order: order.to_owned(),
        };
        let (rows, order) = (self.rows.clone(), order.to_owned());
        let done = self.payments.transaction(&payment, |receipt| async move {
            if let Fate::SlowBeforeTheRow = fate {
                let answered = || rows.answered.lock().unwrap().contains(&*receipt.id);
                within("it was answered", LONG, answered).await;
            }
            let mut row = rows.pool.begin().await.unwrap();
            let insert = sqlx::query("INSERT INTO payments (message, name) VALUES ($1, $2)")
                .bind(receipt.id.as_str())
                .bind(order);
            if insert.execute(&mut *row).await.is_err() {
                // Its place is taken.
                return Resolution::Rollback;
            }
            match fate {
                Fate::DiesBeforeTheCommit => {
                    reached.notify_one();
                    std::future::pending().await
                }
                Fate::RolledBack => {
                    row.rollback().await.unwrap();
                    return Resolution::Rollback;
                }
                Fate::SlowBeforeTheCommit => {
                    let asked = || rows.asked.lock().unwrap().contains(&*receipt.id);
                    within("it was asked about", LONG, asked).await;
                    sleep(A_WHILE).await;
                }
                _ => {}
            }
            row.commit().await.unwrap();
            match fate {
                Fate::DiesAfterTheCommit | Fate::SlowBeforeTheCommit => {
                    reached.notify_one();
                    std::future::pending().await
                }
                Fate::CommittedUnheard => Resolution::Unknown,
                _ => Resolution::Commit,
            }
        });
        done.await.unwrap().resolution
    }
}

#[tokio::test]
async fn exactly_the_committed_are_delivered_whatever_dies_in_between() {
    let broker = DevBroker::builder()
        .strict(true)
        .topic(TOPIC, TopicType::Transaction)
        .group(GROUP, GroupConfig::new())
        .transaction_check(ASKED_AFTER, ASKED_EVERY)
        .in_memory()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rows = Rows::create(&folder).await;
    // Asked while the local transactions of others run.
    let other = Running::start(kratos::App::new().resource(client(&broker, &rows)));
    other.ready().await;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = async |State(seen): State<Arc<Mutex<Vec<String>>>>, Json(it): Json<Payment>| {
        seen.lock().unwrap().push(it.order);
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
        ("slow-commit", Fate::SlowBeforeTheCommit),
        ("slow-row", Fate::SlowBeforeTheRow),
    ];
    let none_is_open = || broker.half_messages(TOPIC).is_empty();
    for (order, fate) in all {
        if let Fate::SlowBeforeTheRow | Fate::SlowBeforeTheCommit = fate {
            // Processes are asked in turn: with others open it might always be the one that is slow.
            within("no transaction is open", LONG, none_is_open).await;
        }
        let process = Process::start(&broker, &rows);
        let reached = Arc::new(Notify::new());
        let at = reached.clone();
        let mut paying = tokio::spawn(async move { process.pay(order, fate, at).await });
        match fate {
            Fate::DiesAfterTheCommit | Fate::DiesBeforeTheCommit | Fate::SlowBeforeTheCommit => {
                let reached = timeout(LONG, reached.notified());
                tokio::select! {
                    reached = reached => reached.unwrap(),
                    ended = &mut paying => panic!("{order} ended before it was to die: {ended:?}"),
                }
                paying.abort(); // and with it the process's client
                assert!(paying.await.unwrap_err().is_cancelled());
            }
            _ => paying.await.unwrap(),
        }
    }
    within("no transaction is open", LONG, none_is_open).await;
    within("all are delivered", LONG, || {
        broker.lag(TOPIC, GROUP) == 0 && broker.in_flight(GROUP).is_empty()
    })
    .await;
    let mut delivered = seen.lock().unwrap().clone();
    delivered.sort_unstable();
    // What was committed while it was asked about may come twice.
    delivered.dedup();
    assert_eq!(
        rows.paid().await,
        delivered,
        "a message for each row, and no other"
    );
    let sure = ["committed", "dies-after", "slow-commit", "unheard"];
    assert_eq!(delivered, sure);
    for app in [app, other] {
        app.signals.send();
        app.ended().await.0.unwrap();
    }
}
