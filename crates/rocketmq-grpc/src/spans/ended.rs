//! Spans that are open, and how they end.

use std::{borrow::Cow, fmt::Display, sync::Arc, time::SystemTime};

use opentelemetry::{
    Context, KeyValue, global,
    trace::{FutureExt as _, Link, SpanKind, Status, TraceContextExt as _, Tracer as _},
};

use super::{Origin, message_count, message_id, scope};
use crate::{Error, Lease};

/// A span that is open until it is dropped; or none.
#[derive(Debug)]
pub(crate) struct Span(Option<Context>);

/// A receive, which has no span until something is known of it.
#[derive(Debug)]
pub(crate) struct Receiving(Option<(Arc<Origin>, SystemTime)>);

/// A handler runs.
#[derive(Debug)]
pub(crate) struct Processing(Span);

/// What follows from a handler is done within its span, also when that has ended.
#[derive(Debug)]
pub(crate) struct Within(Option<Context>);

impl Span {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    pub(super) fn start(
        name: String,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        links: Vec<Link>,
        since: Option<SystemTime>,
        parent: &Context,
    ) -> Self {
        // Asked for each time: a provider that is installed late counts from then on.
        let tracer = global::tracer_with_scope(scope());
        let mut builder = tracer
            .span_builder(name)
            .with_kind(kind)
            .with_attributes(attributes)
            .with_links(links);
        builder.start_time = since;
        let span = tracer.build_with_context(builder, parent);
        Self(Some(parent.with_span(span)))
    }

    pub(super) fn context(&self) -> &Context {
        static NONE: std::sync::LazyLock<Context> = std::sync::LazyLock::new(Context::new);
        self.0.as_ref().unwrap_or(&NONE)
    }

    /// It is over, well or not.
    pub(crate) fn ended<T>(self, result: &Result<T, Error>) {
        if let Err(error) = result {
            self.failed(error_type(error), error);
        }
    }

    fn failed(&self, error_type: &'static str, why: &dyn Display) {
        let Some(context) = &self.0 else {
            return;
        };
        let span = context.span();
        span.set_attribute(KeyValue::new("error.type", error_type));
        span.set_status(Status::error(Cow::Owned(why.to_string())));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            // Handlers may have kept the context.
            context.span().end();
        }
    }
}

impl Receiving {
    pub(super) fn begin(origin: Option<Arc<Origin>>) -> Self {
        Self(origin.map(|it| (it, SystemTime::now())))
    }

    /// It has an end: what has come is told who sent it.
    pub(crate) fn brought(self, result: &mut Result<Vec<Lease>, Error>) {
        let Some((origin, since)) = self.0 else {
            return;
        };
        let leases = match result {
            Ok(leases) if leases.is_empty() => return,
            Ok(leases) => leases.as_mut_slice(),
            Err(error) if error.is_closed() => return,
            Err(_) => &mut [],
        };
        for lease in &mut *leases {
            let sender = lease.message().span_context();
            lease.grip.sender = sender.map(Box::new);
        }
        let first = leases.first().map(|it| &it.message().topic);
        // A simple consumer may get messages of several topics at once.
        let topic = first.filter(|first| leases.iter().all(|it| it.message().topic == **first));
        let mut attributes = origin.attributes("receive", "receive", topic.map(|it| &**it));
        if !leases.is_empty() {
            attributes.push(message_count(leases.len()));
        }
        let links = leases.iter().filter_map(|lease| {
            let sender = lease.grip.sender.as_deref()?.clone();
            let message = lease.message();
            let attributes = vec![message_id(&message.id), message.partition()];
            Some(Link::new(sender, attributes, 0))
        });
        let destination = topic.map_or(&*origin.address, |it| &**it);
        let span = Span::start(
            format!("receive {destination}"),
            SpanKind::Client,
            attributes,
            links.collect(),
            Some(since),
            &Context::current(),
        );
        span.ended(result);
    }
}

impl Processing {
    pub(super) const fn none() -> Self {
        Self(Span::none())
    }

    pub(super) const fn of(span: Span) -> Self {
        Self(span)
    }

    pub(crate) fn within(&self) -> Within {
        Within(self.0.0.clone())
    }

    /// Runs a handler in its span.
    pub(crate) async fn process<E: Display>(
        self,
        handler: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let Self(span) = self;
        let result = Within(span.0.clone()).run(handler).await;
        if let Err(error) = &result {
            span.failed(OTHER, error);
        }
        result
    }
}

impl Within {
    pub(crate) async fn run<F: Future>(&self, future: F) -> F::Output {
        match &self.0 {
            None => future.await,
            Some(context) => future.with_context(context.clone()).await,
        }
    }
}

/// What the conventions say of an error without a type.
const OTHER: &str = "_OTHER";

/// A few values: the server's codes, and what can happen on the way.
fn error_type(error: &Error) -> &'static str {
    if let Some(code) = error.code_name() {
        return code;
    }
    let kinds = [
        (error.is_timeout(), "timeout"),
        (error.is_disconnected(), "disconnected"),
        (error.is_receipt_expired(), "lease_lost"),
        (error.is_invalid(), "invalid"),
        (error.is_closed(), "closed"),
    ];
    let found = kinds.into_iter().find(|(is, _)| *is);
    found.map_or(OTHER, |(_, kind)| kind)
}
