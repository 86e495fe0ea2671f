//! No spans: the crate is built without its feature `opentelemetry`.

use rocketmq_proto::v2::MessageType;

use crate::{Error, Message, MessageView, Settlement, client::Shared, instance::Role, lease::Grip};

#[derive(Debug, Clone, Default)]
pub(crate) struct Spans;

pub(crate) type Caller = ();

#[derive(Debug)]
pub(crate) struct Span;

pub(crate) type Within = Span;

#[expect(clippy::unused_self, reason = "as with spans")]
impl Spans {
    pub(crate) fn new(_: bool, _: &Shared, _: &str, _: &Role) -> Self {
        Self
    }

    pub(crate) fn send(&self, _: &mut [Message], _: MessageType) -> Span {
        Span
    }

    pub(crate) fn receive(&self) -> Span {
        Span
    }

    pub(crate) fn process(&self, _: &MessageView) -> Span {
        Span
    }

    pub(crate) fn caller(&self) -> Caller {}

    pub(crate) fn settle<'j>(
        &self,
        _: Settlement,
        _: &str,
        _: impl Iterator<Item = (&'j Grip, &'j Caller)> + Clone,
    ) -> Span {
        Span
    }
}

#[expect(clippy::unused_self, reason = "as with spans")]
impl Span {
    pub(crate) fn ended<T>(self, _: &Result<T, Error>) {}

    pub(crate) fn brought<T>(self, _: &mut Result<T, Error>) {}

    pub(crate) fn within(&self) -> Self {
        Self
    }

    pub(crate) async fn run<F: Future>(&self, future: F) -> F::Output {
        future.await
    }

    pub(crate) async fn process<F: Future>(self, handler: F) -> F::Output {
        handler.await
    }
}
