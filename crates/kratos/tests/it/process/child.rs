//! A process to send real signals to: `test-child MODE`.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it talks to its parent, and blocks"
)]

use std::{future::pending, process::ExitCode, time::Duration};

use kratos::{
    App, BoundServer, Error, HookContext, Resource, Result, Server, Shutdown, StartContext,
};
use tokio::time::{Instant, sleep};

fn main() -> ExitCode {
    kratos::main(run)
}

async fn run() -> Result<()> {
    say("running");
    let mode = std::env::args().nth(1).unwrap_or_default();
    let app = App::new()
        .name("child")
        .after_start("say", |_| async { say("ready") });
    match &*mode {
        "idle" => app.server(Behaviour::Obeys).run().await,
        "before" => {
            sleep(Duration::from_secs(60)).await;
            app.run().await
        }
        "slow" => {
            let slow = || SlowOpen;
            app.resource(slow())
                .resource(slow())
                .server(Behaviour::Obeys)
                .run()
                .await
        }
        "hung" => {
            app.stop_timeout(Duration::from_secs(60))
                .server(Behaviour::Deaf)
                .run()
                .await
        }
        "deadline" => {
            app.stop_timeout(Duration::from_secs(1))
                .server(Behaviour::Deaf)
                .run()
                .await
        }
        "blocked" => {
            app.stop_timeout(Duration::from_secs(1))
                .server(Behaviour::BlocksAll)
                .run()
                .await
        }
        "blocking" => {
            let app = app
                .stop_timeout(Duration::from_secs(1))
                .server(Behaviour::BlocksPool);
            app.run().await
        }
        "twice" => {
            let app = app.stop_timeout(Duration::from_millis(100));
            let handle = app.handle();
            app.after_start("stop", |_| async move { handle.stop() })
                .run()
                .await?;
            sleep(Duration::from_millis(1_500)).await;
            App::new()
                .after_start("stop", |cx: HookContext| async move { cx.handle().stop() })
                .run()
                .await
        }
        "fails" => {
            let below = Error::msg("connection refused");
            Err(Error::msg("cannot reach the broker").with_source(below))
        }
        "panics" => panic!("the program is broken"),
        other => Err(Error::msg(format!("no mode `{other}`"))),
    }
}

fn say(what: &str) {
    println!("{what}");
}

enum Behaviour {
    Obeys,
    Deaf,
    /// Every worker thread sleeps, so that the App itself cannot run.
    BlocksAll,
    /// A thread of the blocking pool sleeps.
    BlocksPool,
}

struct SlowOpen;

impl Server for Behaviour {
    type Bound = Self;

    fn name(&self) -> &str {
        "server"
    }

    async fn bind(self, _cx: StartContext) -> Result<Self> {
        sleep(Duration::from_millis(20)).await;
        Ok(self)
    }
}

impl BoundServer for Behaviour {
    async fn serve(self, shutdown: Shutdown) -> Result<()> {
        match self {
            Self::Obeys => shutdown.requested().await,
            Self::Deaf => pending().await,
            Self::BlocksAll => {
                // The after-start hook must have said that all is ready.
                sleep(Duration::from_millis(300)).await;
                for _ in 0..64 {
                    tokio::spawn(async { std::thread::sleep(Duration::from_secs(60)) });
                }
                say("blocked");
                pending().await
            }
            Self::BlocksPool => {
                tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(60)));
                shutdown.requested().await;
            }
        }
        Ok(())
    }
}

impl Resource for SlowOpen {
    fn name(&self) -> &str {
        "slow"
    }

    async fn open(&mut self, _cx: StartContext) -> Result<()> {
        sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    async fn close(self, _by: Instant) -> Result<()> {
        Ok(())
    }
}
