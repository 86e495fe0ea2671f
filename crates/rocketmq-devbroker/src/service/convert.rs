//! Wire types to the state machine's and back.

use std::{collections::HashMap, time::Duration};

use prost_types::Timestamp as WireTimestamp;
use rocketmq_proto::v2;

use crate::{
    service::{BROKER_NAME, request::Context},
    state::{
        Backoff, Delivered, Draft, GroupConfig, MESSAGE_GROUP, Refusal, Sent, Stored, Subscription,
        Timestamp,
    },
};

/// Under which name consumers see the trace context once more.
const TRACE_CONTEXT: &str = "TRACE_CONTEXT";

impl From<Refusal> for v2::Status {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code.into(),
            message: refusal.message,
        }
    }
}

pub(crate) fn ok() -> v2::Status {
    v2::Status {
        code: v2::Code::Ok.into(),
        message: "OK".to_owned(),
    }
}

/// The name of a topic or group. Like the real server, this one does not look at namespaces.
pub(crate) fn name(resource: Option<&v2::Resource>) -> String {
    resource.map_or_else(String::new, |resource| resource.name.clone())
}

/// A duration that is there and not negative.
pub(crate) fn duration(wire: Option<&prost_types::Duration>) -> Option<Duration> {
    const NANOS: i128 = 1_000_000_000;
    let Some(wire) = wire else {
        return Some(Duration::ZERO);
    };
    // By hand: prost's conversion panics at the smallest number of seconds.
    let nanos = i128::from(wire.seconds) * NANOS + i128::from(wire.nanos);
    let seconds = u64::try_from(nanos.div_euclid(NANOS)).ok()?;
    let nanos = u32::try_from(nanos.rem_euclid(NANOS)).ok()?;
    Some(Duration::new(seconds, nanos))
}

pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

pub(crate) fn wire_timestamp(at: Timestamp) -> WireTimestamp {
    let millis = at.as_millis();
    WireTimestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000).unwrap_or_default() * 1_000_000,
    }
}

fn timestamp(wire: &WireTimestamp) -> Timestamp {
    let seconds = u64::try_from(wire.seconds).unwrap_or_default();
    let nanos = u32::try_from(wire.nanos).unwrap_or_default();
    Timestamp::default().plus(Duration::from_secs(seconds).saturating_add(
        // Below a second, whatever the wire says.
        Duration::from_nanos(u64::from(nanos.min(999_999_999))),
    ))
}

pub(crate) fn queue(
    topic: Option<&v2::Resource>,
    id: i32,
    endpoints: &v2::Endpoints,
    types: &[v2::MessageType],
) -> v2::MessageQueue {
    v2::MessageQueue {
        topic: topic.cloned(),
        id,
        permission: v2::Permission::ReadWrite.into(),
        broker: Some(v2::Broker {
            name: BROKER_NAME.to_owned(),
            id: 0,
            endpoints: Some(endpoints.clone()),
        }),
        accept_message_types: types.iter().map(|kind| (*kind).into()).collect(),
    }
}

pub(crate) fn draft(message: v2::Message, cx: &Context) -> Draft {
    let system = message.system_properties.unwrap_or_default();
    let (encoding, declared) = (system.body_encoding(), system.message_type());
    let born_host = if system.born_host.is_empty() {
        cx.peer()
    } else {
        system.born_host
    };
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    Draft {
        topic: name(message.topic.as_ref()),
        id: system.message_id,
        tag: text(system.tag),
        keys: system.keys,
        properties: message.user_properties.into_iter().collect(),
        body: message.body,
        encoding,
        declared,
        born_at: system
            .born_timestamp
            .as_ref()
            .map(timestamp)
            .unwrap_or_default(),
        born_host,
        message_group: text(system.message_group),
        deliver_at: system.delivery_timestamp.as_ref().map(timestamp),
        trace_context: text(system.trace_context),
        priority: system.priority,
        lite_topic: text(system.lite_topic),
        recovery_seconds: system
            .orphaned_transaction_recovery_duration
            .map(|recovery| recovery.seconds),
    }
}

pub(crate) fn send_answer(result: Result<Vec<Sent>, Refusal>) -> v2::SendMessageResponse {
    let entry = |sent: Sent| v2::SendResultEntry {
        status: Some(ok()),
        message_id: sent.message_id,
        transaction_id: sent.transaction_id,
        offset: i64::try_from(sent.offset).unwrap_or(i64::MAX),
        recall_handle: sent.recall_handle,
    };
    match result {
        Ok(sent) => v2::SendMessageResponse {
            status: Some(ok()),
            entries: sent.into_iter().map(entry).collect(),
        },
        Err(refusal) => v2::SendMessageResponse {
            status: Some(refusal.into()),
            entries: Vec::new(),
        },
    }
}

/// A message for a consumer, under the topic as the consumer named it, without its namespace.
pub(crate) fn delivery(
    delivered: &Delivered,
    topic: &v2::Resource,
    store_host: &str,
) -> v2::Message {
    let mut message = stored_message(&delivered.message, topic, store_host);
    if let Some(system) = &mut message.system_properties {
        system.receipt_handle = Some(delivered.handle.clone());
        system.delivery_attempt = i32::try_from(delivered.attempt).ok();
    }
    message
}

/// The question what became of a transaction.
pub(crate) fn recover(half: &Stored, store_host: &str) -> v2::RecoverOrphanedTransactionCommand {
    let topic = v2::Resource {
        resource_namespace: String::new(),
        name: half.draft.topic.clone(),
    };
    v2::RecoverOrphanedTransactionCommand {
        message: Some(stored_message(half, &topic, store_host)),
        transaction_id: half.draft.id.clone(),
    }
}

/// The user properties as the server gives them out: none without a value, and the message group
/// among them.
fn properties(draft: &Draft) -> HashMap<String, String> {
    let group = draft.message_group.iter();
    let group = group.map(|group| (MESSAGE_GROUP.to_owned(), group.clone()));
    let trace = draft.trace_context.iter();
    let trace = trace.map(|trace| (TRACE_CONTEXT.to_owned(), trace.clone()));
    let properties = draft.properties.clone().into_iter();
    properties.chain(group).chain(trace).collect()
}

/// What a consumer subscribes to.
pub(crate) fn subscription(entry: &v2::SubscriptionEntry) -> Subscription {
    let expression = entry.expression.as_ref();
    Subscription {
        topic: name(entry.topic.as_ref()),
        filter: expression.map(|expression| expression.expression.clone()),
        is_sql: expression.is_some_and(|e| e.r#type() == v2::FilterType::Sql),
    }
}

fn stored_message(stored: &Stored, topic: &v2::Resource, store_host: &str) -> v2::Message {
    let draft = &stored.draft;
    let digest = v2::Digest {
        r#type: v2::DigestType::Md5.into(),
        checksum: stored.md5.clone(),
    };
    v2::Message {
        topic: Some(v2::Resource {
            resource_namespace: String::new(),
            name: topic.name.clone(),
        }),
        user_properties: properties(draft),
        system_properties: Some(v2::SystemProperties {
            tag: draft.tag.clone(),
            keys: draft.keys.clone(),
            message_id: draft.id.clone(),
            body_digest: Some(digest),
            body_encoding: draft.encoding.into(),
            message_type: stored.kind.into(),
            born_timestamp: Some(wire_timestamp(draft.born_at)),
            born_host: draft.born_host.clone(),
            store_timestamp: Some(wire_timestamp(stored.stored_at)),
            store_host: store_host.to_owned(),
            delivery_timestamp: draft.deliver_at.map(wire_timestamp),
            receipt_handle: None,
            queue_id: i32::try_from(stored.queue).unwrap_or(i32::MAX),
            queue_offset: i64::try_from(stored.offset).ok(),
            invisible_duration: None,
            delivery_attempt: Some(1),
            message_group: draft.message_group.clone(),
            trace_context: draft.trace_context.clone(),
            orphaned_transaction_recovery_duration: None,
            // Not told by the real server's proxy.
            dead_letter_queue: None,
            lite_topic: draft.lite_topic.clone(),
            priority: draft
                .priority
                .filter(|_| stored.kind == v2::MessageType::Priority || stored.is_dead_letter()),
        }),
        body: draft.body.clone(),
    }
}

/// The back-off that consumers of a group are told.
pub(crate) fn retry_policy(group: &GroupConfig) -> v2::RetryPolicy {
    use v2::retry_policy::Strategy;

    let strategy = match &group.backoff {
        Backoff::Customized(next) => Strategy::CustomizedBackoff(v2::CustomizedBackoff {
            next: next.iter().map(|wait| wire_duration(*wait)).collect(),
        }),
        Backoff::Exponential {
            initial,
            max,
            multiplier,
        } => exponential(*initial, *max, *multiplier),
    };
    let max_attempts = i32::try_from(group.max_attempts()).unwrap_or(i32::MAX);
    v2::RetryPolicy {
        max_attempts,
        strategy: Some(strategy),
    }
}

/// The back-off that producers are told: three attempts, 10 ms to 1 s.
pub(crate) fn producer_retry_policy() -> v2::RetryPolicy {
    let strategy = exponential(Duration::from_millis(10), Duration::from_secs(1), 2.0);
    v2::RetryPolicy {
        max_attempts: 3,
        strategy: Some(strategy),
    }
}

fn exponential(initial: Duration, max: Duration, multiplier: f32) -> v2::retry_policy::Strategy {
    v2::retry_policy::Strategy::ExponentialBackoff(v2::ExponentialBackoff {
        initial: Some(wire_duration(initial)),
        max: Some(wire_duration(max)),
        multiplier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_that_the_wire_can_carry_is_read_or_refused() {
        let read = |seconds, nanos| duration(Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(duration(None), Some(Duration::ZERO));
        assert_eq!(read(15, 0), Some(Duration::from_secs(15)));
        assert_eq!(read(15, -1), Some(Duration::new(14, 999_999_999)));
        assert_eq!(read(0, i32::MAX), Some(Duration::new(2, 147_483_647)));
        assert!(read(i64::MAX, i32::MAX).is_some());
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, 0), (i64::MIN, i32::MIN)] {
            assert_eq!(read(seconds, nanos), None, "{seconds} {nanos}");
        }
    }
}
