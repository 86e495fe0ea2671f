//! The data folder: what comes back after an orderly end, after a kill, and what is told when the
//! folder cannot be used.

mod kills;

use std::{collections::BTreeSet, path::Path, time::Duration};

use rocketmq_devbroker::{Builder, Code, DevBroker, Error, GroupConfig, TopicType};
use rocketmq_proto::v2;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    client::{Client, attempt, code, handle, id, message, system},
    eventually,
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn quick(folder: &Path) -> Builder {
    let fast = Duration::from_millis(50);
    let builder = DevBroker::builder().data_dir(folder).min_invisible(fast);
    builder.long_poll(fast, Duration::from_secs(1))
}

async fn open(folder: &Path) -> DevBroker {
    quick(folder).start().await.unwrap()
}

fn ids(received: &crate::client::Received) -> Vec<&str> {
    received.messages.iter().map(id).collect()
}

async fn consumer(broker: &DevBroker, topic: &str, group: &str) -> Client {
    let mut client = Client::embedded(broker, group).await;
    client.consume(topic, group).await.unwrap();
    client
}

#[tokio::test]
async fn everything_but_leases_and_clients_comes_back() {
    let folder = folder();
    let group = GroupConfig::new().retry_max_times(1);
    let builder = quick(folder.path()).strict(true).group("g", group.clone());
    let builder = builder.topic_with_queues("t", TopicType::Mixed, 1);
    let broker = builder.start().await.unwrap();
    let client = consumer(&broker, "t", "g").await;
    for n in ["dead", "acked", "held", "new"] {
        let mut message = message("t", n);
        message.body = format!("body of {n}").into_bytes().into();
        system(&mut message).keys = vec![format!("key of {n}")];
        let answer = client.send(vec![message]).await;
        assert_eq!(code(answer.status.as_ref()), Code::Ok);
    }
    let mut ask = Client::ask("t", "g");
    ask.batch_size = 3;
    let received = client.receive_as(ask).await;
    assert_eq!(ids(&received), ["dead", "acked", "held"]);
    assert_eq!(
        client
            .forward("t", "g", &handle(&received.messages[0]))
            .await,
        Code::Ok
    );
    let handles = [handle(&received.messages[1])];
    let answer = client.ack("t", "g", &handles).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    let before = (broker.messages("t"), broker.dead_letters("g"));
    assert_eq!(broker.in_flight("g").len(), 1);
    broker.shutdown().await;

    // Nothing is declared this time.
    let broker = quick(folder.path()).strict(true).start().await.unwrap();
    assert_eq!((broker.messages("t"), broker.dead_letters("g")), before);
    assert!(broker.in_flight("g").is_empty());
    assert!(broker.connected_clients().is_empty());
    assert_eq!(broker.lag("t", "g"), 2);
    let client = consumer(&broker, "t", "g").await;
    let old = client.ack("t", "g", &[handle(&received.messages[2])]).await;
    assert_eq!(code(old.status.as_ref()), Code::InvalidReceiptHandle);
    let mut ask = Client::ask("t", "g");
    ask.invisible_duration = crate::client::wire(Duration::from_millis(50));
    let received = client.receive_as(ask.clone()).await;
    let attempts: Vec<_> = received
        .messages
        .iter()
        .map(|m| (id(m), attempt(m)))
        .collect();
    assert_eq!(attempts, [("held", 2), ("new", 1)]);
    // The retries of the group are known, too: "held" had its last attempt.
    eventually(|| broker.dead_letters("g").len() == 2).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn an_ordered_group_goes_on_with_what_it_has_not_settled() {
    let folder = folder();
    let broker = quick(folder.path()).group("g", GroupConfig::new().fifo(true));
    let broker = broker.start().await.unwrap();
    let client = consumer(&broker, "t", "g").await;
    for n in ["1", "2", "3", "4"] {
        let mut message = message("t", n);
        system(&mut message).message_group = Some("order".to_owned());
        client.send(vec![message]).await;
    }
    let mut ask = Client::ask("t", "g");
    ask.batch_size = 3;
    let received = client.receive_as(ask).await;
    assert_eq!(ids(&received), ["1", "2", "3"]);
    client.ack("t", "g", &[handle(&received.messages[0])]).await;
    broker.shutdown().await;

    let broker = open(folder.path()).await;
    let client = consumer(&broker, "t", "g").await;
    let received = client.receive("t", "g").await;
    assert_eq!(ids(&received), ["2", "3", "4"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn delayed_messages_come_and_old_recall_handles_recall_nothing_else() {
    let folder = folder();
    let broker = open(folder.path()).await;
    let client = Client::embedded(&broker, "p").await;
    let later = |name: &str, millis: u64| {
        let at = std::time::SystemTime::now() + Duration::from_millis(millis);
        let mut message = message("t", name);
        system(&mut message).delivery_timestamp = Some(at.into());
        message
    };
    let soon = client.send(vec![later("soon", 300)]).await.entries[0].clone();
    let far = client.send(vec![later("far", 3_600_000)]).await.entries[0].clone();
    broker.shutdown().await;

    let broker = open(folder.path()).await;
    eventually(|| broker.messages("t").iter().any(|m| m.id == "soon")).await;
    let client = Client::embedded(&broker, "p").await;
    let other = client.send(vec![later("other", 3_600_000)]).await.entries[0].clone();
    let handles = [
        &soon.recall_handle,
        &far.recall_handle,
        &other.recall_handle,
    ];
    assert_eq!(BTreeSet::from(handles).len(), 3);
    let recall = async |handle: &str| {
        let request = client.request(v2::RecallMessageRequest {
            topic: crate::client::resource("t"),
            recall_handle: handle.to_owned(),
        });
        let answer = client.stub.clone().recall_message(request).await.unwrap();
        answer.into_inner().message_id
    };
    assert_eq!(recall(&soon.recall_handle).await, "");
    assert_eq!(recall(&far.recall_handle).await, "far");
    broker.shutdown().await;
    let broker = open(folder.path()).await;
    let client = Client::embedded(&broker, "p").await;
    let request = client.request(v2::RecallMessageRequest {
        topic: crate::client::resource("t"),
        recall_handle: far.recall_handle.clone(),
    });
    let again = client.stub.clone().recall_message(request).await.unwrap();
    assert_eq!(again.into_inner().message_id, "far", "as before its end");
    assert_eq!(broker.delayed_messages("t").len(), 1, "the other one");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_half_message_is_asked_for_again_and_committed() {
    let folder = folder();
    let half = |broker: &DevBroker| {
        broker
            .half_messages("t")
            .into_iter()
            .map(|h| h.id)
            .collect()
    };
    let builder = || {
        let soon = Duration::from_millis(200);
        quick(folder.path()).transaction_check(soon, soon)
    };
    let broker = quick(folder.path()).start().await.unwrap();
    let client = Client::embedded(&broker, "p").await;
    for name in ["open", "ended"] {
        let mut message = message("t", name);
        system(&mut message).message_type = v2::MessageType::Transaction.into();
        let answer = client.send(vec![message]).await;
        assert_eq!(code(answer.status.as_ref()), Code::Ok);
    }
    let end = async |client: &Client, id: &str, resolution: v2::TransactionResolution| {
        let request = client.request(v2::EndTransactionRequest {
            topic: crate::client::resource("t"),
            message_id: id.to_owned(),
            transaction_id: id.to_owned(),
            resolution: resolution.into(),
            source: v2::TransactionSource::SourceServerCheck.into(),
            ..Default::default()
        });
        let answer = client.stub.clone().end_transaction(request).await.unwrap();
        code(answer.into_inner().status.as_ref())
    };
    let rolled_back = end(&client, "ended", v2::TransactionResolution::Rollback).await;
    assert_eq!(rolled_back, Code::Ok);
    broker.shutdown().await;

    let broker = builder().start().await.unwrap();
    let found: Vec<String> = half(&broker);
    assert_eq!(found, ["open"]);
    let mut client = Client::embedded(&broker, "p").await;
    client.produce("t").await;
    // Only a check makes it possible to end it.
    let deadline = Instant::now() + Duration::from_secs(5);
    while end(&client, "open", v2::TransactionResolution::Commit).await != Code::Ok {
        assert!(Instant::now() < deadline, "no check came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.shutdown().await;

    let broker = builder().start().await.unwrap();
    let found: Vec<String> = half(&broker);
    assert_eq!(found, [""; 0]);
    assert_eq!(broker.messages("t").len(), 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_hundred_restarts_lose_nothing() {
    let folder = folder();
    let mut expected = Vec::new();
    for round in 0..100 {
        let broker = quick(folder.path()).topic_with_queues("t", TopicType::Normal, 1);
        let broker = broker.start().await.unwrap();
        let found: Vec<String> = broker.messages("t").into_iter().map(|m| m.id).collect();
        assert_eq!(found, expected);
        let name = format!("{round:03}");
        Client::embedded(&broker, "p").await.put("t", &name).await;
        expected.push(name);
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn stop_and_restart_keep_the_folder() {
    let folder = folder();
    let broker = open(folder.path()).await;
    Client::embedded(&broker, "p").await.put("t", "1").await;
    broker.stop().await;
    broker.restart().await.unwrap();
    Client::embedded(&broker, "p").await.put("t", "2").await;
    broker.shutdown().await;
    let broker = open(folder.path()).await;
    assert_eq!(broker.messages("t").len(), 2);
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_settled_leaves_the_disk_too() {
    const ROUNDS: usize = 100;
    const BODY_BYTES: usize = 64 << 10;
    let folder = folder();
    let start = async || {
        let builder = quick(folder.path()).topic_with_queues("t", TopicType::Normal, 1);
        builder.retained_messages(4).start().await.unwrap()
    };
    let broker = start().await;
    let client = consumer(&broker, "t", "g").await;
    // The group has a position from here on.
    client.receive("t", "g").await;
    for round in 0..ROUNDS {
        let mut message = message("t", &round.to_string());
        message.body = vec![7; BODY_BYTES].into();
        client.send(vec![message]).await;
        let received = client.receive("t", "g").await;
        let handles: Vec<String> = received.messages.iter().map(handle).collect();
        client.ack("t", "g", &handles).await;
    }
    broker.shutdown().await;
    let size = std::fs::read_dir(folder.path()).unwrap();
    let size: u64 = size
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size < (ROUNDS * BODY_BYTES / 2) as u64, "{size} bytes");

    let broker = start().await;
    let kept: Vec<u64> = broker.messages("t").iter().map(|m| m.offset).collect();
    assert!(kept.len() < 8, "{kept:?}");
    assert_eq!(kept.last(), Some(&(ROUNDS as u64 - 1)));
    assert_eq!(broker.lag("t", "g"), 0);
    Client::embedded(&broker, "p").await.put("t", "next").await;
    assert_eq!(broker.messages("t").last().unwrap().offset, ROUNDS as u64);
    assert_eq!(broker.lag("t", "g"), 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn sends_are_refused_while_the_disk_is_full_and_the_broker_goes_on() {
    let folder = folder();
    let broker = open(folder.path()).await;
    let client = consumer(&broker, "t", "g").await;
    client.put("t", "before").await;
    broker.fail_writes(2);
    let answer = client.send(vec![message("t", "1")]).await;
    assert_eq!(code(answer.status.as_ref()), Code::MasterPersistenceTimeout);
    // From now on nothing is taken until the disk has room; receiving goes on.
    let answer = client.send(vec![message("t", "2")]).await;
    assert_eq!(code(answer.status.as_ref()), Code::InternalServerError);
    let text = answer.status.unwrap().message;
    assert!(text.contains("data folder cannot be written"), "{text}");
    assert!(!ids(&client.receive("t", "g").await).is_empty());
    let deadline = Instant::now() + Duration::from_secs(5);
    while code(client.send(vec![message("t", "3")]).await.status.as_ref()) != Code::Ok {
        assert!(Instant::now() < deadline, "the broker did not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.shutdown().await;
    let broker = open(folder.path()).await;
    let kept: BTreeSet<String> = broker.messages("t").into_iter().map(|m| m.id).collect();
    // What was refused although it was taken is kept once that is possible.
    assert_eq!(
        kept,
        BTreeSet::from(["before", "1", "3"].map(str::to_owned))
    );
    broker.shutdown().await;
}

fn told(result: Result<DevBroker, Error>) -> String {
    let error = result.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[tokio::test]
async fn a_folder_belongs_to_one_broker() {
    let folder = folder();
    let broker = open(folder.path()).await;
    let error = told(quick(folder.path()).start().await);
    assert!(error.contains("another broker uses it"), "{error}");
    assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    broker.shutdown().await;
    open(folder.path()).await.shutdown().await;
}

#[tokio::test]
async fn another_version_a_damaged_file_and_no_folder_are_told() {
    let other = folder();
    open(other.path()).await.shutdown().await;
    let file = std::fs::read_dir(other.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let database = redb::Database::open(&file).unwrap();
    let write = database.begin_write().unwrap();
    let about: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("about");
    write
        .open_table(about)
        .unwrap()
        .insert("format", 99)
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let error = told(quick(other.path()).start().await);
    assert!(
        error.contains("another version") && error.contains("format 99"),
        "{error}"
    );

    std::fs::write(
        &file,
        b"no database at all, but a text that somebody left here",
    )
    .unwrap();
    let error = told(quick(other.path()).start().await);
    assert!(error.contains("damaged"), "{error}");

    let error = told(quick(&file.join("folder")).start().await);
    assert!(error.contains("cannot be used"), "{error}");
}
