//! The admin client as a program.

mod cli;

use std::{
    error::Error as StdError,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser as _;

use crate::cli::Cli;

/// What a shell expects of a program that was used wrongly.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that has seen enough, such as `head`, is no failure to tell of.
            let _ = writeln!(io::stderr(), "error: {}", chain(&*error));
            match error.downcast_ref::<rocketmq_admin::Error>() {
                Some(error) if error.is_invalid() && error.request_code().is_none() => {
                    ExitCode::from(USAGE)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(cli: Cli) -> Result<(), Box<dyn StdError>> {
    let mut out = Vec::new();
    let done = cli.run(&mut out).await;
    // What was done before a failure is told, too.
    match io::stdout().write_all(&out) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(done?)
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
