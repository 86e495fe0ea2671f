//! What the client logs says why, not only what.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rocketmq_grpc::{
    BoxError, Client, Credentials, CredentialsProvider, Interceptor, MessageView, Result,
};
use rocketmq_proto::v2::Code;
use tracing::{Dispatch, dispatcher::DefaultGuard, subscriber::NoSubscriber};

use crate::fake::{Fake, Item, TOPIC, consumer_config, eventually, message};

/// What this thread logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

/// Gives credentials until it is sealed.
#[derive(Clone, Default)]
struct Vault(Arc<AtomicBool>);

/// Decrypts nothing.
struct Keyless;

impl Lines {
    fn of_thread() -> (Self, DefaultGuard) {
        // With one subscriber in the process, tracing asks only the thread that comes to a line
        // first whether it is wanted, for good: another test's would say no.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// Whether there is such a line, with this at its `error`.
    fn tell(&self, what: &str, error: &str) -> bool {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut lines = text.lines();
        lines.any(|line| line.contains(what) && line.contains(&format!("error={error}")))
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl CredentialsProvider for Vault {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        if self.0.load(Ordering::SeqCst) {
            return Err("the vault is sealed".into());
        }
        Ok(Credentials::new("ak", "secret"))
    }
}

impl Interceptor for Keyless {
    fn after_receive(&self, _: &mut MessageView) -> Result<(), BoxError> {
        Err("no key".into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_with_its_causes() {
    let (lines, _guard) = Lines::of_thread();
    let (fake, vault) = (Fake::start(), Vault::default());
    let config = Fake::config()
        .credentials(vault.clone())
        .interceptor(Keyless);
    let client = Client::with_connector(config, fake.link.connector()).unwrap();
    let consumer = client.consumer(consumer_config()).await.unwrap();
    // Long enough that other credentials may be asked for.
    tokio::time::sleep(Duration::from_secs(5)).await;

    vault.0.store(true, Ordering::SeqCst);
    fake.push(vec![message("1"), Item::Status(Code::Unauthorized)]);
    let _ = tokio::time::timeout(Duration::from_secs(5), consumer.receive(TOPIC, 1)).await;
    let refused = "an interceptor refused the message: no key";
    eventually("the message", || {
        lines.tell("a message is damaged", refused)
    })
    .await;
    let sealed = "the provider gave no credentials: the vault is sealed";
    eventually("the credentials", || {
        lines.tell("no other credentials", sealed)
    })
    .await;

    vault.0.store(false, Ordering::SeqCst);
    fake.link.refuse(true);
    fake.link.cut();
    let gone =
        "telemetry failed, group billing, at fake:1: cannot connect to fake:1: connection refused";
    eventually("the session", || {
        lines.tell("session not established", gone)
    })
    .await;
}
