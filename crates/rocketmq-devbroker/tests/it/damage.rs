//! Data folders that something has happened to.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rocketmq_devbroker::{DevBroker, Error, TopicType};

use crate::client::{Client, message};

const FILE: &str = "broker.redb";
const MESSAGES: usize = 300;

async fn open(folder: &Path) -> Result<DevBroker, Error> {
    DevBroker::builder().data_dir(folder).start().await
}

/// The file of a broker that was shut down in order.
async fn good_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await.unwrap();
    broker.create_topic("t", TopicType::Mixed).unwrap();
    let client = Client::embedded(&broker, "p").await;
    for n in 0..MESSAGES {
        client.send(vec![message("t", &n.to_string())]).await;
    }
    broker.shutdown().await;
    fs::read(folder.path().join(FILE)).unwrap()
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

#[tokio::test]
async fn whatever_is_damaged_is_told_at_the_start_and_nothing_is_read_wrong() {
    const ROUNDS: usize = 100;
    let good = good_file().await;
    let folder = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(1);
    let mut told = 0;
    for round in 0..ROUNDS {
        let mut bad = good.clone();
        let (at, bytes) = (numbers.below(bad.len()), numbers.below(4096));
        let value = u8::try_from(numbers.below(256)).unwrap();
        match round % 4 {
            0 => bad.truncate(at),
            1 => bad[at] ^= value,
            2 => bad.iter_mut().skip(at).take(bytes).for_each(|it| *it = 0),
            _ => bad
                .iter_mut()
                .skip(at)
                .take(bytes)
                .for_each(|it| *it = value),
        }
        fs::write(folder.path().join(FILE), &bad).unwrap();
        match open(folder.path()).await {
            // Nobody needs what was hit.
            Ok(broker) => {
                let kept: BTreeSet<String> = broker.messages("t").iter().map(text).collect();
                assert_eq!(kept.len(), MESSAGES, "round {round}");
                broker.shutdown().await;
            }
            Err(error) => {
                told += 1;
                assert!(error.to_string().contains("damaged"), "{error}");
            }
        }
    }
    assert!(told > ROUNDS / 2, "{told} of {ROUNDS}");
}

fn text(message: &rocketmq_devbroker::StoredMessage) -> String {
    assert_eq!(&message.body[..], b"hello");
    message.id.clone()
}

#[tokio::test]
async fn a_kill_at_the_first_start_leaves_a_folder_that_can_be_used() {
    const ROUNDS: u64 = 20;
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rocketmq-devbroker"));
        command.args(["--listen", "127.0.0.1:0", "--data", data]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        // Until about when it is ready, most of which is spent making the file.
        tokio::time::sleep(Duration::from_millis(round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let opened = open(folder.path()).await;
        opened
            .unwrap_or_else(|e| panic!("after {round} ms: {e}"))
            .shutdown()
            .await;
    }
    // Half made, as such a kill may leave it.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("broker.redb.new"), vec![0; 70_000]).unwrap();
    open(folder.path()).await.unwrap().shutdown().await;
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
