//! The way into the broker without a socket.

use std::{
    fmt,
    future::{Ready, ready},
    io,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

use crate::broker::Inner;

/// Buffered bytes of one direction of a connection in memory.
const PIPE_BYTES: usize = 256 << 10;

/// Connects to a broker in memory, whatever address is asked for.
///
/// It is what tonic's `Endpoint::connect_with_connector` takes. It keeps the broker alive.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use rocketmq_devbroker::DevBroker;
/// use tonic::transport::Endpoint;
///
/// let broker = DevBroker::start().await;
/// let endpoint = Endpoint::from_static("http://whatever.invalid");
/// let channel = endpoint.connect_with_connector(broker.connector()).await?;
/// # drop(channel);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    broker: Arc<Inner>,
}

impl Connector {
    pub(crate) fn new(broker: Arc<Inner>) -> Self {
        Self { broker }
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// Connection refused while the broker is stopped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, as everything in tokio does.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let serving = self.broker.serving().ok_or_else(|| {
            let message = "the dev broker is stopped";
            io::Error::new(io::ErrorKind::ConnectionRefused, message)
        })?;
        serving.connection(far, None);
        Ok(near)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<DuplexStream>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        ready(self.connect().map(TokioIo::new))
    }
}
