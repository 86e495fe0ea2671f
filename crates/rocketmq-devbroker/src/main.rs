//! The dev broker as a program.

mod cli;

use std::{error::Error, process::ExitCode};

use clap::Parser as _;
use rocketmq_devbroker::DevBroker;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Cli;

/// What a shell expects of a program that was used wrongly.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
            // Nothing is left to tell if the terminal is gone.
            let _ = error.print();
            return code;
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(
                &mut std::io::stderr(),
                &format!("error: {}", chain(&*error)),
            );
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    // First, so that a signal at any later moment ends it cleanly.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let broker: DevBroker = cli.broker()?.start().await?;
    if let Some(addr) = broker.addr() {
        tell(&mut std::io::stdout(), &format!("listening on {addr}"));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    broker.shutdown().await;
    Ok(())
}

/// Writes a line; a closed pipe is no reason to fail.
fn tell(to: &mut impl std::io::Write, line: &str) {
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
