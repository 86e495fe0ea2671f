//! TLS on accepted connections, with certificates that may be renewed under way.

mod files;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};

use self::files::Files;
use super::Protocol;
use crate::{Result, Shutdown, tls::Config};

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;

/// How long a client that has connected may go on with its handshake once the stop has begun.
const LAST_HANDSHAKE: Duration = Duration::from_secs(1);

/// Files that have changed are read again after this time, and used if nothing has changed since.
const SETTLE: Duration = Duration::from_millis(250);

/// What a client reads that speaks HTTP/1 to a TLS port.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 45\r\nconnection: close\r\n\r\nthis port speaks TLS: use https, not http://\n";

/// A request that came over TLS has this extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secure;

/// Makes connections secure; clones share the certificates.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    current: watch::Receiver<Arc<rustls::ServerConfig>>,
    handshake_timeout: Duration,
}

/// Looks at the files again and again.
#[derive(Debug)]
pub(crate) struct Reload {
    config: Config,
    section: &'static str,
    protocol: Protocol,
    seen: Files,
    current: watch::Sender<Arc<rustls::ServerConfig>>,
}

/// Reads the files; `section` is what the errors call the settings, such as `http.tls`.
pub(crate) fn open(
    config: Config,
    section: &'static str,
    protocol: Protocol,
) -> Result<(Tls, Reload)> {
    let seen = Files::read(&config, section)?;
    let server = seen.server_config(&config, section, protocol.alpn())?;
    let (sender, current) = watch::channel(Arc::new(server));
    let tls = Tls {
        current,
        handshake_timeout: config.handshake_timeout,
    };
    let reload = Reload {
        config,
        section,
        protocol,
        seen,
        current: sender,
    };
    Ok((tls, reload))
}

// === impl Tls ===

impl Tls {
    /// Agrees on keys, in bounded time; a stop makes it shorter.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        shutdown: &Shutdown,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stopping = async {
            shutdown.requested().await;
            sleep(LAST_HANDSHAKE).await;
        };
        tokio::select! {
            accepted = timeout(self.handshake_timeout, self.handshake(stream)) => {
                accepted.unwrap_or_else(|_| Err(timed_out("the client did not finish its handshake")))
            }
            () = stopping => Err(timed_out("the server stops, and the handshake was not finished")),
        }
    }

    async fn handshake(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        let read = stream.peek(&mut first).await?;
        if read == 1 && first[0] != HANDSHAKE {
            if first[0].is_ascii_uppercase() {
                stream.write_all(SPEAK_TLS).await?;
                stream.shutdown().await?;
            }
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the client does not speak TLS",
            ));
        }
        let config = self.current.borrow().clone();
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

// === impl Reload ===

impl Reload {
    /// Runs as long as the server does.
    pub(super) async fn run(mut self) {
        // Twice a second is often enough for any file system.
        let mut ticks = interval(self.config.reload_interval.max(Duration::from_millis(500)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        // What was said about files that do not work, so as to say it once.
        let mut reported = None;
        loop {
            ticks.tick().await;
            let Some(settled) = self.settled().await else {
                continue;
            };
            let renewed = settled.and_then(|files| self.renew(files));
            let problem = renewed.err().map(|e| crate::error_chain(&e).to_string());
            if let Some(error) = &problem
                && reported.as_ref() != Some(error)
            {
                let section = self.section;
                warn!(
                    section,
                    error, "the certificates in use stay: the new ones do not work"
                );
            }
            reported = problem;
        }
    }

    /// What the files hold once nobody writes them; `None` if somebody does, or the runtime ends.
    ///
    /// Cut short between two certificates, a chain and a list of authorities look right and are
    /// not; and files that are replaced one after the other do not fit each other meanwhile.
    async fn settled(&self) -> Option<Result<Files>> {
        let first = self.read().await?;
        if matches!(&first, Ok(files) if *files == self.seen) {
            return Some(first);
        }
        sleep(SETTLE).await;
        let second = self.read().await?;
        match (&first, &second) {
            (Ok(first), Ok(second)) if first != second => None,
            _ => Some(second),
        }
    }

    async fn read(&self) -> Option<Result<Files>> {
        let (config, section) = (self.config.clone(), self.section);
        // Files may be on a network; a runtime that ends has nobody to tell.
        let read = spawn_blocking(move || Files::read(&config, section)).await;
        read.ok()
    }

    fn renew(&mut self, files: Files) -> Result<()> {
        if files == self.seen {
            return Ok(());
        }
        let server = files.server_config(&self.config, self.section, self.protocol.alpn())?;
        self.current.send_replace(Arc::new(server));
        self.seen = files;
        info!(section = self.section, "certificates renewed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A certificate and its key, both PEM.
    fn issue() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_not_used_while_somebody_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let (own, own_key) = issue();
        let (above, _) = issue();
        fs::write(&cert, format!("{own}{above}")).unwrap();
        fs::write(&key, own_key).unwrap();
        let config = Config {
            reload_interval: Duration::from_secs(10),
            ..Config::new(&cert, &key)
        };
        let (tls, reload) = open(config, "http.tls", Protocol::Http).unwrap();
        let running = tokio::spawn(reload.run());
        let mut current = tls.current.clone();
        current.mark_unchanged();

        // The chain is cut short at the first look and whole before the second.
        sleep(Duration::from_secs(9)).await;
        let (own, own_key) = issue();
        fs::write(&cert, &own).unwrap();
        fs::write(&key, own_key).unwrap();
        sleep(Duration::from_secs(1) + SETTLE / 2).await;
        assert!(!current.has_changed().unwrap());
        fs::write(&cert, format!("{own}{above}")).unwrap();
        sleep(SETTLE * 4).await;
        assert!(!current.has_changed().unwrap(), "half a chain is served");

        // What stays is used.
        sleep(Duration::from_secs(11)).await;
        assert!(current.has_changed().unwrap());
        running.abort();
    }
}
