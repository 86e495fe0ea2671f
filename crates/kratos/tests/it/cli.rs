//! The command line of a service.

use std::{
    fs,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use kratos::{
    App, BoundServer, Check, Command, Description, Document, Entry, Error, Finding, Resource,
    Result, Server, Shutdown, StartContext, cli,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// A server that is described and never bound.
struct Described(Description);

enum Never {}

impl BoundServer for Never {
    async fn serve(self, _: Shutdown) -> Result<()> {
        match self {}
    }
}

impl Server for Described {
    type Bound = Never;

    fn name(&self) -> &str {
        "messages"
    }

    fn describe(&self) -> Description {
        self.0.clone()
    }

    async fn bind(self, _: StartContext) -> Result<Self::Bound> {
        Err(Error::msg("it was bound"))
    }
}

struct Store(Description);

impl Resource for Store {
    fn name(&self) -> &str {
        "store"
    }

    fn describe(&self) -> Description {
        self.0.clone()
    }

    async fn open(&mut self, _: StartContext) -> Result<()> {
        Ok(())
    }

    async fn close(self, _: Instant) -> Result<()> {
        Ok(())
    }
}

fn part(description: Description) -> Description {
    description
        .entry(Entry::new(
            "subscription",
            "orders in group billing, filter *",
        ))
        .document(Document::new(
            "asyncapi",
            json!({ "channels": { "orders": {} } }),
        ))
}

fn app() -> App {
    let server = Described(part(Description::new("broker")));
    let writes = Document::new("asyncapi", json!({ "channels": { "bills": {} } }));
    let store = Store(Description::new("database").document(writes));
    App::new()
        .name("billing")
        .version("1.2.0")
        .server(server)
        .resource(store)
}

async fn ran(args: &[&str], app: App) -> (Result<ExitCode>, String) {
    let mut out = Vec::new();
    let args = ["billing"].iter().chain(args).copied();
    let code = cli::run(args, async || Ok::<_, Error>(app), &mut out).await;
    (code, String::from_utf8(out).unwrap())
}

fn is(code: &ExitCode, wanted: ExitCode) -> bool {
    format!("{code:?}") == format!("{wanted:?}")
}

#[tokio::test]
async fn run_is_the_default_and_alone_starts_the_app() {
    for args in [
        &[][..],
        &["run"],
        &["--config", "x.toml"],
        &["run", "--config=x.toml"],
    ] {
        let (ended, _) = ran(args, app()).await;
        let error = ended.unwrap_err();
        assert!(
            kratos::error_chain(&error)
                .to_string()
                .contains("it was bound"),
            "{error}"
        );
    }
    for args in [
        &["describe"][..],
        &["asyncapi"],
        &["check"],
        &["--help"],
        &["--version"],
    ] {
        let (ended, out) = ran(args, app()).await;
        assert!(is(&ended.unwrap(), ExitCode::SUCCESS), "{args:?}: {out}");
    }
}

#[tokio::test]
async fn describe_shows_what_the_app_consists_of() {
    let (_, out) = ran(&["describe"], app()).await;
    assert_eq!(
        out,
        "billing 1.2.0\n\
         server messages (broker)\n  \
           subscription orders in group billing, filter *\n\
         resource store\n\
         document asyncapi\n"
    );
}

#[tokio::test]
async fn a_document_is_merged_and_written() {
    let (_, out) = ran(&["asyncapi"], app()).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(
        document["info"],
        json!({ "title": "billing", "version": "1.2.0" })
    );
    assert_eq!(document["channels"], json!({ "bills": {}, "orders": {} }));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("asyncapi.json");
    let path = file.to_str().unwrap();
    let (ended, out) = ran(&["asyncapi", "--output", path], app()).await;
    assert!(ended.is_ok() && out.is_empty());
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(written, document);

    let nowhere = folder.path().join("no/such/folder");
    let (ended, _) = ran(&["asyncapi", "-o", nowhere.to_str().unwrap()], app()).await;
    assert!(ended.unwrap_err().to_string().contains("no/such/folder"));

    let (ended, _) = ran(&["openapi"], app()).await;
    let error = ended.unwrap_err().to_string();
    assert!(
        error.contains("writes a part of openapi: it has asyncapi"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn check_asks_all_at_once_bounds_each_and_says_what_to_do() {
    let fine = Check::new("broker", async || Ok("127.0.0.1:8081".to_owned()));
    let absent = Check::new("group billing", async || {
        Err(Finding::new("no such group", "create it: make group"))
    });
    let hung = Check::new("topic orders", std::future::pending);
    let hung_too = Check::new("topic bills", std::future::pending);
    let server = Described(
        Description::new("broker")
            .check(fine.clone())
            .check(absent)
            .check(hung),
    );
    let store = Store(Description::new("database").check(hung_too));
    let app = App::new().name("billing").server(server).resource(store);
    let start = Instant::now();
    let (code, out) = ran(&["check"], app).await;
    assert_eq!(
        start.elapsed().as_secs(),
        10,
        "one after another would be 20 s"
    );
    assert!(is(&code.unwrap(), ExitCode::FAILURE));
    assert_eq!(
        out,
        "ok     billing   configuration  read\n\
         WRONG  store     topic bills    no answer within 10 s\n       \
                to do: see whether it is there, and reachable from here\n\
         ok     messages  broker         127.0.0.1:8081\n\
         WRONG  messages  group billing  no such group\n       \
                to do: create it: make group\n\
         WRONG  messages  topic orders   no answer within 10 s\n       \
                to do: see whether it is there, and reachable from here\n"
    );
    let server = Described(Description::new("broker").check(fine));
    let (code, _) = ran(&["check"], App::new().server(server)).await;
    assert!(is(&code.unwrap(), ExitCode::SUCCESS));
}

#[tokio::test]
async fn an_app_that_cannot_be_built_is_a_finding_of_check_and_an_error_elsewhere() {
    let broken = async || Err::<App, _>(Error::msg("http.addr is \"x\""));
    for (command, code) in [
        ("check", Some(ExitCode::FAILURE)),
        ("run", None),
        ("describe", None),
    ] {
        let mut out = Vec::new();
        let ended = cli::run(["billing", command], broken, &mut out).await;
        let out = String::from_utf8(out).unwrap();
        match code {
            Some(code) => {
                assert!(is(&ended.unwrap(), code));
                assert!(
                    out.starts_with("WRONG  service  configuration  http.addr is"),
                    "{out}"
                );
            }
            None => assert_eq!(ended.unwrap_err().to_string(), "http.addr is \"x\""),
        }
    }
    let mut out = Vec::new();
    let help = cli::run(["billing", "--help"], broken, &mut out).await;
    assert!(is(&help.unwrap(), ExitCode::SUCCESS) && !out.is_empty());
}

#[tokio::test]
async fn servers_and_resources_bring_commands() {
    let forgotten = Arc::new(AtomicUsize::new(0));
    let count = forgotten.clone();
    let days = clap::Arg::new("days")
        .value_parser(clap::value_parser!(usize))
        .required(true);
    let command = Command::new(clap::Command::new("forget").arg(days), move |cx| {
        let count = count.clone();
        async move {
            count.store(*cx.matches().get_one("days").unwrap(), Relaxed);
            Ok(())
        }
    });
    // Neither a second of the name nor one of ours takes its place.
    let second = Command::new(clap::Command::new("forget"), async |_| {
        Err(Error::msg("second"))
    });
    let ours = Command::new(clap::Command::new("check"), async |_| {
        Err(Error::msg("ours"))
    });
    let described = Description::new("database")
        .command(command)
        .command(second)
        .command(ours);
    let app = || App::new().resource(Store(described.clone()));
    let (ended, _) = ran(&["forget", "7"], app()).await;
    ended.unwrap();
    assert_eq!(forgotten.load(Relaxed), 7);
    let (_, out) = ran(&["--help"], app()).await;
    assert!(out.contains("forget") && out.contains("asyncapi"), "{out}");
    assert!(ran(&["check"], app()).await.0.is_ok());
    let (code, out) = ran(&["forget"], app()).await;
    assert!(
        is(&code.unwrap(), ExitCode::from(2)) && out.is_empty(),
        "a wrong command line"
    );
}
