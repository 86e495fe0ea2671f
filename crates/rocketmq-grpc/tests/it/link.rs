//! Connections in memory that a test can freeze and cut.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use http::Uri;
use rocketmq_grpc::Connector;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

const BUFFER_BYTES: usize = 64 << 10;

/// Between client and server.
#[derive(Clone)]
pub(crate) struct Link {
    connections: Arc<AtomicUsize>,
    /// Connections before this number forward nothing any more and do not say so.
    frozen_before: watch::Sender<usize>,
    /// Cut, and made anew, by [`Link::cut`].
    cut: watch::Sender<CancellationToken>,
    refusing: Arc<AtomicBool>,
    /// Refused while the others are not.
    refused_host: watch::Sender<&'static str>,
    open: Arc<AtomicUsize>,
    hosts: Arc<Mutex<Vec<String>>>,
    /// What the next byte for a client is changed by, if that is not zero.
    corruption: Arc<AtomicU8>,
    to_server: mpsc::UnboundedSender<io::Result<DuplexStream>>,
}

impl Link {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<io::Result<DuplexStream>>) {
        let (to_server, incoming) = mpsc::unbounded_channel();
        let link = Self {
            connections: Arc::default(),
            frozen_before: watch::Sender::new(0),
            cut: watch::Sender::new(CancellationToken::new()),
            refusing: Arc::default(),
            refused_host: watch::Sender::new(""),
            open: Arc::default(),
            hosts: Arc::default(),
            corruption: Arc::default(),
            to_server,
        };
        (link, incoming)
    }

    pub(crate) fn connector(&self) -> Connector {
        let link = self.clone();
        Connector::new(tower::service_fn(move |uri: Uri| {
            let connected = link.connect(uri.host().unwrap_or_default());
            async move { connected }
        }))
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Where those went.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.hosts.lock().unwrap().clone()
    }

    /// Connections that the client has not ended.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// All connections so far are half-open from now on.
    pub(crate) fn freeze(&self) {
        self.frozen_before.send_replace(self.connections());
    }

    pub(crate) fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::SeqCst);
    }

    pub(crate) fn refuse_host(&self, host: &'static str) {
        self.refused_host.send_replace(host);
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(CancellationToken::new()).cancel();
    }

    /// Changes bits of the next bytes that a server sends.
    pub(crate) fn corrupt(&self, bits: u8) {
        self.corruption.store(bits, Ordering::SeqCst);
    }

    pub(crate) fn connect(&self, host: &str) -> io::Result<DuplexStream> {
        if self.refusing.load(Ordering::SeqCst) || *self.refused_host.borrow() == host {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.hosts.lock().unwrap().push(host.to_owned());
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let (client, near) = tokio::io::duplex(BUFFER_BYTES);
        let (far, server) = tokio::io::duplex(BUFFER_BYTES);
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        self.open.fetch_add(1, Ordering::SeqCst);
        let mut guard = Some(Open(self.open.clone()));
        let directions = [
            (near_read, far_write, Arc::default()),
            (far_read, near_write, self.corruption.clone()),
        ];
        for (from, to, corruption) in directions {
            let cut = self.cut.borrow().clone();
            let frozen = self.frozen_before.subscribe();
            let forwarded = forward(number, from, to, frozen, corruption);
            // The first direction ends with the client's half.
            let guard = guard.take();
            tokio::spawn(async move {
                cut.run_until_cancelled(forwarded).await;
                drop(guard);
            });
        }
        self.to_server
            .send(Ok(server))
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(client)
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn forward(
    number: usize,
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut frozen_before: watch::Receiver<usize>,
    corruption: Arc<AtomicU8>,
) {
    let mut bytes = vec![0; BUFFER_BYTES];
    while let Ok(count) = from.read(&mut bytes).await
        && count > 0
    {
        if frozen_before
            .wait_for(|before| *before <= number)
            .await
            .is_err()
        {
            return;
        }
        bytes[count / 2] ^= corruption.swap(0, Ordering::SeqCst);
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
