//! The report service and the saver in one process, on the embedded broker.

use std::process::ExitCode;

use kratos::{App, admin, grpc, http, telemetry};
use kratos_rocketmq as rocketmq;
use report_service::Reports;
use saver_service::Store;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    app: kratos::Config,
    admin: admin::Config,
    http: http::Config,
    grpc: grpc::Config,
    rocketmq: rocketmq::Config,
    store: saver_service::Config,
    telemetry: telemetry::Config,
}

fn main() -> ExitCode {
    kratos::cli::main(app)
}

async fn app() -> kratos::Result<App> {
    let config: Config = kratos::config::load("quickstart")?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let store = Store::new(config.store);
    // The embedded broker, unless rocketmq.endpoints names a real one.
    let client = rocketmq::Client::new_or_embedded(config.rocketmq)?;
    let reports = Reports::new(client.publisher());

    let http_server = http::Server::new(
        config.http,
        report_service::routes(reports.clone()).merge(saver_service::routes(store.clone())),
    )
    .openapi(report_service::openapi())
    .openapi(saver_service::openapi());
    let grpc_server = grpc::Server::new(config.grpc)
        .add_service(report_service::service(reports))
        .reflection([report_service::DESCRIPTORS]);
    let rocketmq_server = rocketmq::Server::new(client.clone())
        .subscribe(
            "logger_report_event",
            "logger-saver",
            saver_service::save_event,
        )
        .subscribe(
            "logger_report_user",
            "logger-saver",
            saver_service::save_status,
        )
        .with_state(store.clone());

    Ok(App::new()
        .name("quickstart")
        .version(env!("CARGO_PKG_VERSION"))
        .config(config.app)
        .resource(telemetry)
        .resource(store)
        .resource(client)
        .server(admin::Server::new(config.admin))
        .server(http_server)
        .server(grpc_server)
        .server(rocketmq_server))
}
