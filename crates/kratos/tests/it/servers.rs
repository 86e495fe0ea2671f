//! Running HTTP and gRPC servers for a test, and talking to them.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, time::Duration};

use axum::{Router, extract::Request, response::Response};
use futures_util::{Stream, stream};
use kratos::{App, Handle, Phase, Result, Signals, grpc, http};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};
use tonic::{
    Status,
    body::Body,
    client::{self, GrpcService},
    codegen::http::uri::PathAndQuery,
    server::{self, NamedService},
    transport::Channel,
};
use tonic_prost::ProstCodec;
use tower::service_fn;

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) task: JoinHandle<Result<()>>,
}

/// `test.Echo`: `Name` answers the App's name and the trace, `Baggage` the baggage, `Hang` streams nothing for ever, `Panic` panics.
#[derive(Clone)]
pub(crate) struct Echo;

pub(crate) fn http_server(router: Router) -> http::Server {
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    http::Server::new(
        http::Config {
            addr,
            ..Default::default()
        },
        router,
    )
}

pub(crate) fn grpc_server() -> grpc::Server {
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    grpc::Server::new(grpc::Config {
        addr,
        ..Default::default()
    })
    .add_service(Echo)
}

/// Runs `app` until its first server listens.
pub(crate) async fn run(app: App) -> Running {
    let (tell, told) = oneshot::channel();
    let app = app
        .name("echo")
        .signals(Signals::none())
        .after_start("tell", |cx| async move {
            let _ = tell.send(cx.info().endpoints()[0].addr());
        });
    let handle = app.handle();
    let task = tokio::spawn(app.run());
    let addr = told.await.unwrap();
    Running { addr, handle, task }
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends one request on a connection of its own; answers all that came.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = self.connect().await;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addr)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.handle.stop();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.task).await;
        assert_eq!(self.handle.phase(), Phase::Stopped);
        ended.unwrap().unwrap()
    }
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_string(&mut text).await;
    text
}

/// Calls a unary method of `test.Echo` with an empty message.
pub(crate) async fn call<C>(channel: C, method: &'static str) -> Result<String, Status>
where
    C: GrpcService<Body, ResponseBody = Body>,
    C::Error: Into<tower::BoxError>,
{
    let mut client = client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(e.into().to_string()))?;
    let path = PathAndQuery::from_static(method);
    let request = tonic::Request::new(String::new());
    let answer = client
        .unary(request, path, ProstCodec::<String, String>::default())
        .await?;
    Ok(answer.into_inner())
}

/// Opens the stream that never says anything.
pub(crate) async fn hang(channel: Channel) -> tonic::Streaming<String> {
    let mut client = client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/test.Echo/Hang");
    let request = tonic::Request::new(String::new());
    let codec = ProstCodec::<String, String>::default();
    client
        .server_streaming(request, path, codec)
        .await
        .unwrap()
        .into_inner()
}

// === impl Echo ===

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl tower::Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(
        &mut self,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(match request.uri().path() {
                "/test.Echo/Name" => grpc.unary(service_fn(name), request).await,
                "/test.Echo/Baggage" => grpc.unary(service_fn(baggage), request).await,
                "/test.Echo/Hang" => grpc.server_streaming(service_fn(nothing), request).await,
                "/test.Echo/Wait" => std::future::pending().await,
                _ => panic!("the method is broken"),
            })
        })
    }
}

async fn name(request: tonic::Request<String>) -> Result<tonic::Response<String>, Status> {
    let info = request.extensions().get::<kratos::AppInfo>();
    let info = info.ok_or_else(|| Status::internal("no AppInfo"))?;
    let trace_id = kratos::trace::current_trace_id().unwrap_or_default();
    Ok(tonic::Response::new(format!("{} {trace_id}", info.name())))
}

async fn baggage(_: tonic::Request<String>) -> Result<tonic::Response<String>, Status> {
    let header = kratos::trace::format_baggage(&kratos::trace::baggage());
    Ok(tonic::Response::new(header.unwrap_or_default()))
}

type Nothing = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

async fn nothing(_: tonic::Request<String>) -> Result<tonic::Response<Nothing>, Status> {
    Ok(tonic::Response::new(Box::pin(stream::pending())))
}
