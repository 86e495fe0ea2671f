//! Response bodies that keep something until they have been sent.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};

/// What goes on with a response while its body is sent.
pub(crate) trait Companion {
    /// Around each poll of the body.
    fn poll<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        poll()
    }

    /// The trailers, just before they are sent.
    fn trailers(&mut self, _trailers: &::http::HeaderMap) {}

    /// The body failed, and with it the response.
    fn failed(&mut self) {}
}

pin_project_lite::pin_project! {
    /// A body with its companion, which is dropped with it, or when its last frame was taken.
    pub(crate) struct Accompanied<B, C> {
        #[pin]
        body: B,
        companion: Option<C>,
    }
}

impl<B, C> Accompanied<B, C> {
    pub(crate) fn new(body: B, companion: C) -> Self {
        Self {
            body,
            companion: Some(companion),
        }
    }
}

impl<B: Body, C: Companion> Body for Accompanied<B, C> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let mut poll = || this.body.as_mut().poll_frame(cx);
        let frame = ready!(match this.companion {
            Some(companion) => companion.poll(&mut poll),
            None => poll(),
        });
        if let Some(companion) = this.companion {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        companion.trailers(trailers);
                    }
                }
                Some(Err(_)) => companion.failed(),
                None => {}
            }
        }
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            *this.companion = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
