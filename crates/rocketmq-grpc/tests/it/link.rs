//! Connections in memory that a test can freeze and cut.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

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
            to_server,
        };
        (link, incoming)
    }

    pub(crate) fn connector(&self) -> Connector {
        let link = self.clone();
        Connector::new(tower::service_fn(move |_| {
            let connected = link.connect();
            async move { connected }
        }))
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// All connections so far are half-open from now on.
    pub(crate) fn freeze(&self) {
        self.frozen_before.send_replace(self.connections());
    }

    pub(crate) fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::SeqCst);
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(CancellationToken::new()).cancel();
    }

    fn connect(&self) -> io::Result<DuplexStream> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let (client, near) = tokio::io::duplex(BUFFER_BYTES);
        let (far, server) = tokio::io::duplex(BUFFER_BYTES);
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        for (from, to) in [(near_read, far_write), (far_read, near_write)] {
            let cut = self.cut.borrow().clone();
            let forwarded = forward(number, from, to, self.frozen_before.subscribe());
            tokio::spawn(async move { cut.run_until_cancelled(forwarded).await });
        }
        self.to_server
            .send(Ok(server))
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(client)
    }
}

async fn forward(
    number: usize,
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut frozen_before: watch::Receiver<usize>,
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
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
