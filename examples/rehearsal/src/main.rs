//! A service to rehearse bad nights with: orders and refunds go through a payment gateway that is
//! up, down or silent, as one says, and the operations page shows what comes of it.
//!
//! ```text
//! curl -X PUT localhost:8000/gateway/silent    handlers wait for ever: stuck
//! curl -X POST localhost:8000/orders/1         one message, which waits for the gateway
//! curl -X PUT localhost:8000/gateway/down      orders become dead letters; the switch of refunds opens
//! curl -X PUT localhost:8000/gateway/up        all goes on
//! ```

mod gateway;
mod payments;

use std::process::ExitCode;

use kratos::{App, admin, http, telemetry};
use kratos_rocketmq as rocketmq;
use serde::Deserialize;

use self::gateway::Gateway;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    app: kratos::Config,
    admin: admin::Config,
    http: http::Config,
    rocketmq: rocketmq::Config,
    telemetry: telemetry::Config,
}

fn main() -> ExitCode {
    kratos::cli::main(app)
}

async fn app() -> kratos::Result<App> {
    let config: Config = kratos::config::load("rehearsal")?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let client = rocketmq::Client::new_or_embedded(config.rocketmq)?;
    let gateway = Gateway::new();
    let routes = gateway::routes(gateway.clone()).merge(payments::routes(&client.publisher()));
    let consumer = rocketmq::Server::new(client.clone())
        .subscribe_with(payments::orders(), payments::bill)
        .subscribe_with(payments::refunds(), payments::pay_back)
        .with_state(gateway);

    Ok(App::new()
        .name("rehearsal")
        .version(env!("CARGO_PKG_VERSION"))
        .config(config.app)
        .resource(telemetry)
        .resource(client)
        .server(admin::Server::new(config.admin))
        .server(http::Server::new(config.http, routes))
        .server(consumer))
}
