//! Spans of sends, receives, handlers and settlements, by the API of OpenTelemetry, under the names
//! of its conventions for messaging.
//!
//! For who uses this client alone. A framework that has spans of its own switches them off:
//! [`Client::untraced`](crate::Client::untraced).

mod context;
mod ended;

use std::{sync::Arc, time::SystemTime};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue, StringValue, Value,
    trace::{Link, SpanContext, SpanKind, TraceContextExt as _},
};
use rocketmq_proto::v2::MessageType;

pub(crate) use self::ended::{Processing, Receiving, Span, Within};
use crate::{Message, MessageView, Settlement, client::Shared, instance::Role, lease::Grip};

/// The conventions that names and attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// What makes the spans of a producer or consumer; nothing where it was not asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spans(Option<Arc<Origin>>);

/// What all spans of a producer or consumer have in common.
#[derive(Debug)]
struct Origin {
    attributes: Vec<KeyValue>,
    /// Of the access point.
    address: String,
}

/// The span in which a settlement was asked for.
pub(crate) type Caller = Option<SpanContext>;

impl Spans {
    pub(crate) fn new(traced: bool, shared: &Shared, client_id: &str, role: &Role) -> Self {
        if !traced {
            return Self(None);
        }
        let (host, port) = shared.access_point.first();
        let mut attributes = vec![
            KeyValue::new("messaging.system", "rocketmq"),
            KeyValue::new("messaging.client.id", client_id.to_owned()),
            KeyValue::new(
                "messaging.rocketmq.namespace",
                shared.config.namespace.clone(),
            ),
            KeyValue::new("server.address", host.to_owned()),
            KeyValue::new("server.port", i64::from(port)),
        ];
        if let Role::Consumer { group, .. } = role {
            attributes.push(KeyValue::new(
                "messaging.consumer.group.name",
                group.clone(),
            ));
            let model = KeyValue::new("messaging.rocketmq.consumption_model", "clustering");
            attributes.push(model);
        }
        Self(Some(Arc::new(Origin {
            attributes,
            address: format!("{host}:{port}"),
        })))
    }

    /// A send, a child of the span that the caller runs in, and the parent of whoever receives the
    /// messages: but of those that have a trace of their own already, which are linked.
    pub(crate) fn send(&self, messages: &mut [Message], kind: MessageType) -> Span {
        let (Some(origin), Some(first)) = (&self.0, messages.first()) else {
            return Span::none();
        };
        let ambient = Context::current();
        let own = messages
            .iter()
            .filter_map(|it| context::extract(|name| it.property_value(name)));
        let links: Vec<_> = own.map(Link::with_context).collect();
        let creates = messages
            .iter()
            .any(|it| it.property_value(context::TRACEPARENT).is_none());
        let mut attributes = origin.attributes("send", "send", Some(first.topic()));
        let alone = messages.len() == 1;
        if alone {
            first.describe(kind, &mut attributes);
        } else {
            attributes.push(message_count(messages.len()));
        }
        let kind = if creates {
            SpanKind::Producer
        } else {
            SpanKind::Client
        };
        let name = format!("send {}", first.topic());
        let span = Span::start(name, kind, attributes, links, None, &ambient);
        for message in messages {
            context::inject(span.context(), message);
        }
        span
    }

    /// A receive begins. It has a span when it has brought something, or failed.
    pub(crate) fn receive(&self) -> Receiving {
        Receiving::begin(self.0.clone())
    }

    /// The handler of a message: a child of the sender's span, and linked to it.
    pub(crate) fn process(&self, message: &MessageView) -> Processing {
        let Some(origin) = &self.0 else {
            return Processing::none();
        };
        let sender = message.span_context();
        let parent = sender.clone().map(|it| {
            let parent = Context::new();
            parent.with_remote_span_context(it)
        });
        let topic = &*message.topic;
        let mut attributes = origin.attributes("process", "process", Some(topic));
        message.describe(&mut attributes);
        let links = sender.map(Link::with_context).into_iter().collect();
        Processing::of(Span::start(
            format!("process {topic}"),
            SpanKind::Consumer,
            attributes,
            links,
            None,
            &parent.unwrap_or_default(),
        ))
    }

    /// In what span this code runs.
    pub(crate) fn caller(&self) -> Caller {
        self.0.as_ref()?;
        let context = Context::map_current(|cx| cx.span().span_context().clone());
        context.is_valid().then_some(context)
    }

    /// One request that settles messages of a topic: a child of the span that asked for it, if that
    /// is one, and linked to who sent the messages.
    pub(crate) fn settle<'j>(
        &self,
        how: Settlement,
        topic: &str,
        messages: impl Iterator<Item = (&'j Grip, &'j Caller)> + Clone,
    ) -> Span {
        let Some(origin) = &self.0 else {
            return Span::none();
        };
        let operation = match how {
            Settlement::Ack => "ack",
            Settlement::RetryAfter(_) => "nack",
            Settlement::HandBack => "hand_back",
            Settlement::DeadLetter => "dead_letter",
        };
        let mut attributes = origin.attributes(operation, "settle", Some(topic));
        let many = messages.clone().nth(1).is_some();
        if many {
            attributes.push(message_count(messages.clone().count()));
        } else {
            let ids = messages
                .clone()
                .map(|(grip, _)| message_id(&grip.message_id));
            attributes.extend(ids);
        }
        let mut callers = messages.clone().map(|(_, caller)| caller);
        let first = callers.next().and_then(Option::as_ref);
        let parent = first.filter(|first| callers.all(|it| it.as_ref() == Some(*first)));
        let parent = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent.clone()),
            None => Context::new(),
        };
        let links = messages.filter_map(|(grip, _)| {
            let sender = grip.sender.as_deref()?.clone();
            let attributes = if many {
                vec![message_id(&grip.message_id)]
            } else {
                Vec::new()
            };
            Some(Link::new(sender, attributes, 0))
        });
        let name = format!("{operation} {topic}");
        let links = links.collect();
        Span::start(name, SpanKind::Client, attributes, links, None, &parent)
    }
}

impl Origin {
    fn attributes(
        &self,
        name: &'static str,
        operation: &'static str,
        topic: Option<&str>,
    ) -> Vec<KeyValue> {
        let mut attributes = self.attributes.clone();
        attributes.push(KeyValue::new("messaging.operation.name", name));
        attributes.push(KeyValue::new("messaging.operation.type", operation));
        let topic = topic.map(|it| KeyValue::new("messaging.destination.name", it.to_owned()));
        attributes.extend(topic);
        attributes
    }
}

impl Message {
    fn describe(&self, kind: MessageType, to: &mut Vec<KeyValue>) {
        let kind = match kind {
            MessageType::Transaction => "transaction",
            MessageType::Delay => "delay",
            MessageType::Fifo => "fifo",
            MessageType::Priority => "priority",
            MessageType::Lite => "lite",
            MessageType::Normal | MessageType::Unspecified => "normal",
        };
        to.push(message_id(self.id()));
        to.push(KeyValue::new("messaging.rocketmq.message.type", kind));
        if let Some(at) = self.delivery_time() {
            let since = at.duration_since(SystemTime::UNIX_EPOCH);
            let millis = i64::try_from(since.unwrap_or_default().as_millis());
            to.push(KeyValue::new(
                "messaging.rocketmq.message.delivery_timestamp",
                millis.unwrap_or(i64::MAX),
            ));
        }
        let (tag, keys) = self.tag_and_keys();
        of_message(tag, keys, self.message_group(), to);
    }
}

impl MessageView {
    /// The span that the message was sent in, by its `traceparent`; `None` if it has none that can
    /// be read. The parent for spans of your own that tell how the message was handled.
    ///
    /// ```
    /// use rocketmq_grpc::MessageView;
    ///
    /// let mut message = MessageView::default();
    /// assert!(message.span_context().is_none());
    /// let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// message.properties.insert("traceparent".into(), traceparent.into());
    /// assert!(message.span_context().is_some_and(|it| it.is_sampled() && it.is_remote()));
    /// ```
    #[must_use]
    pub fn span_context(&self) -> Option<SpanContext> {
        context::extract(|name| self.properties.get(name).map(String::as_str))
    }

    fn describe(&self, to: &mut Vec<KeyValue>) {
        to.push(message_id(&self.id));
        to.push(self.partition());
        let attempt = KeyValue::new("messaging.delivery.attempt", i64::from(self.attempt));
        to.push(attempt);
        of_message(self.tag.as_deref(), &self.keys, self.group.as_deref(), to);
    }

    fn partition(&self) -> KeyValue {
        KeyValue::new(
            "messaging.destination.partition.id",
            self.queue_id.to_string(),
        )
    }
}

fn of_message(tag: Option<&str>, keys: &[String], group: Option<&str>, to: &mut Vec<KeyValue>) {
    if let Some(tag) = tag {
        to.push(KeyValue::new(
            "messaging.rocketmq.message.tag",
            tag.to_owned(),
        ));
    }
    if !keys.is_empty() {
        let keys: Vec<StringValue> = keys.iter().map(|key| key.clone().into()).collect();
        let keys = Value::Array(keys.into());
        to.push(KeyValue::new("messaging.rocketmq.message.keys", keys));
    }
    if let Some(group) = group {
        to.push(KeyValue::new(
            "messaging.rocketmq.message.group",
            group.to_owned(),
        ));
    }
}

fn message_id(id: &str) -> KeyValue {
    KeyValue::new("messaging.message.id", id.to_owned())
}

fn message_count(of: usize) -> KeyValue {
    let count = i64::try_from(of).unwrap_or(i64::MAX);
    KeyValue::new("messaging.batch.message_count", count)
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("rocketmq-grpc")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}
