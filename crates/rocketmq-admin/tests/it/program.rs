//! The program: what it prints, and its exit codes.

use std::process::Output;

use serde_json::json;
use tokio::process::Command;

use crate::fake::{Act, Fake};

async fn run(names: &Fake, args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_rocketmq-admin"))
        .args(["--namesrv", names.address()])
        .args(args)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn broker() -> Fake {
    Fake::start(|code, _| match code {
        201 => {
            let policy = json!({
                "type": "EXPONENTIAL",
                "exponentialRetryPolicy": {"initial": 1000, "max": 10000, "multiplier": 2}
            });
            let group = json!({"retryMaxTimes": 3, "groupRetryPolicy": policy});
            Act::Body(
                json!({"subscriptionGroupTable": {"g": group, "TOOLS_CONSUMER": {}}}).to_string(),
            )
        }
        208 => {
            let key = r#"{"brokerName":"a","queueId":0,"topic":"t"}"#;
            let offsets = r#"{"brokerOffset":1200,"consumerOffset":7,"lastTimestamp":0}"#;
            Act::Body(format!(r#"{{"offsetTable":{{{key}:{offsets}}}}}"#))
        }
        _ => Act::Body("{}".to_owned()),
    })
    .await
}

#[tokio::test]
async fn tables_are_readable() {
    let broker = broker().await;
    let names = Fake::name_server(&[("a", &broker)]).await;
    let (code, out, err) = run(&names, &["lag", "g"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let want = "\
TOPIC  BROKER  QUEUE  STORED  CONSUMED  LAG   UNTIL
t      a       0      1200    7         1193  never
lag 1193
";
    assert_eq!(out, want);
    let (_, out, _) = run(&names, &["group", "list"]).await;
    let want = "\
GROUP  ORDER  RETRY  BACK-OFF            BROKERS
g             3      back-off 1s to 10s  a
";
    assert_eq!(out, want);
}

#[tokio::test]
async fn what_was_done_is_told_line_by_line() {
    let broker = broker().await;
    let names = Fake::name_server(&[("a", &broker)]).await;
    let topics = ["topic", "create", "t:FIFO:queues=8", "u", "--wait", "10s"];
    let (code, out, _) = run(&names, &topics).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "topic t: FIFO, 8 queues\ntopic u: NORMAL, 4 queues\n")
    );
    let (code, out, _) = run(
        &names,
        &["group", "create", "g:orderly:retry=3:backoff=1s-10s"],
    )
    .await;
    assert_eq!(
        (code, out.as_str()),
        (0, "group g: retry 3, orderly, back-off 1s to 10s\n")
    );
    let (code, out, err) = run(&names, &["-q", "group", "delete", "g"]).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
}

#[tokio::test]
async fn failures_have_exit_codes() {
    let broker = Fake::start(|_, _| Act::Refuse(1, "disk full")).await;
    let names = Fake::name_server(&[("a", &broker)]).await;
    let (code, out, err) = run(&names, &["topic", "create", "t"]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with("error: create topic t: broker a at ") && err.contains("disk full"),
        "{err}"
    );

    // A mistake in any spec is found before the first is sent.
    let before = broker.asked().len();
    let (code, _, err) = run(&names, &["topic", "create", "t", "u:FIFI"]).await;
    assert!(code == 2 && err.contains("FIFI"), "{code} {err}");
    let (code, _, _) = run(&names, &["reset-offset", "g", "t"]).await;
    assert_eq!(code, 2);
    let (code, out, _) = run(&names, &["--help"]).await;
    assert!(code == 0 && out.contains("reset-offset"), "{out}");
    assert_eq!(broker.asked().len(), before);
}

#[tokio::test]
async fn a_failure_prints_no_empty_table() {
    let names = Fake::start(|_, _| Act::Refuse(3, " request type 106 not supported")).await;
    for args in [&["cluster"][..], &["topic", "list"], &["group", "list"]] {
        let (code, out, err) = run(&names, args).await;
        assert_eq!((code, out.as_str()), (1, ""));
        // A broker says so when it is taken for a name server.
        assert!(err.contains("code 3: request type 106"), "{err}");
        assert!(
            err.contains("is this the address of a name server"),
            "{err}"
        );
    }
    let names = Fake::start(|_, _| Act::Close).await;
    let (_, _, err) = run(&names, &["cluster"]).await;
    assert!(
        err.contains("is this the address of a name server?"),
        "{err}"
    );
}

#[tokio::test]
async fn a_mistake_that_the_library_finds_is_one_in_the_arguments_too() {
    let mistakes = [
        &["topic", "show", "a b"][..],
        &["group", "delete", "a/b"],
        &["--namesrv", "127.0.0.1", "cluster"],
        &["--timeout", "0s", "cluster"],
        &["--timeout", "soon", "cluster"],
    ];
    for args in mistakes {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rocketmq-admin"));
        let output = command.args(args).output().await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.starts_with("error: "), "{err}");
    }
}

#[tokio::test]
async fn a_wait_may_be_longer_than_any_clock() {
    let broker = broker().await;
    let names = Fake::name_server(&[("a", &broker)]).await;
    let forever = "18446744073709551615s";
    let (code, out, err) = run(&names, &["topic", "wait", "t", "--within", forever]).await;
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "topic t: known\n", "")
    );
}
