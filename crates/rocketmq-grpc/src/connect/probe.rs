//! What the first bytes of a new connection tell: whether the two sides speak the same protocol.
//!
//! HTTP/2 reports such a misunderstanding as a broken frame, if at all, so it is noticed here, and
//! kept until somebody asks why the connection was lost.

use std::{
    error::Error as StdError,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::BoxStream;

/// First byte of a TLS alert; a server's first frame of HTTP/2 begins with a zero.
const TLS_ALERT: u8 = 0x15;

/// What keeps a connection from being of use, and what to do about it.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    message: String,
    /// It does not pass by itself.
    pub(crate) lasting: bool,
}

/// The last fault of a server's connections, until one works.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diagnosis(Arc<Mutex<Option<Fault>>>);

/// How a connector's streams are secured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Security {
    pub(crate) scheme: &'static str,
    /// What an error of the stream means, if it is about the security.
    pub(crate) fault: fn(&io::Error) -> Option<Fault>,
}

/// Looks at what comes first.
pub(crate) struct Probe {
    stream: BoxStream,
    security: Security,
    diagnosis: Diagnosis,
    heard: bool,
}

// === impl Fault ===

impl Fault {
    /// One that somebody has to mend.
    pub(crate) fn lasting(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            lasting: true,
        }
    }

    fn perhaps(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            lasting: false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Fault {}

// === impl Diagnosis ===

impl Diagnosis {
    pub(crate) fn last(&self) -> Option<Fault> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

// === impl Security ===

impl Security {
    pub(crate) const NONE: Self = Self {
        scheme: "http",
        fault: |_| None,
    };

    fn is_none(&self) -> bool {
        self.scheme == Self::NONE.scheme
    }
}

// === impl Probe ===

impl Probe {
    pub(super) fn new(stream: BoxStream, security: Security, diagnosis: Diagnosis) -> Self {
        Self {
            stream,
            security,
            diagnosis,
            heard: false,
        }
    }

    fn hear(&mut self, outcome: Result<&[u8], &io::Error>) {
        self.heard = true;
        let plain = self.security.is_none();
        let silent = || {
            plain.then(|| {
                Fault::perhaps(
                    "the server closed the new connection without a word: is this the gRPC port of \
                     a proxy, and does it want TLS (Config::tls)",
                )
            })
        };
        let fault = match outcome {
            Ok([]) => silent(),
            Ok([TLS_ALERT, ..]) if plain => Some(Fault::lasting(
                "the server speaks TLS at this port: tell the client so with Config::tls",
            )),
            Ok(bytes) if bytes.starts_with(b"HTTP/1") => Some(Fault::lasting(
                "the server speaks HTTP/1 at this port, not gRPC: use the gRPC port of the proxy",
            )),
            Ok(_) => None,
            Err(error) => (self.security.fault)(error).or_else(silent),
        };
        self.diagnosis.set(fault);
    }
}

impl AsyncRead for Probe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if !self.heard {
            self.hear(read.as_ref().map(|()| &buf.filled()[before..]));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Probe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
