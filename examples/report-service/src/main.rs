//! The report service as a process of its own: HTTP and gRPC in, RocketMQ out.

use std::process::ExitCode;

use kratos::{App, admin, grpc, http, telemetry};
use kratos_rocketmq as rocketmq;
use report_service::{Reports, TOPIC_EVENT, TOPIC_USER};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    app: kratos::Config,
    admin: admin::Config,
    http: http::Config,
    grpc: grpc::Config,
    rocketmq: rocketmq::Config,
    telemetry: telemetry::Config,
}

fn main() -> ExitCode {
    kratos::cli::main(app)
}

async fn app() -> kratos::Result<App> {
    let config: Config = kratos::config::load("report-service")?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let client = rocketmq::Client::new(config.rocketmq)?.publishes([TOPIC_EVENT, TOPIC_USER]);
    let reports = Reports::new(client.publisher());

    Ok(App::new()
        .name("report-service")
        .version(env!("CARGO_PKG_VERSION"))
        .config(config.app)
        .resource(telemetry)
        .resource(client)
        .server(admin::Server::new(config.admin))
        .server(
            http::Server::new(config.http, report_service::routes(reports.clone()))
                .openapi(report_service::openapi()),
        )
        .server(
            grpc::Server::new(config.grpc)
                .add_service(report_service::service(reports))
                .reflection([report_service::DESCRIPTORS]),
        ))
}
