//! Whether a client has said which HTTP it speaks. hyper waits for that without end.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

/// What a client of HTTP/2 says first; who says anything else speaks HTTP/1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes are looked at.
pub(super) struct Greeted<S> {
    stream: S,
    /// How much of the preface has come.
    seen: usize,
    said: Said,
}

/// Whether it has been said.
#[derive(Clone, Debug, Default)]
pub(super) struct Said(Arc<AtomicBool>);

// === impl Greeted ===

impl<S> Greeted<S> {
    pub(super) fn new(stream: S) -> (Self, Said) {
        let said = Said::default();
        let greeted = Self {
            stream,
            seen: 0,
            said: said.clone(),
        };
        (greeted, said)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.seen < PREFACE.len() {
            let come = buf.filled().get(before..).unwrap_or_default();
            let wanted = PREFACE.get(this.seen..).unwrap_or_default();
            let same = come.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            this.seen += same;
            if same < come.len() || this.seen == PREFACE.len() {
                this.seen = PREFACE.len();
                this.said.0.store(true, Relaxed);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

// === impl Said ===

impl Said {
    /// Completes if it has not been said after `limit`.
    pub(super) async fn nothing_for(self, limit: Duration) {
        sleep(limit).await;
        if self.0.load(Relaxed) {
            pending().await
        }
    }
}
