//! A way to the server that can be taken away: the server itself is shared by all tests.

use std::{io, net::SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They reach the server.
    Open,
    /// They are cut, and new ones closed at once: as if nobody was there.
    Refused,
    /// They stay open and carry nothing, new ones too: as behind a router that has died.
    Silent,
}

/// A TCP relay on a port of its own. It lives as long as the runtime.
#[derive(Debug)]
pub(crate) struct Relay {
    addr: SocketAddr,
    way: watch::Sender<Way>,
}

impl Relay {
    /// A relay to a server, `host:port`.
    pub(crate) async fn to(server: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (way, ways) = watch::channel(Way::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), ways.clone()));
            }
        });
        Ok(Self { addr, way })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on. Connections that have been silent are cut when that ends.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(mut client: TcpStream, server: String, mut way: watch::Receiver<Way>) {
    // Held to the end: nobody is told.
    let mut kept = None;
    if *way.borrow_and_update() == Way::Open {
        let Ok(server) = TcpStream::connect(server).await else {
            return;
        };
        let server = kept.insert(server);
        tokio::select! {
            _ = copy_bidirectional(&mut client, server) => return,
            _ = way.wait_for(|way| *way != Way::Open) => {}
        }
    }
    // An error is the end of the relay, which ends the silence too.
    let _ = way.wait_for(|way| *way != Way::Silent).await;
}
