//! `kratos::main` in a process of its own, stopped by real signals.
#![cfg(unix)]

use std::{
    env,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

/// A child that is killed when the test fails.
struct Process {
    child: Child,
    /// Kept open: the child must be able to say what nobody reads.
    _stdout: BufReader<ChildStdout>,
}

/// How a child ended.
struct Ended {
    status: ExitStatus,
    took: Duration,
    stderr: String,
}

/// `process/child.rs`, which `cargo test` builds as an example.
fn child() -> PathBuf {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/test-child");
    assert!(
        path.exists(),
        "{path:?} is not there: run `cargo test` without `--test`"
    );
    path
}

impl Process {
    /// Starts a child and waits for it to say `word`.
    async fn start(mode: &str, word: &str) -> Self {
        let mut command = Command::new(child());
        command
            .arg(mode)
            .env("RUST_BACKTRACE", "0")
            .kill_on_drop(true);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            let read = stdout.read_line(&mut line).await.unwrap();
            assert!(read > 0, "the child ended before it said {word:?}");
        }
        Self {
            child,
            _stdout: stdout,
        }
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap();
        let kill = format!("kill -{name} {pid}");
        let sent = Command::new("sh").arg("-c").arg(kill).status().await;
        assert!(sent.unwrap().success());
    }

    /// Waits for the end, at most 20 s.
    async fn ended(mut self) -> Ended {
        let begun = Instant::now();
        let status = timeout(Duration::from_secs(20), self.child.wait()).await;
        let took = begun.elapsed();
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .await
            .unwrap();
        Ended {
            status: status.unwrap().unwrap(),
            took,
            stderr,
        }
    }
}

/// S5.
#[tokio::test]
async fn a_signal_ends_an_idle_process_with_code_0() {
    for name in ["TERM", "INT"] {
        let process = Process::start("idle", "ready").await;
        process.signal(name).await;
        let ended = process.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{name}: {}", ended.stderr);
        assert!(ended.took < Duration::from_secs(1), "{:?}", ended.took);
    }
}

#[tokio::test]
async fn a_signal_before_the_app_runs_ends_the_process_with_code_0() {
    let process = Process::start("before", "running").await;
    process.signal("TERM").await;
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(1), "{:?}", ended.took);
}

/// S4.
#[tokio::test]
async fn a_signal_at_any_moment_of_the_start_ends_the_process_with_code_0() {
    for millis in (0..100).step_by(7) {
        let process = Process::start("slow", "running").await;
        sleep(Duration::from_millis(millis)).await;
        process.signal("TERM").await;
        let ended = process.ended().await;
        assert_eq!(
            ended.status.code(),
            Some(0),
            "after {millis} ms: {}",
            ended.stderr
        );
    }
}

/// S3.
#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let process = Process::start("hung", "ready").await;
    process.signal("TERM").await;
    sleep(Duration::from_millis(300)).await;
    process.signal("TERM").await;
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(
        ended.took < Duration::from_millis(1_900),
        "{:?}",
        ended.took
    );
}

/// S2.
#[tokio::test]
async fn a_deaf_server_cannot_hold_the_process_past_its_deadline() {
    let process = Process::start("deadline", "ready").await;
    process.signal("TERM").await;
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(2), "{:?}", ended.took);
    assert!(
        ended.stderr.contains("server `server` did not return"),
        "{}",
        ended.stderr
    );
}

/// S14, with every worker thread blocked: not even the App can run.
#[tokio::test]
async fn blocked_workers_cannot_hold_the_process_past_its_deadline() {
    let process = Process::start("blocked", "blocked").await;
    process.signal("TERM").await;
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(2), "{:?}", ended.took);
    assert!(
        ended.stderr.contains("ended at its deadline"),
        "{}",
        ended.stderr
    );
}

/// S14, in the blocking pool: nothing waits for it but the runtime.
#[tokio::test]
async fn a_blocking_call_does_not_hold_the_process() {
    let process = Process::start("blocking", "ready").await;
    process.signal("TERM").await;
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(1), "{:?}", ended.took);
}

#[tokio::test]
async fn an_app_that_stopped_by_itself_leaves_its_process_time_for_another() {
    let ended = Process::start("twice", "ready").await.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn the_error_chain_is_printed_and_the_code_is_1() {
    let ended = Process::start("fails", "running").await.ended().await;
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(
        ended.stderr,
        "error: cannot reach the broker: connection refused\n"
    );
    let ended = Process::start("panics", "running").await.ended().await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("the program is broken"),
        "{}",
        ended.stderr
    );
}
