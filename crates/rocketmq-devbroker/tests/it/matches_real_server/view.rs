//! Answers as JSON, without what differs from run to run: no times, no generated ids, no handles,
//! no host names, and no texts of errors. What is absent is left out.

use rocketmq_proto::v2::{self, settings::PubSub, telemetry_command::Command};
use serde_json::{Map, Value, json};

use super::{caller::PREFIX, scene::Received};

/// Longer ids are the server's own.
const OUR_IDS: usize = 24;
/// Longer bodies are told by their size.
const SHORT_BODY: usize = 64;

/// What the real server notes on messages with a lite topic, for itself.
const LITE_NOTE: &str = "INNER_MULTI_DISPATCH";

/// Builds an object of what is there.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if !empty {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    fn there(self, key: &str, there: bool) -> Self {
        self.put(key, if there { json!("there") } else { Value::Null })
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

pub(crate) fn answer<T>(
    result: &Result<T, tonic::Status>,
    view: impl FnOnce(&T) -> Value,
) -> Value {
    match result {
        Ok(answer) => view(answer),
        Err(status) => json!({ "grpc": format!("{:?}", status.code()) }),
    }
}

pub(crate) fn status(status: Option<&v2::Status>) -> Value {
    let Some(status) = status else {
        return Value::Null;
    };
    match v2::Code::try_from(status.code) {
        Ok(code) => json!(code.as_str_name()),
        Err(_) => json!(status.code),
    }
}

/// An answer that is a status and nothing else.
pub(crate) fn only(of: Option<&v2::Status>) -> Value {
    Fields::default().put("status", status(of)).done()
}

fn own(text: &str) -> String {
    text.replace(PREFIX.as_str(), "")
}

fn id(text: &str) -> String {
    let text = own(text);
    if text.len() > OUR_IDS {
        "generated".to_owned()
    } else {
        text
    }
}

fn resource(resource: Option<&v2::Resource>) -> Value {
    let Some(resource) = resource else {
        return Value::Null;
    };
    let name = own(&resource.name);
    match resource.resource_namespace.as_str() {
        "" => json!(name),
        namespace => json!(format!("{namespace} / {name}")),
    }
}

fn seconds(duration: Option<&prost_types::Duration>) -> Value {
    duration.map_or(Value::Null, |d| {
        #[expect(clippy::cast_precision_loss, reason = "durations of tests are short")]
        let seconds = d.seconds as f64 + f64::from(d.nanos) / 1e9;
        json!(seconds)
    })
}

fn queue(queue: &v2::MessageQueue) -> Value {
    let broker = queue.broker.clone().unwrap_or_default();
    let endpoints = broker.endpoints.unwrap_or_default();
    let types: Vec<&str> = queue
        .accept_message_types()
        .map(|kind| kind.as_str_name())
        .collect();
    Fields::default()
        .put("topic", resource(queue.topic.as_ref()))
        .put("id", queue.id)
        .put("permission", queue.permission().as_str_name())
        .put("types", types)
        .put("broker id", broker.id)
        .there("broker name", !broker.name.is_empty())
        .put("addresses", endpoints.addresses.len())
        .done()
}

pub(crate) fn route(answer: &v2::QueryRouteResponse) -> Value {
    let queues: Vec<Value> = answer.message_queues.iter().map(queue).collect();
    Fields::default()
        .put("status", status(answer.status.as_ref()))
        .put("queues", queues)
        .done()
}

pub(crate) fn assignment(answer: &v2::QueryAssignmentResponse) -> Value {
    let queues = answer.assignments.iter();
    let queues: Vec<Value> = queues
        .map(|assignment| assignment.message_queue.as_ref().map_or(Value::Null, queue))
        .collect();
    Fields::default()
        .put("status", status(answer.status.as_ref()))
        .put("queues", queues)
        .done()
}

pub(crate) fn send(answer: &v2::SendMessageResponse) -> Value {
    let entry = |entry: &v2::SendResultEntry| {
        // Its offset is that of the server's own topic for messages to come.
        let delayed = !entry.recall_handle.is_empty();
        Fields::default()
            .put("status", status(entry.status.as_ref()))
            .put("id", id(&entry.message_id))
            .put("transaction", id(&entry.transaction_id))
            .put("offset", (!delayed).then_some(entry.offset))
            .there("recall handle", delayed)
            .done()
    };
    let entries: Vec<Value> = answer.entries.iter().map(entry).collect();
    Fields::default()
        .put("status", status(answer.status.as_ref()))
        .put("entries", entries)
        .done()
}

pub(crate) fn ack(answer: &v2::AckMessageResponse) -> Value {
    let entry = |entry: &v2::AckMessageResultEntry| {
        Fields::default()
            .put("status", status(entry.status.as_ref()))
            .put("id", id(&entry.message_id))
            .there("handle", !entry.receipt_handle.is_empty())
            .done()
    };
    let entries: Vec<Value> = answer.entries.iter().map(entry).collect();
    Fields::default()
        .put("status", status(answer.status.as_ref()))
        .put("entries", entries)
        .done()
}

pub(crate) fn change(answer: &v2::ChangeInvisibleDurationResponse) -> Value {
    Fields::default()
        .put("status", status(answer.status.as_ref()))
        .there("handle", !answer.receipt_handle.is_empty())
        .done()
}

pub(crate) fn recall(answer: &v2::RecallMessageResponse) -> Value {
    Fields::default()
        .put("status", status(answer.status.as_ref()))
        .put("id", id(&answer.message_id))
        .done()
}

/// A receive: its messages by id, and by attempt unless it is the first.
pub(crate) fn received(received: &Received) -> Value {
    view_received(received, |message| {
        let system = message.system_properties.clone().unwrap_or_default();
        let id = own(&system.message_id);
        json!(match system.delivery_attempt {
            Some(1) => id,
            Some(attempt) => format!("{id} attempt {attempt}"),
            None => format!("{id} no attempt"),
        })
    })
}

/// A receive with all that is on its messages.
pub(crate) fn received_whole(received: &Received) -> Value {
    view_received(received, message)
}

fn view_received(received: &Received, view: impl Fn(&v2::Message) -> Value) -> Value {
    let messages: Vec<Value> = received.messages.iter().map(view).collect();
    let expected = format!("s{}t", "m".repeat(messages.len()));
    let order = if received.order == expected {
        ""
    } else {
        &received.order
    };
    Fields::default()
        .put("status", status(received.status.as_ref()))
        .put("order", order)
        .put("messages", messages)
        .done()
}

fn message(message: &v2::Message) -> Value {
    let system = message.system_properties.clone().unwrap_or_default();
    let properties = message.user_properties.iter();
    let properties = properties.filter(|(key, _)| *key != LITE_NOTE);
    let properties: Map<String, Value> = properties
        .map(|(key, value)| (own(key), json!(own(value))))
        .collect();
    let digest = system.body_digest.as_ref();
    let letter = system.dead_letter_queue.as_ref();
    Fields::default()
        .put("topic", resource(message.topic.as_ref()))
        .put("properties", properties)
        .put("body", body(&message.body))
        .put("id", id(&system.message_id))
        .put("tag", system.tag.clone())
        .put("keys", system.keys.clone())
        .put("type", system.message_type().as_str_name())
        .put("encoding", system.body_encoding().as_str_name())
        .put("digest", digest.map(|d| d.r#type().as_str_name()))
        .put("checksum", digest.map(|d| d.checksum.clone()))
        .put("born", system.born_timestamp.map(|at| at.to_string()))
        .put("born host", system.born_host.clone())
        .there("stored", system.store_timestamp.is_some())
        .there("store host", !system.store_host.is_empty())
        .there("deliver at", system.delivery_timestamp.is_some())
        .there("handle", system.receipt_handle.is_some())
        .put("queue", system.queue_id)
        .put("offset", system.queue_offset)
        .put("invisible", seconds(system.invisible_duration.as_ref()))
        .put("attempt", system.delivery_attempt)
        .put("group", system.message_group.clone())
        .put("trace", system.trace_context.clone())
        .there(
            "recovery",
            system.orphaned_transaction_recovery_duration.is_some(),
        )
        .put("dead letter of", letter.map(|l| own(&l.topic)))
        .put("dead letter id", letter.map(|l| id(&l.message_id)))
        .put("lite topic", system.lite_topic.clone())
        .put("priority", system.priority)
        .done()
}

fn body(body: &[u8]) -> Value {
    if body.len() > SHORT_BODY {
        return json!(format!("{} bytes", body.len()));
    }
    json!(String::from_utf8_lossy(body))
}

pub(crate) fn telemetry(answer: Option<&v2::TelemetryCommand>) -> Value {
    let Some(answer) = answer else {
        return json!("the stream ends");
    };
    let command = match &answer.command {
        None => Value::Null,
        Some(Command::Settings(of)) => settings(of),
        Some(other) => json!(format!("{other:?}").split('(').next()),
    };
    Fields::default()
        .put("status", status(answer.status.as_ref()))
        .put("settings", command)
        .done()
}

fn settings(settings: &v2::Settings) -> Value {
    let endpoints = settings.access_point.as_ref();
    let agent = settings.user_agent.as_ref();
    let metric = settings.metric.as_ref();
    let fields = Fields::default()
        .put(
            "type",
            settings
                .client_type
                .map(|_| settings.client_type().as_str_name()),
        )
        .put("access point", endpoints.map(|e| e.addresses.len()))
        .put("back-off", settings.backoff_policy.as_ref().map(policy))
        .put(
            "request timeout",
            seconds(settings.request_timeout.as_ref()),
        )
        .put(
            "language",
            agent.map(|agent| agent.language().as_str_name()),
        )
        .put("metric", metric.map(|metric| metric.on))
        .put("client properties", settings.client_properties.len());
    match &settings.pub_sub {
        None => fields,
        Some(PubSub::Publishing(publishing)) => fields
            .put("topics", resources(publishing.topics.iter().map(Some)))
            .put("max body", publishing.max_body_size)
            .put("validate type", publishing.validate_message_type),
        Some(PubSub::Subscription(subscription)) => fields
            .put("group", resource(subscription.group.as_ref()))
            .put("subscriptions", {
                let entries = subscription.subscriptions.iter();
                resources(entries.map(|entry| entry.topic.as_ref()))
            })
            .put("fifo", subscription.fifo)
            .put("batch", subscription.receive_batch_size)
            .put(
                "long poll",
                seconds(subscription.long_polling_timeout.as_ref()),
            )
            .put("lite quota", subscription.lite_subscription_quota)
            .put("lite topic size", subscription.max_lite_topic_size),
    }
    .done()
}

fn resources<'a>(all: impl Iterator<Item = Option<&'a v2::Resource>>) -> Vec<Value> {
    all.map(resource).collect()
}

fn policy(policy: &v2::RetryPolicy) -> Value {
    use v2::retry_policy::Strategy;

    let fields = Fields::default().put("attempts", policy.max_attempts);
    match &policy.strategy {
        None => fields,
        Some(Strategy::ExponentialBackoff(wait)) => fields
            .put("initial", seconds(wait.initial.as_ref()))
            .put("max", seconds(wait.max.as_ref()))
            .put("multiplier", wait.multiplier),
        Some(Strategy::CustomizedBackoff(waits)) => fields.put(
            "next",
            waits
                .next
                .iter()
                .map(|wait| seconds(Some(wait)))
                .collect::<Vec<_>>(),
        ),
    }
    .done()
}
