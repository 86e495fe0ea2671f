//! The saver as a process of its own: a RocketMQ consumer and an HTTP server.

use std::process::ExitCode;

use kratos::{App, admin, http, telemetry};
use kratos_rocketmq::{self as rocketmq, Subscription};
use report_proto::{AcceptStatusReportData, RealTimeWarehousingData};
use saver_service::{GROUP, Store, TOPIC_EVENT, TOPIC_USER, save_event, save_status};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    app: kratos::Config,
    admin: admin::Config,
    http: http::Config,
    rocketmq: rocketmq::Config,
    store: saver_service::Config,
    telemetry: telemetry::Config,
}

fn main() -> ExitCode {
    kratos::cli::main(app)
}

async fn app() -> kratos::Result<App> {
    let config: Config = kratos::config::load("saver-service")?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let store = Store::new(config.store);
    let client = rocketmq::Client::new(config.rocketmq)?;
    let consumer = rocketmq::Server::new(client.clone())
        .subscribe_with(
            Subscription::new(TOPIC_EVENT, GROUP).schema::<RealTimeWarehousingData>(),
            save_event,
        )
        .subscribe_with(
            Subscription::new(TOPIC_USER, GROUP).schema::<AcceptStatusReportData>(),
            save_status,
        )
        .with_state(store.clone());

    Ok(App::new()
        .name("saver-service")
        .version(env!("CARGO_PKG_VERSION"))
        .config(config.app)
        .resource(telemetry)
        .resource(store.clone())
        .resource(client)
        .server(admin::Server::new(config.admin))
        .server(
            http::Server::new(config.http, saver_service::routes(store))
                .openapi(saver_service::openapi()),
        )
        .server(consumer))
}
