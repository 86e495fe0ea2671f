//! The data folder: what comes back after an orderly end, after a kill, and what is told when the
//! folder cannot be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rocketmq_devbroker::{Builder, Code, DevBroker, Error, GroupConfig, TopicType};
use rocketmq_proto::v2;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    binary::start,
    client::{Client, attempt, code, handle, id, message, system},
    eventually,
};

/// An acknowledgement that was confirmed this long before a kill is kept.
const ACK_KEPT_AFTER: Duration = Duration::from_millis(500);

/// By then a call has ended whose server was killed, mostly.
const CUT_WITHIN: Duration = Duration::from_secs(10);

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

fn killed(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn address(line: &str) -> SocketAddr {
    line.strip_prefix("listening on ").unwrap().parse().unwrap()
}

/// Receives until nothing has come for a while, acks everything, and returns the ids.
async fn drain(addr: SocketAddr, group: &str) -> BTreeSet<String> {
    let mut client = Client::dial_addr(addr, &format!("drain-{group}")).await;
    client.consume("t", group).await.unwrap();
    let mut seen = BTreeSet::new();
    loop {
        let received = client.receive("t", group).await;
        if received.messages.is_empty() {
            return seen;
        }
        seen.extend(received.messages.iter().map(|m| id(m).to_owned()));
        let handles: Vec<String> = received.messages.iter().map(handle).collect();
        client.ack("t", group, &handles).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_load_loses_no_confirmed_message_and_few_acks() {
    const SENDERS: usize = 16;
    const CONFIRMED: usize = 250;
    let folder = folder();
    let data = folder.path().to_str().unwrap().to_owned();
    let mut confirmed = BTreeSet::new();
    let mut acked: BTreeMap<String, Instant> = BTreeMap::new();
    let mut killed_at = Instant::now();
    for round in 0..3 {
        let (child, line) = start(&["--data", &data, "--topic", "t:NORMAL"]);
        let addr = address(&line);
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for sender in 0..SENDERS {
            let (count, sent) = (Arc::clone(&count), Arc::clone(&sent));
            tasks.push(tokio::spawn(async move {
                let client = Client::dial_addr(addr, &format!("sender-{sender}")).await;
                for n in 0.. {
                    let name = format!("{round}-{sender}-{n}");
                    let messages = vec![message("t", &name)];
                    let request = client.request(v2::SendMessageRequest { messages });
                    let Ok(answer) = client.stub.clone().send_message(request).await else {
                        return;
                    };
                    assert_eq!(code(answer.into_inner().status.as_ref()), Code::Ok);
                    sent.lock().unwrap().push(name);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let acks = Arc::new(Mutex::new(Vec::new()));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&acks));
        tasks.push(tokio::spawn(async move {
            let mut client = Client::dial_addr(addr, "consumer").await;
            client.consume("t", "g").await.unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let ask = Client::ask("t", "g");
                let Ok(received) = client.try_receive(ask, Duration::from_secs(25)).await else {
                    return;
                };
                let names: Vec<String> = received.messages.iter().map(|m| id(m).into()).collect();
                let handles: Vec<String> = received.messages.iter().map(handle).collect();
                let Ok(answer) = client.try_ack("t", "g", &handles).await else {
                    return;
                };
                let entries = answer.entries.iter().zip(names);
                let done = entries.filter(|(e, _)| code(e.status.as_ref()) == Code::Ok);
                let now = Instant::now();
                noted
                    .lock()
                    .unwrap()
                    .extend(done.map(|(_, name)| (name, now)));
            }
        }));
        let deadline = Instant::now() + Duration::from_secs(60);
        while count.load(Ordering::Relaxed) < CONFIRMED {
            assert!(Instant::now() < deadline, "too few sends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        killed_at = Instant::now();
        killed(child);
        stop.store(true, Ordering::Relaxed);
        for mut task in tasks {
            // There is no server any more: a call that goes on was not told so by its connection.
            match tokio::time::timeout(CUT_WITHIN, &mut task).await {
                Ok(ended) => ended.unwrap(),
                Err(_) => task.abort(),
            }
        }
        confirmed.extend(sent.lock().unwrap().drain(..));
        acked.extend(acks.lock().unwrap().drain(..));
        let again: Vec<&String> = acked.keys().collect();
        assert!(!again.is_empty(), "nothing was acknowledged under load");
    }

    let (child, line) = start(&["--data", &data]);
    let all = drain(address(&line), "fresh").await;
    let lost: Vec<&String> = confirmed
        .iter()
        .filter(|name| !all.contains(*name))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} lost: {lost:?}",
        lost.len(),
        confirmed.len()
    );
    let rest = drain(address(&line), "g").await;
    let back: Vec<&String> = rest
        .iter()
        .filter(|name| {
            acked
                .get(*name)
                .is_some_and(|at| killed_at - *at > ACK_KEPT_AFTER)
        })
        .collect();
    assert!(
        back.is_empty(),
        "{} acked messages came again: {back:?}",
        back.len()
    );
    let settled = |name: &&String| !acked.contains_key(*name) && !rest.contains(*name);
    let missing: Vec<&String> = confirmed.iter().filter(settled).collect();
    assert!(missing.is_empty(), "neither acked nor there: {missing:?}");
    killed(child);
}

/// A limit on the size of files stands for a full disk: it needs no rights and no disk of its own.
#[tokio::test]
async fn a_program_whose_disk_is_full_refuses_sends_and_keeps_what_it_confirmed() {
    const LIMIT_BLOCKS: &str = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
    let folder = folder();
    let data = folder.path().to_str().unwrap().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", LIMIT_BLOCKS, env!("CARGO_BIN_EXE_rocketmq-devbroker")]);
    command.args(["--listen", "127.0.0.1:0", "--data", &data, "--topic", "t"]);
    command.stdout(Stdio::piped());
    let (child, line) = crate::binary::spawn(command);
    let client = Client::dial_addr(address(&line), "p").await;
    let mut confirmed = BTreeSet::new();
    let mut refused = Vec::new();
    for n in 0..200 {
        let mut message = message("t", &n.to_string());
        message.body = vec![1; 64 << 10].into();
        match code(client.send(vec![message]).await.status.as_ref()) {
            Code::Ok => {
                confirmed.insert(n.to_string());
            }
            code => refused.push(code),
        }
        if refused.len() == 20 {
            break;
        }
    }
    assert_eq!(refused.len(), 20, "{} confirmed", confirmed.len());
    let retryable = [Code::MasterPersistenceTimeout, Code::InternalServerError];
    assert!(
        refused.iter().all(|code| retryable.contains(code)),
        "{refused:?}"
    );
    assert!(!confirmed.is_empty());
    let route = client.route("t").await;
    assert_eq!(code(route.status.as_ref()), Code::Ok);
    killed(child);

    let broker = open(folder.path()).await;
    let kept: BTreeSet<String> = broker.messages("t").into_iter().map(|m| m.id).collect();
    assert!(confirmed.is_subset(&kept), "{confirmed:?} {kept:?}");
    broker.shutdown().await;
}
