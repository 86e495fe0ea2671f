//! Kills of the program, and a disk that is full.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rocketmq_devbroker::Code;
use rocketmq_proto::v2;
use tokio::time::Instant;

use super::{folder, open};
use crate::{
    binary::start,
    client::{Client, code, handle, id, message},
};

/// An acknowledgement that was confirmed this long before a kill is kept.
const ACK_KEPT_AFTER: Duration = Duration::from_millis(500);

/// By then a call has ended whose server was killed, mostly.
const CUT_WITHIN: Duration = Duration::from_secs(10);

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
