//! A handler that blocks its thread, as no handler should: the process still ends in time.
//!
//! It says `blocking` when it does; SIGTERM then ends it within its stop timeout and half a second.

use std::{io::Write, process::ExitCode, time::Duration};

use kratos::App;
use kratos_broker::Message;
use kratos_rocketmq::{Client, Server};

fn main() -> ExitCode {
    kratos::main(run)
}

async fn run() -> kratos::Result<()> {
    let client = Client::embedded();
    let publisher = client.publisher();
    let server = Server::new(client.clone()).subscribe("orders", "billing", block);
    App::new()
        .stop_timeout(Duration::from_secs(2))
        .resource(client)
        .server(server)
        .after_start("publish", |_| async move {
            publisher
                .publish(Message::new("orders", "1"))
                .await
                .map(drop)
                .map_err(kratos::Error::from)
        })
        .run()
        .await
}

async fn block() {
    let _ = std::io::stdout().write_all(b"blocking");
    let _ = std::io::stdout().flush();
    #[expect(
        clippy::disallowed_methods,
        reason = "this is what the example is about"
    )]
    std::thread::sleep(Duration::from_secs(60));
}
