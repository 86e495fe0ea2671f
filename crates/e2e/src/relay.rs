//! A TCP relay whose connections can be frozen: half-open, as behind a NAT that forgot them.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A TCP relay on a port of its own. It lives as long as the runtime.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    /// Connections with an older number carry nothing any more, and nobody is told.
    era: watch::Sender<u64>,
}

impl Relay {
    /// A relay to a server, `host:port`; the server need not be there yet.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn to(server: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let era = watch::Sender::new(0);
        let eras = era.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (eras, server) = (eras.clone(), server.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else {
                        return;
                    };
                    let (client_read, client_write) = client.into_split();
                    let (server_read, server_write) = server.into_split();
                    tokio::join!(
                        forward(client_read, server_write, eras.clone()),
                        forward(server_read, client_write, eras),
                    );
                });
            }
        });
        Ok(Self { addr, era })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The connections of now stay open and carry nothing; new ones work.
    pub fn freeze(&self) {
        self.era.send_modify(|it| *it += 1);
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut eras: watch::Receiver<u64>,
) {
    // Those that were accepted later are of the era of their time.
    eras.mark_unchanged();
    let mut some = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            _ = eras.changed() => None,
            read = from.read(&mut some) => Some(read),
        };
        let Some(read) = read else {
            // Both halves stay open for as long as the relay lives.
            return std::future::pending().await;
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if to.write_all(&some[..read]).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown().await;
}
