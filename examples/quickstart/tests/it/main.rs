//! The README's first minute, by the binary itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cli;
mod observability;

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long anything may take that a person would wait for.
const PATIENCE: Duration = Duration::from_secs(20);

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

struct Quickstart {
    child: Child,
    folder: TempDir,
    http: u16,
    grpc: u16,
    admin: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Quickstart {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more settings, as environment variables.
    async fn start_with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (http, grpc, admin) = (free_port(), free_port(), free_port());
        let child = spawn(folder.path(), http, grpc, admin, settings);
        let this = Self {
            child,
            folder,
            http,
            grpc,
            admin,
        };
        let up = async {
            while this
                .request(Request::get("/saver/v1/reports"), "")
                .await
                .is_none()
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, up).await.is_err() {
            panic!("not up after {PATIENCE:?}:\n{}", this.log());
        }
        this
    }

    fn log(&self) -> String {
        log(self.folder.path())
    }

    /// What the admin server tells Prometheus.
    async fn metrics(&self) -> String {
        let request = Request::get("/metrics");
        let (status, body) = ask(self.admin, request, "").await.expect("it listens");
        assert_eq!(status, StatusCode::OK);
        String::from_utf8(body.into()).unwrap()
    }

    /// A gRPC call with an empty message, as bytes; its answer does not matter.
    async fn call(&self, method: &str) {
        let stream = TcpStream::connect(("127.0.0.1", self.grpc)).await.unwrap();
        let connection = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = connection.await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://localhost/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }

    /// `None` when nothing listens.
    async fn request(
        &self,
        request: hyper::http::request::Builder,
        body: &'static str,
    ) -> Option<(StatusCode, Value)> {
        let (status, body) = ask(self.http, request, body).await?;
        Some((status, serde_json::from_slice(&body).unwrap()))
    }

    async fn stop(mut self, signal: &str) -> (ExitStatus, Duration, String) {
        let start = Instant::now();
        let pid = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends")
            .unwrap();
        (status, start.elapsed(), self.log())
    }
}

async fn ask(
    port: u16,
    request: hyper::http::request::Builder,
    body: &'static str,
) -> Option<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = request
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{TRACE_ID}-b7ad6b7169203331-01"))
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Some((status, body))
}

fn spawn(folder: &Path, http: u16, grpc: u16, admin: u16, settings: &[(&str, &str)]) -> Child {
    let log = File::create(folder.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .env("KRATOS_HTTP__ADDR", format!("127.0.0.1:{http}"))
        .env("KRATOS_GRPC__ADDR", format!("127.0.0.1:{grpc}"))
        .env("KRATOS_ADMIN__ADDR", format!("127.0.0.1:{admin}"))
        .envs(settings.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap()
}

#[tokio::test]
async fn a_report_is_stored_in_its_trace_and_sigterm_ends_the_process_cleanly() {
    let service = Quickstart::start().await;
    let report = r#"{"reportType":"event","appId":"a","appKey":"k","eventName":"login","debug":0,"content":"{}"}"#;
    let (status, answer) = service
        .request(Request::post("/agent/v1/report"), report)
        .await
        .unwrap();
    assert_eq!(
        (status, answer),
        (StatusCode::OK, json!({"code": 0, "msg": "success"}))
    );

    let posted = Instant::now();
    let row = loop {
        let list = Request::get("/saver/v1/reports?limit=1");
        let (status, rows) = service.request(list, "").await.unwrap();
        assert_eq!(status, StatusCode::OK);
        if let Some(row) = rows.get(0) {
            break row.clone();
        }
        assert!(posted.elapsed() < PATIENCE, "no row:\n{}", service.log());
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(row["traceId"], TRACE_ID);
    assert_eq!(row["kind"], "event");
    assert_eq!(row["eventName"], "login");
    assert_eq!(row["deliveries"], 1);

    let (status, took, log) = service.stop("-TERM").await;
    assert!(status.success(), "{status}:\n{log}");
    assert!(
        took < Duration::from_secs(2),
        "an idle stop took {took:?}:\n{log}"
    );
    for phase in ["ready", "draining", "stopped"] {
        assert!(
            log.contains(phase),
            "the log does not tell {phase:?}:\n{log}"
        );
    }
}

#[tokio::test]
async fn ctrl_c_ends_the_process_cleanly() {
    let (status, _, log) = Quickstart::start().await.stop("-INT").await;
    assert!(status.success(), "{status}:\n{log}");
}

#[tokio::test]
async fn a_port_in_use_names_the_server_and_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let mut child = spawn(folder.path(), http, free_port(), 0, &[]);
    let status = timeout(PATIENCE, child.wait())
        .await
        .expect("it ends")
        .unwrap();
    let log = log(folder.path());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains(&format!("127.0.0.1:{http}")) && log.contains("http"),
        "{log}"
    );
}
