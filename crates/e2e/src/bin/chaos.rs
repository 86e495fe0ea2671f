//! `make chaos`: producers and consumers as processes, harmed at random, and a checker.

use std::process::ExitCode;

use clap::Parser;
use e2e::chaos::{self, Cli};

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Produce(role) => kratos::main(|| chaos::produce(role)),
        Cli::Consume(role) => kratos::main(|| chaos::consume(role)),
        Cli::Run(settings) => orchestrate(settings),
    }
}

#[expect(clippy::print_stderr, reason = "what a command does with an error")]
fn orchestrate(settings: chaos::Settings) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(chaos::run(settings)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}
