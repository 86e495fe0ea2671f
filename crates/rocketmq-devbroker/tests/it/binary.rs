//! The program: what it says, and how it ends.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rocketmq-devbroker"))
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Waits for the end of the program, five seconds at most.
fn wait(child: &mut Child) -> ExitStatus {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let id = child.id().to_string();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(5)).is_err() {
            Command::new("kill").args(["-KILL", &id]).status().unwrap();
        }
    });
    let status = child.wait().unwrap();
    let _ = done.send(());
    guard.join().unwrap();
    status
}

/// Starts the program on a free port and returns the line that it prints.
pub(crate) fn start(args: &[&str]) -> (Child, String) {
    let mut command = program();
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(args)
        .stdout(Stdio::piped());
    spawn(command)
}

/// Starts a command and returns the first line that it prints.
pub(crate) fn spawn(mut command: Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line.trim().to_owned())
}

#[test]
fn prints_where_it_listens_and_ends_with_0_on_sigterm_and_sigint() {
    for name in ["-TERM", "-INT"] {
        let (mut child, line) = start(&["--topic", "t:FIFO", "--group", "g:fifo:retry=2"]);
        let addr = line.strip_prefix("listening on ").expect("the address");
        let addr: std::net::SocketAddr = addr.parse().unwrap();
        std::net::TcpStream::connect(addr).unwrap();
        signal(&child, name);
        assert_eq!(wait(&mut child).code(), Some(0), "{name}");
        let mut rest = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn help_explains_every_option() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for option in [
        "--listen",
        "--advertise",
        "--topic",
        "--group",
        "--strict",
        "--user",
        "FIFO",
    ] {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn wrong_arguments_are_told_with_what_is_accepted() {
    let cases = [
        (["--listen", "nonsense"], "expected IP:PORT"),
        (
            ["--topic", "t:NOPE"],
            "NORMAL, FIFO, DELAY, TRANSACTION, PRIORITY, LITE, MIXED",
        ),
        (["--group", "g:nope"], "`fifo` or `retry=N`"),
        (["--group", "g:retry=x"], "not a number"),
        (["--advertise", "host"], "expected HOST:PORT"),
        (["--user", "alice"], "expected ACCESS_KEY:SECRET_KEY"),
    ];
    for (args, expected) in cases {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            stderr(&output).contains(expected),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn an_illegal_name_and_a_port_in_use_are_told() {
    let output = run(&["--topic", "a b"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("illegal characters"),
        "{}",
        stderr(&output)
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = run(&["--listen", &addr]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&addr), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("choose another port"),
        "{}",
        stderr(&output)
    );
}

#[cfg(feature = "tls")]
#[test]
fn files_of_tls_that_are_missing_or_wrong_are_told() {
    let args = [
        "--tls-cert",
        "/nowhere/cert.pem",
        "--tls-key",
        "/nowhere/key.pem",
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot read /nowhere/cert.pem: "));
    assert_eq!(run(&["--tls-cert", "cert.pem"]).status.code(), Some(2));
    assert_eq!(run(&["--client-ca", "ca.pem"]).status.code(), Some(2));
    let args = ["--tls-cert", "/dev/null", "--tls-key", "/dev/null"];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot speak TLS"),
        "{}",
        stderr(&output)
    );
}
