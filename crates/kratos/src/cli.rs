//! The command line of a service's own program: feature `cli`.
//!
//! ```
//! use std::process::ExitCode;
//!
//! use kratos::{App, http};
//!
//! fn main() -> ExitCode {
//!     # return ExitCode::SUCCESS;
//!     # #[allow(unreachable_code)]
//!     kratos::cli::main(app)
//! }
//!
//! async fn app() -> kratos::Result<App> {
//!     let config = http::Config::default(); // kratos::config::load("saver-service")?
//!     let server = http::Server::new(config, axum::Router::new());
//!     Ok(App::new().name("saver-service").version("0.1.0").server(server))
//! }
//! ```
//!
//! | command | |
//! |---|---|
//! | `run`, or none | runs the App |
//! | `check` | asks what a start needs: configuration, brokers, topics, groups, databases |
//! | `describe` | servers with what they serve, resources, documents |
//! | `asyncapi`, `openapi` | the document; `--output FILE` writes it there |
//! | others | what servers and resources bring ([`Description::command`](crate::Description::command)) |
//!
//! The App is built for each of them, help included, and only `run` runs it: constructors do no I/O,
//! so that all but `check` work without a broker. `--config FILE` is
//! [`config::load`](crate::config)'s. The exit code is 0, 1 when something is wrong, 2 when the
//! command line is.

mod check;
mod describe;

use std::{
    ffi::OsString,
    fs,
    future::Future,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Arg, ArgMatches, Command as Clap, error::ErrorKind, value_parser};

use crate::{
    App, AppDescription, Command, CommandContext, Error, Result, entry, error::BoxError, process,
    signal::Signals,
};

/// The exit code of a wrong command line.
const USAGE: u8 = 2;

/// Runs a program with the commands above: as [`kratos::main`](crate::main) does, with signals
/// installed before `app` is called.
pub fn main<F, Fut, E>(app: F) -> ExitCode
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<App, E>> + Send + 'static,
    E: Into<BoxError>,
{
    let args: Vec<OsString> = std::env::args_os().collect();
    entry::exit(async move { run(args, app, io::stdout()).await })
}

/// [`main`] with the command line, the program's name first, and the output given by the caller:
/// for tests, and for programs with a runtime of their own.
///
/// # Errors
///
/// What failed. What `check` finds wrong, and a wrong command line, are exit codes.
pub async fn run<F, Fut, E>(
    args: impl IntoIterator<Item = impl Into<OsString>>,
    app: F,
    mut out: impl Write + Send,
) -> Result<ExitCode>
where
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<App, E>> + Send,
    E: Into<BoxError>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let built = app().await.map_err(Error::from_any);
    let described = built.as_ref().ok().map(App::describe);
    let commands = described.as_ref().map(commands).unwrap_or_default();
    let matches = match parser(described.as_ref(), &commands).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return Ok(refuse(&error, &mut out)),
    };
    let (name, of) = matches.subcommand().unwrap_or(("run", &matches));
    let (app, described) = match (built, described) {
        (Ok(app), Some(described)) => (app, described),
        (Err(error), _) if name == "check" => return check::broken(&error, &mut out),
        (Err(error), _) => return Err(error),
        (Ok(_), None) => return Err(Error::msg("the App was not described")),
    };
    match name {
        "run" => app.run().await.map(|()| ExitCode::SUCCESS),
        "check" => check::run(&described, &mut out).await,
        "describe" => done(describe::print(&described, &mut out)),
        "asyncapi" | "openapi" => done(document(&described, name, of, &mut out)),
        other => {
            let command = commands.into_iter().find(|it| it.name() == other);
            let command = command.ok_or_else(|| Error::msg(format!("no command {other}")))?;
            steer(app, command, of.clone()).await
        }
    }
}

fn parser(described: Option<&AppDescription>, commands: &[Command]) -> Clap {
    let output = Arg::new("output")
        .long("output")
        .short('o')
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Writes it there rather than to the standard output");
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .global(true)
        .value_parser(value_parser!(OsString))
        .help("Reads the configuration from this file");
    let parser = Clap::new("service")
        .arg(config)
        .subcommand(Clap::new("run").about("Runs the service; so does no command at all"))
        .subcommand(
            Clap::new("check").about(
                "Asks what a start needs: configuration, brokers, topics, groups, databases",
            ),
        )
        .subcommand(
            Clap::new("describe").about("Shows what the service consists of, and starts nothing"),
        )
        .subcommand(
            Clap::new("asyncapi")
                .about("Writes the AsyncAPI document of its messages")
                .arg(output.clone()),
        )
        .subcommand(
            Clap::new("openapi")
                .about("Writes the OpenAPI document of its HTTP routes")
                .arg(output),
        )
        .subcommands(commands.iter().map(|it| it.clap().clone()));
    match described {
        Some(described) => parser
            .version(described.info.version().to_owned())
            .about(described.info.name().to_owned()),
        None => parser,
    }
}

/// Those that servers and resources bring, of each name the first.
fn commands(described: &AppDescription) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for (_, part) in described.servers.iter().chain(&described.resources) {
        for command in part.commands() {
            let ours = ["run", "check", "describe", "asyncapi", "openapi", "help"];
            let taken = commands.iter().map(Command::name).chain(ours);
            if !taken.into_iter().any(|name| name == command.name()) {
                commands.push(command.clone());
            }
        }
    }
    commands
}

/// What clap says of a command line that it does not take, or was asked for.
fn refuse(error: &clap::Error, out: &mut impl Write) -> ExitCode {
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    // Whoever does not listen has heard enough.
    let _told = match asked {
        true => write!(out, "{error}"),
        false => write!(io::stderr(), "{error}"),
    };
    match asked {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(USAGE),
    }
}

fn document(
    described: &AppDescription,
    name: &str,
    matches: &ArgMatches,
    out: &mut impl Write,
) -> Result<()> {
    let document = described.document(name).ok_or_else(|| {
        let all = described.documents();
        let known = match all.is_empty() {
            true => "it has no documents".to_owned(),
            false => format!("it has {}", all.join(", ")),
        };
        Error::msg(format!(
            "no server or resource of {} writes a part of {name}: {known}",
            described.info.name()
        ))
    })?;
    let text = format!("{document:#}\n");
    match matches.get_one::<PathBuf>("output") {
        Some(file) => fs::write(file, text).map_err(|error| {
            Error::msg(format!("cannot write {}", file.display())).with_source(error)
        }),
        None => out.write_all(text.as_bytes()).map_err(unwritten),
    }
}

/// Runs a command, which is told of the first signal and ends by itself then.
async fn steer(app: App, command: Command, matches: ArgMatches) -> Result<ExitCode> {
    // Before an App runs a signal ends the process: this is as good as one.
    let _running = process::Running::enter(app.stop_timeout_now());
    let signals = process::signals().unwrap_or_else(Signals::none);
    let context = CommandContext::new(matches, signals);
    let ended = command.run(context).await;
    // Its clients are those of the command.
    drop(app);
    ended.map(|()| ExitCode::SUCCESS)
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

/// The output is gone: `| head` has read enough, which is no error.
fn unwritten(error: io::Error) -> Error {
    Error::msg("cannot write the output").with_source(error)
}
