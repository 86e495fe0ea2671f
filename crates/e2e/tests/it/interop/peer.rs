//! The official Python client, as a process.

use std::{
    env,
    process::{Output, Stdio},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, timeout_at},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/peer.py");
/// How long a step of the other client may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running command of `peer.py`.
pub(super) struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Everything it said, for a failure's reader.
    said: Vec<String>,
    _home: TempDir,
}

/// A message that the other client received.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Received {
    pub(super) id: String,
    pub(super) body: Bytes,
    pub(super) tag: Option<String>,
    pub(super) keys: Vec<String>,
    pub(super) group: Option<String>,
    pub(super) properties: Value,
    pub(super) attempt: u64,
}

impl Peer {
    pub(super) fn start(endpoints: &str, command: &str, wanted: &Value) -> Self {
        let (mut process, home) = process();
        let mut child = process
            .args([endpoints, command, &wanted.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            said: Vec::new(),
            _home: home,
        }
    }

    /// Consumes messages, `ready` when this returns.
    pub(super) async fn consume(endpoints: &str, command: &str, wanted: &Value) -> Self {
        let mut peer = Self::start(endpoints, command, wanted);
        peer.next("ready").await;
        peer
    }

    /// Sends these and returns their ids.
    pub(super) async fn send(endpoints: &str, messages: &[Value]) -> Vec<String> {
        let mut peer = Self::start(endpoints, "send", &json!({ "messages": messages }));
        let mut ids = Vec::new();
        for _ in messages {
            ids.push(text(&peer.next("sent").await));
        }
        peer.finished().await;
        ids
    }

    /// The value of the next line that has `key`.
    pub(super) async fn next(&mut self, key: &str) -> Value {
        let by = Instant::now() + PATIENCE;
        loop {
            let Ok(line) = timeout_at(by, self.lines.next_line()).await else {
                panic!("no {key:?} within {PATIENCE:?}, only {:?}", self.said);
            };
            let Some(line) = line.unwrap() else {
                panic!("ended without {key:?}, after {:?}", self.said);
            };
            let value: Value = serde_json::from_str(&line).unwrap();
            self.said.push(line);
            if let Some(found) = value.get(key) {
                return found.clone();
            }
        }
    }

    pub(super) async fn received(&mut self) -> Received {
        Received::read(&self.next("received").await)
    }

    /// Waits for its end, which must be a good one.
    pub(super) async fn finished(mut self) -> Vec<String> {
        let by = Instant::now() + PATIENCE;
        while let Ok(Ok(Some(line))) = timeout_at(by, self.lines.next_line()).await {
            self.said.push(line);
        }
        let ended = timeout_at(by, self.child.wait()).await;
        assert!(
            matches!(&ended, Ok(Ok(status)) if status.success()),
            "{ended:?} after {:?}",
            self.said
        );
        self.said
    }
}

/// What `peer.py descriptors` prints.
pub(super) async fn descriptors() -> Vec<u8> {
    let (mut process, _home) = process();
    let Output { status, stdout, .. } = process.arg("descriptors").output().await.unwrap();
    assert!(status.success(), "{status}");
    BASE64_STANDARD.decode(stdout.trim_ascii()).unwrap()
}

/// A message to send, as `peer.py` wants it.
pub(super) fn message(topic: &str, body: &[u8]) -> Value {
    json!({ "topic": topic, "body": BASE64_STANDARD.encode(body) })
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn process() -> (Command, TempDir) {
    let python = env::var("INTEROP_PYTHON")
        .expect("INTEROP_PYTHON names no Python with the official client: run `make e2e`");
    let home = tempfile::tempdir().unwrap();
    let mut process = Command::new(python);
    // It writes its log there.
    process
        .arg(SCRIPT)
        .env("HOME", home.path())
        .kill_on_drop(true);
    (process, home)
}

impl Received {
    pub(super) fn read(value: &Value) -> Self {
        let optional = |key: &str| value[key].as_str().map(str::to_owned);
        assert_eq!(value["corrupted"], false, "{value}");
        Self {
            id: text(&value["id"]),
            body: BASE64_STANDARD.decode(text(&value["body"])).unwrap().into(),
            tag: optional("tag"),
            keys: value["keys"].as_array().unwrap().iter().map(text).collect(),
            group: optional("group"),
            properties: value["properties"].clone(),
            attempt: value["attempt"].as_u64().unwrap(),
        }
    }
}
