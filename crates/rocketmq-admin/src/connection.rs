//! One TCP connection to a server: requests in any number, answers in any order.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    frame::{Frame, FrameError},
    sync::Guarded,
};

/// Requests that wait to be written.
const OUTBOX_MAX: usize = 32;

/// A handle on the task that reads and writes; the last one dropped closes the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    outbox: mpsc::Sender<Bytes>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    Timeout,
    /// The connection is gone; where a cause is known, it is told.
    Lost(Option<Arc<Broken>>),
    /// The request itself cannot be sent.
    Request(FrameError),
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Broken {
    Io(io::Error),
    Frame(FrameError),
}

#[derive(Debug)]
struct Shared {
    opaque: AtomicI32,
    state: Guarded<State>,
}

#[derive(Debug)]
struct State {
    /// Callers that wait, by opaque; none once the connection has ended.
    pending: Option<HashMap<i32, oneshot::Sender<Frame>>>,
    broken: Option<Arc<Broken>>,
    last_read: Instant,
}

/// A place among those who wait, given up when dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    opaque: i32,
    answer: oneshot::Receiver<Frame>,
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let (outbox, requests) = mpsc::channel(OUTBOX_MAX);
        let shared = Arc::new(Shared {
            opaque: AtomicI32::new(1),
            state: Guarded::new(State {
                pending: Some(HashMap::new()),
                broken: None,
                last_read: Instant::now(),
            }),
        });
        let task = tokio::spawn(run(Arc::clone(&shared), reader, writer, requests));
        Ok(Self {
            outbox,
            shared,
            task,
        })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.task.is_finished() && self.shared.state.with(|it| it.pending.is_some())
    }

    /// Sends a request and waits for its answer. May be dropped at any time.
    ///
    /// If nothing at all came in while a call waited in vain, the peer is taken for dead: the
    /// connection is closed, and the next use opens another.
    pub(crate) async fn call(&self, mut request: Frame, by: Instant) -> Result<Frame, Fault> {
        let start = Instant::now();
        let waiting = self.shared.enter().ok_or_else(|| self.lost())?;
        request.header.opaque = waiting.opaque;
        let bytes = request.encode().map_err(Fault::Request)?;
        let exchange = async {
            self.outbox.send(bytes).await.ok()?;
            waiting.wait().await
        };
        match timeout_at(by, exchange).await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(self.lost()),
            Err(_) => {
                if self.shared.state.with(|it| it.last_read) <= start {
                    self.close();
                }
                Err(Fault::Timeout)
            }
        }
    }

    fn lost(&self) -> Fault {
        Fault::Lost(self.shared.state.with(|it| it.broken.clone()))
    }

    fn close(&self) {
        self.shared.state.with(|it| it.pending = None);
        self.task.abort();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

// === impl Shared ===

impl Shared {
    fn enter(&self) -> Option<Waiting<'_>> {
        let opaque = self.opaque.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.state
            .with(|it| it.pending.as_mut().map(|it| it.insert(opaque, sender)))?;
        Some(Waiting {
            shared: self,
            opaque,
            answer,
        })
    }

    fn take(&self, frame: Frame) {
        if !frame.is_response() {
            // Servers ask registered clients only, and this one registers nothing.
            tracing::debug!(code = frame.header.code, "a server's request was ignored");
            return;
        }
        let opaque = frame.header.opaque;
        let waiting = self.state.with(|it| {
            it.last_read = Instant::now();
            it.pending.as_mut()?.remove(&opaque)
        });
        match waiting {
            // Nobody waits for it if the caller is gone meanwhile.
            Some(caller) => drop(caller.send(frame)),
            None => tracing::debug!(opaque, "an answer that nobody waits for"),
        }
    }
}

impl Waiting<'_> {
    async fn wait(mut self) -> Option<Frame> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared
            .state
            .with(|it| it.pending.as_mut().map(|it| it.remove(&self.opaque)));
    }
}

// === impl Broken ===

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Frame(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => error.source(),
            Self::Frame(error) => error.source(),
        }
    }
}

/// Reads and writes at the same time, until one of the two fails.
async fn run(
    shared: Arc<Shared>,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    requests: mpsc::Receiver<Bytes>,
) {
    let ended = tokio::select! {
        it = read(&shared, reader) => it,
        it = write(writer, requests) => it.map_err(Broken::Io),
    };
    shared.state.with(|it| {
        it.broken = ended.err().map(Arc::new);
        it.pending = None;
    });
}

async fn read(shared: &Shared, mut reader: OwnedReadHalf) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    while reader.read_buf(&mut buffer).await.map_err(Broken::Io)? > 0 {
        while let Some(frame) = Frame::decode(&mut buffer).map_err(Broken::Frame)? {
            shared.take(frame);
        }
    }
    Ok(())
}

async fn write(mut writer: OwnedWriteHalf, mut requests: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(request) = requests.recv().await {
        writer.write_all(&request).await?;
    }
    Ok(())
}
