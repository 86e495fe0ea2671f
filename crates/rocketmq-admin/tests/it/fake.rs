//! A server that follows a script. Its frames are put together here by hand, from the protocol.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rocketmq_admin::{Admin, Config};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Duration,
};

/// Long enough for a busy machine; a test that reaches it fails.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Waited for to its end in tests.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// What the server does about a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers with code 0 and this body.
    Body(String),
    /// Answers with a code and a remark.
    Refuse(i32, &'static str),
    /// Answers with fields and a body.
    Fields(Value, String),
    /// Keeps the connection and says nothing.
    Silence,
    /// Closes the connection.
    Close,
    /// Sends these bytes instead of an answer.
    Rubbish(Vec<u8>),
    /// Sends the first half of an answer and keeps the connection.
    Half,
    /// Sends an answer in pieces of a few bytes.
    Slowly(String),
    /// A request of the server's own and an answer to nobody first, then this body.
    Chatter(String),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) code: i64,
    pub(crate) fields: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Fake {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Answers requests by what `script` says to the code and the number of the connection.
    pub(crate) async fn start(script: impl Fn(i64, usize) -> Act + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (seen, count) = (Arc::clone(&asked), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(serve(stream, script.clone(), number, Arc::clone(&seen)));
            }
        });
        Self {
            address,
            asked,
            connections,
            task,
        }
    }

    /// A name server that knows these master brokers.
    pub(crate) async fn name_server(brokers: &[(&str, &Self)]) -> Self {
        let cluster = cluster(brokers);
        let route = route(brokers);
        Self::start(move |code, _| match code {
            106 => Act::Body(cluster.clone()),
            105 => Act::Body(route.clone()),
            216 => Act::Body(String::new()),
            _ => Act::Refuse(3, "not supported"),
        })
        .await
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A client of this name server, in no hurry.
    pub(crate) fn admin(&self) -> Admin {
        self.admin_within(LONG)
    }

    pub(crate) fn admin_within(&self, timeout: Duration) -> Admin {
        Admin::new(Config::new(&self.address).request_timeout(timeout)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What name servers of every version answer: numbers as keys, without quotes.
pub(crate) fn cluster(brokers: &[(&str, &Fake)]) -> String {
    let table: Vec<_> = brokers
        .iter()
        .map(|(name, it)| {
            let address = it.address();
            format!(
                r#""{name}":{{"brokerAddrs":{{0:"{address}",1:"127.0.0.1:1"}},"brokerName":"{name}","cluster":"c"}}"#
            )
        })
        .collect();
    format!(r#"{{"brokerAddrTable":{{{}}}}}"#, table.join(","))
}

fn route(brokers: &[(&str, &Fake)]) -> String {
    let brokers_data: Vec<_> = brokers
        .iter()
        .map(|(name, it)| {
            json!({"brokerName": name, "cluster": "c", "brokerAddrs": {"0": it.address()}})
        })
        .collect();
    let queues: Vec<_> = brokers
        .iter()
        .map(|(name, _)| {
            json!({"brokerName": name, "readQueueNums": 2, "writeQueueNums": 2, "perm": 6})
        })
        .collect();
    json!({"brokerDatas": brokers_data, "queueDatas": queues}).to_string()
}

async fn serve(
    mut stream: TcpStream,
    script: impl Fn(i64, usize) -> Act,
    number: usize,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    while let Some((opaque, request)) = read(&mut stream).await {
        let act = script(request.code, number);
        asked.lock().unwrap().push(request);
        let ok = |body: &str| frame(&json!({"code": 0, "flag": 1, "opaque": opaque}), body);
        let bytes = match act {
            Act::Body(body) => ok(&body),
            Act::Refuse(code, remark) => {
                let header = json!({"code": code, "flag": 1, "opaque": opaque, "remark": remark});
                frame(&header, "")
            }
            Act::Fields(fields, body) => {
                let header = json!({"code": 0, "flag": 1, "opaque": opaque, "extFields": fields});
                frame(&header, &body)
            }
            Act::Silence => continue,
            Act::Close => return,
            Act::Rubbish(bytes) => bytes,
            Act::Half => {
                let whole = ok("{}");
                whole[..whole.len() / 2].to_vec()
            }
            Act::Slowly(body) => {
                for part in ok(&body).chunks(3) {
                    stream.write_all(part).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
                continue;
            }
            Act::Chatter(body) => {
                // A number of the server's own may be one of ours.
                let request = json!({"code": 40, "flag": 2, "opaque": opaque});
                let stray = json!({"code": 1, "flag": 1, "opaque": opaque + 1000});
                [frame(&request, ""), frame(&stray, ""), ok(&body)].concat()
            }
        };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<(i64, Asked)> {
    let length = stream.read_u32().await.ok()?;
    let header_length = stream.read_u32().await.ok()?;
    let mut header = vec![0; header_length as usize];
    stream.read_exact(&mut header).await.ok()?;
    let mut body = vec![0; (length - 4 - header_length) as usize];
    stream.read_exact(&mut body).await.ok()?;
    let header: Value = serde_json::from_slice(&header).unwrap();
    let fields = header["extFields"].as_object().cloned().unwrap_or_default();
    let text = |(key, value): (String, Value)| (key, value.as_str().unwrap().to_owned());
    let asked = Asked {
        code: header["code"].as_i64().unwrap(),
        fields: fields.into_iter().map(text).collect(),
        body,
    };
    Some((header["opaque"].as_i64().unwrap(), asked))
}

pub(crate) fn frame(header: &Value, body: &str) -> Vec<u8> {
    let header = header.to_string();
    let length = u32::try_from(4 + header.len() + body.len()).unwrap();
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(body.as_bytes());
    bytes
}
