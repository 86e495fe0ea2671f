//! A service of which one report is one trace.

use std::net::SocketAddr;

use axum::{Router, extract::State as Shared, http::StatusCode, routing::post};
use kratos::{App, Handle, Phase, Signals, grpc, http, trace};
use kratos_broker::{AnyError, Bytes, Driver, Message, Publisher, Server, State};
use report_proto::{
    PostReportRequest, PostReportResponse,
    report_service_client::ReportServiceClient,
    report_service_server::{ReportService, ReportServiceServer},
};
use sqlx::SqlitePool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};
use tracing::{Instrument, info_span};

/// What the handler calls.
pub(crate) const CALL: &str = "report.v1.ReportService/PostReport";

/// Answers every report, and notes the baggage that comes with it.
struct Answers(mpsc::UnboundedSender<Option<String>>);

#[tonic::async_trait]
impl ReportService for Answers {
    async fn post_report(
        &self,
        _: tonic::Request<PostReportRequest>,
    ) -> Result<tonic::Response<PostReportResponse>, tonic::Status> {
        let _gone = self.0.send(trace::format_baggage(&trace::baggage()));
        Ok(tonic::Response::new(PostReportResponse::default()))
    }
}

/// What the handler works with.
#[derive(Clone)]
struct Store {
    rows: SqlitePool,
    answers: ReportServiceClient<grpc::Traced<Channel>>,
}

async fn save(State(mut store): State<Store>, body: Bytes) -> Result<(), AnyError> {
    let insert = info_span!(
        "INSERT reports",
        otel.kind = "client",
        db.system.name = "sqlite",
        db.operation.name = "INSERT",
        db.collection.name = "reports",
    );
    sqlx::query("INSERT INTO reports VALUES (?)")
        .bind(&body[..])
        .execute(&store.rows)
        .instrument(insert)
        .await?;
    store
        .answers
        .post_report(PostReportRequest::default())
        .await?;
    Ok(())
}

async fn take<D: Driver>(
    Shared((publisher, topic)): Shared<(Publisher<D>, &'static str)>,
    body: Bytes,
) -> StatusCode {
    let message = Message::new(topic, body)
        .tag("eu")
        .key("order-7")
        .key("order-8");
    match publisher.publish(message).await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub(crate) fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The service: HTTP in, a message, a row, a call of another service.
pub(crate) struct Reports {
    back: Running,
    front: Running,
    http: SocketAddr,
    /// What comes with each call.
    pub(crate) baggage: mpsc::UnboundedReceiver<Option<String>>,
}

/// An App that runs in a task.
struct Running {
    handle: Handle,
    task: JoinHandle<kratos::Result<()>>,
}

impl Running {
    async fn start(app: App) -> Self {
        let app = app.signals(Signals::none());
        let handle = app.handle();
        let task = tokio::spawn(app.run());
        assert_eq!(handle.reached(Phase::Ready).await, Phase::Ready);
        Self { handle, task }
    }

    fn addr(&self) -> SocketAddr {
        self.handle.info().unwrap().endpoints()[0].addr()
    }

    async fn stop(self) {
        self.handle.stop();
        self.task.await.unwrap().unwrap();
    }
}

impl Reports {
    pub(crate) async fn start<D: Driver>(
        driver: D,
        topic: &'static str,
        group: &str,
        app: App,
    ) -> Self {
        let (noted, baggage) = mpsc::unbounded_channel();
        let config = grpc::Config {
            addr: local(),
            ..Default::default()
        };
        let answers = ReportServiceServer::new(Answers(noted));
        let back = App::new().name("answers");
        let back = back.server(grpc::Server::new(config).add_service(answers));
        let back = Running::start(back).await;
        let at = back.addr();
        let channel = Endpoint::from_shared(format!("http://{at}"))
            .unwrap()
            .connect_lazy();
        let channel = grpc::Traced::new(channel).server(at.ip().to_string(), at.port());
        let rows = SqlitePool::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE reports (body BLOB)")
            .execute(&rows)
            .await
            .unwrap();
        let store = Store {
            rows,
            answers: ReportServiceClient::new(channel),
        };
        let consumer = Server::new(driver.clone())
            .subscribe(topic, group, save)
            .with_state(store);
        let routes = Router::new()
            .route("/agent/v1/report", post(take::<D>))
            .with_state((Publisher::new(driver), topic));
        let config = http::Config {
            addr: local(),
            ..Default::default()
        };
        let front = app.name("reports");
        let front = front
            .server(http::Server::new(config, routes))
            .server(consumer);
        let front = Running::start(front).await;
        let http = front.addr();
        Self {
            back,
            front,
            http,
            baggage,
        }
    }

    pub(crate) async fn post(&self, headers: &str) {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let request = format!(
            "POST /agent/v1/report HTTP/1.1\r\nhost: x\r\n{headers}content-length: 1\r\n\
             connection: close\r\n\r\nx"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    pub(crate) async fn stop(self) {
        self.front.stop().await;
        self.back.stop().await;
    }
}
