//! A service as a process.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long a service may take to bind.
const START_MAX: Duration = Duration::from_secs(40);

/// How long a stop may take: the App's own deadline and a little.
const STOP_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A port that nothing uses right now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Service {
    /// Starts a binary that lies beside this test and waits until `port` accepts.
    pub(crate) async fn start(
        binary: &str,
        name: &str,
        port: u16,
        folder: &Path,
        env: &[(&str, String)],
    ) -> Self {
        let endpoints = std::env::var("ROCKETMQ_ENDPOINTS")
            .expect("ROCKETMQ_ENDPOINTS names the server: run `make e2e`");
        let exe = std::env::current_exe().unwrap();
        let path = exe.parent().unwrap().parent().unwrap().join(binary);
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = Command::new(&path)
            .env("KRATOS_ROCKETMQ__ENDPOINTS", endpoints)
            .env("KRATOS_ADMIN__ADDR", "127.0.0.1:0")
            .envs(env.iter().map(|(key, value)| (key, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let service = Self {
            name: name.to_owned(),
            child,
            log,
        };
        let accepts = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(START_MAX, accepts).await.is_err() {
            panic!("{name} does not listen on port {port}:\n{}", service.log());
        }
        service
    }

    /// SIGTERM; answers how long the process took to end, which must be with exit code 0.
    pub(crate) async fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.signal("-TERM").await;
        let status = self.ended().await;
        assert!(
            status.success(),
            "{} ended with {status}:\n{}",
            self.name,
            self.log()
        );
        start.elapsed()
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.signal("-KILL").await;
        self.ended().await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill")
            .args([signal, &pid])
            .status()
            .await
            .unwrap();
        assert!(status.success(), "kill {signal} {pid}");
    }

    async fn ended(&mut self) -> ExitStatus {
        match timeout(STOP_MAX, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!(
                "{} still runs after {STOP_MAX:?}:\n{}",
                self.name,
                self.log()
            ),
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
