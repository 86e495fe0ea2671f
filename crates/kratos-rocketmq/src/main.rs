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
    kratos::main(|| run(cli))
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
    let stop = async {
        // Without it the program ends as the shell says.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    cli.command.run(&client, stop, &mut io::stdout()).await?;
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(3);
    kratos::Resource::close(client, soon).await
}
