//! Posts reports over HTTP and gRPC, each in a trace of its own, until every one is confirmed.
//!
//! What is repeated is only what a well-behaved client may repeat: a refused connection, and an
//! answer that says the report was not taken (503, UNAVAILABLE).

use std::{
    error::Error,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use report_proto::{PostReportRequest, report_service_client::ReportServiceClient};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, Status, transport::Channel};

use crate::rows::Stored;

/// Workers of each kind.
const WORKERS: u64 = 8;

/// How long one report may take, repetitions included.
const REPORT_MAX: Duration = Duration::from_secs(60);

const REPEAT_AFTER: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) confirmed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unavailable: AtomicU64,
}

pub(crate) struct Poster {
    pub(crate) tally: Arc<Tally>,
    tasks: JoinSet<()>,
}

/// Tells the reports of one run from those that an earlier one left behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run(u64);

impl Run {
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self(u64::try_from(since.as_millis()).unwrap())
    }

    /// What the names of its reports begin with.
    pub(crate) fn prefix(self) -> String {
        format!("report-{}-", self.0)
    }

    /// What report number `n` must look like in the table.
    pub(crate) fn expected(self, n: u64) -> Stored {
        Stored {
            name: format!("{}{n}", self.prefix()),
            trace_id: format!("{:016x}{:016x}", self.0, n + 1),
        }
    }

    fn traceparent(self, n: u64) -> String {
        format!("00-{}-{:016x}-01", self.expected(n).trace_id, n + 1)
    }

    fn report(self, n: u64) -> PostReportRequest {
        let kind = if n.is_multiple_of(2) { "event" } else { "user" };
        PostReportRequest {
            report_type: kind.to_owned(),
            app_id: "a".to_owned(),
            app_key: "k".to_owned(),
            event_name: self.expected(n).name,
            debug: 0,
            content: "{}".to_owned(),
        }
    }
}

impl Poster {
    /// Starts to post reports `0..count`, at most `per_second` of them.
    pub(crate) fn start(run: Run, http: u16, grpc: u16, count: u64, per_second: u64) -> Self {
        let tally = Arc::new(Tally::default());
        let next = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        let channel = Channel::from_shared(format!("http://127.0.0.1:{grpc}"))
            .unwrap()
            .connect_lazy();
        for worker in 0..2 * WORKERS {
            let (tally, next, channel) = (tally.clone(), next.clone(), channel.clone());
            tasks.spawn(async move {
                let mut client = ReportServiceClient::new(channel);
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= count {
                        return;
                    }
                    let due = start + Duration::from_micros(n * 1_000_000 / per_second);
                    sleep_until(due).await;
                    let begun = Instant::now();
                    loop {
                        let confirmed = if worker < WORKERS {
                            post_http(http, run, n, &tally).await
                        } else {
                            post_grpc(&mut client, run, n, &tally).await
                        };
                        if confirmed {
                            tally.confirmed.fetch_add(1, Relaxed);
                            break;
                        }
                        assert!(begun.elapsed() < REPORT_MAX, "report {n} is not taken");
                        sleep(REPEAT_AFTER).await;
                    }
                }
            });
        }
        Self { tally, tasks }
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.tally.confirmed.load(Relaxed)
    }

    /// Waits until this many are confirmed.
    pub(crate) async fn reaches(&mut self, confirmed: u64) {
        let start = Instant::now();
        while self.confirmed() < confirmed {
            // A worker that failed says why.
            if let Some(ended) = self.tasks.try_join_next() {
                ended.unwrap();
            }
            assert!(
                start.elapsed() < 2 * REPORT_MAX,
                "{} confirmed",
                self.confirmed()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn finish(mut self) -> Arc<Tally> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.tally
    }
}

async fn post_http(port: u16, run: Run, n: u64, tally: &Tally) -> bool {
    let stream = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tally.refused.fetch_add(1, Relaxed);
            return false;
        }
        Err(error) => panic!("report {n}: connect: {error}"),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post("/agent/v1/report")
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json")
        .header("traceparent", run.traceparent(n))
        .body(Full::new(Bytes::from(
            serde_json::to_vec(&run.report(n)).unwrap(),
        )))
        .unwrap();
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => panic!("report {n}: an accepted connection was cut: {error:?}"),
    };
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    connection.abort();
    match status {
        StatusCode::OK => {
            assert_eq!(body, r#"{"code":0,"msg":"success"}"#);
            true
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            tally.unavailable.fetch_add(1, Relaxed);
            false
        }
        other => panic!("report {n}: {other} {}", String::from_utf8_lossy(&body)),
    }
}

async fn post_grpc(
    client: &mut ReportServiceClient<Channel>,
    run: Run,
    n: u64,
    tally: &Tally,
) -> bool {
    let mut request = tonic::Request::new(run.report(n));
    request
        .metadata_mut()
        .insert("traceparent", run.traceparent(n).parse().unwrap());
    match client.post_report(request).await {
        Ok(response) => {
            assert_eq!(response.into_inner().code, 0);
            true
        }
        Err(status) if status.code() == Code::Unavailable => {
            let counter = match status.source() {
                Some(_) => &tally.refused,
                None => &tally.unavailable,
            };
            counter.fetch_add(1, Relaxed);
            false
        }
        Err(status) if was_not_sent(&status) => {
            tally.refused.fetch_add(1, Relaxed);
            false
        }
        Err(status) => panic!("report {n}: {status:?}"),
    }
}

/// The connection was closed before the request went out: nobody has seen it.
fn was_not_sent(status: &Status) -> bool {
    let mut cause: Option<&dyn Error> = status.source();
    while let Some(error) = cause {
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
