//! Connections that go silent without ending.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::core::lock;

/// Whether connections are silent, and who waits for the end of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frost {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    frozen: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Frost {
    pub(crate) fn freeze(&self) {
        self.inner.frozen.store(true, Ordering::Release);
    }

    pub(crate) fn thaw(&self) {
        let mut wakers = lock(&self.inner.wakers);
        self.inner.frozen.store(false, Ordering::Release);
        wakers.drain(..).for_each(Waker::wake);
    }

    /// Ready unless connections are silent; then the task is woken when that ends.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.inner.frozen.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut wakers = lock(&self.inner.wakers);
        if !self.inner.frozen.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// A connection that is silent while there is frost.
#[derive(Debug)]
pub(crate) struct Freezable<I> {
    io: I,
    frost: Frost,
}

impl<I> Freezable<I> {
    pub(crate) fn new(io: I, frost: Frost) -> Self {
        Self { io, frost }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Freezable<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.frost.poll(cx));
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Freezable<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.frost.poll(cx));
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.frost.poll(cx));
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
