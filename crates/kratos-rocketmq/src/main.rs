//! The commands of [`kratos_rocketmq::cli`] as a program.

use std::{io, process::ExitCode};

use clap::Parser;
use kratos_rocketmq::{Client, Config, Credentials, Tls, cli::DeadLetters};

/// Dead letters of RocketMQ groups: what is there, and sent back.
#[derive(Debug, Parser)]
#[command(name = "dead-letters")]
struct Cli {
    /// The proxy's gRPC port, HOST:PORT.
    #[arg(
        long,
        env = "ROCKETMQ_ENDPOINTS",
        default_value = "127.0.0.1:8081",
        global = true
    )]
    endpoints: String,
    /// Name servers, HOST:PORT: the reading group is made there if it is not there yet.
    #[arg(long, env = "ROCKETMQ_NAMESRV", global = true)]
    namesrv: Option<String>,
    /// A user of the server's ACL; its secret is in ROCKETMQ_SECRET_KEY.
    #[arg(long, env = "ROCKETMQ_ACCESS_KEY", global = true)]
    access_key: Option<String>,
    #[arg(
        long,
        env = "ROCKETMQ_SECRET_KEY",
        hide_env_values = true,
        hide = true,
        global = true
    )]
    secret_key: Option<String>,
    /// Secures the connections.
    #[arg(long, global = true)]
    tls: bool,
    /// PEM file of who is trusted, rather than the system's authorities.
    #[arg(long, requires = "tls", global = true)]
    tls_ca: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: DeadLetters,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Not `kratos::main`: without an App it ends at a signal, and here a signal ends the reading.
    let runtime = tokio::runtime::Runtime::new().map_err(kratos::Error::from_any);
    match runtime.and_then(|runtime| runtime.block_on(run(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "what a program does with an error")]
            {
                eprintln!("error: {}", kratos::error_chain(&error));
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> kratos::Result<()> {
    let credentials = cli.access_key.map(|access_key| Credentials {
        access_key,
        secret_key: cli.secret_key.unwrap_or_default(),
        session_token: None,
    });
    let tls = cli.tls.then(|| Tls {
        ca: cli.tls_ca,
        ..Tls::default()
    });
    let client = Client::new(Config {
        endpoints: Some(cli.endpoints),
        admin: cli.namesrv,
        credentials,
        tls,
        ..Config::default()
    })?;
    let mut out = io::stdout();
    let work = cli.command.run(&client, signalled(1), &mut out);
    tokio::select! {
        ended = work => ended?,
        () = signalled(2) => {
            let what = "told to end at once: what is held comes back when its lease is over";
            return Err(kratos::Error::msg(what));
        }
    }
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(3);
    kratos::Resource::close(client, soon).await
}

/// Completes at the so-many-th SIGINT or SIGTERM from now on.
async fn signalled(count: usize) {
    let mut terminate = Terminate::new();
    for _ in 0..count {
        tokio::select! {
            told = tokio::signal::ctrl_c() => if told.is_err() {
                // Without it the program ends as the shell says.
                std::future::pending::<()>().await;
            },
            () = terminate.recv() => {}
        }
    }
}

/// SIGTERM, where there is such a thing.
struct Terminate {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Terminate {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok(),
        }
    }

    async fn recv(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
