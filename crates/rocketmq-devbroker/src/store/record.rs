//! Facts as bytes: keys that sort as the state is restored, values as protobuf, which may grow.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use rocketmq_proto::v2::{Encoding, MessageType};

use crate::state::{
    Backoff, CursorId, Draft, Fact, FactKey as Key, FactValue as Value, GroupConfig, Origin, Place,
    Position, Stored, Taken, Timestamp,
};

const TOPIC: u8 = 1;
const GROUP: u8 = 2;
const LOG: u8 = 3;
const MESSAGE: u8 = 4;
const DELAYED: u8 = 5;
const HALF: u8 = 6;
const CURSOR: u8 = 7;
const POSITION: u8 = 8;
const DELIVERY: u8 = 9;

/// Ends a name within a key: no name holds it.
const END: u8 = 0;

#[derive(Clone, PartialEq, prost::Message)]
struct TopicRecord {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(uint32, tag = "2")]
    queues: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GroupRecord {
    #[prost(bool, tag = "1")]
    fifo: bool,
    #[prost(uint32, tag = "2")]
    retry_max_times: u32,
    #[prost(uint64, repeated, tag = "3")]
    customized_millis: Vec<u64>,
    #[prost(message, optional, tag = "4")]
    exponential: Option<ExponentialRecord>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ExponentialRecord {
    #[prost(uint64, tag = "1")]
    initial_millis: u64,
    #[prost(uint64, tag = "2")]
    max_millis: u64,
    #[prost(float, tag = "3")]
    multiplier: f32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CursorRecord {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(bool, tag = "3")]
    fifo: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PositionRecord {
    #[prost(uint64, tag = "1")]
    next: u64,
    #[prost(message, repeated, tag = "2")]
    batch: Vec<TakenRecord>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct TakenRecord {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(bool, tag = "2")]
    acked: bool,
    #[prost(uint32, tag = "3")]
    delivered: u32,
}

/// A message: at rest, to be delivered later, or half.
#[derive(Clone, PartialEq, prost::Message)]
struct MessageRecord {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(string, optional, tag = "3")]
    tag: Option<String>,
    #[prost(string, repeated, tag = "4")]
    keys: Vec<String>,
    #[prost(btree_map = "string, string", tag = "5")]
    properties: BTreeMap<String, String>,
    #[prost(bytes = "bytes", tag = "6")]
    body: Bytes,
    #[prost(int32, tag = "7")]
    encoding: i32,
    #[prost(int32, tag = "8")]
    declared: i32,
    #[prost(uint64, tag = "9")]
    born_at: u64,
    #[prost(string, tag = "10")]
    born_host: String,
    #[prost(string, optional, tag = "11")]
    message_group: Option<String>,
    #[prost(uint64, optional, tag = "12")]
    deliver_at: Option<u64>,
    #[prost(string, optional, tag = "13")]
    trace_context: Option<String>,
    #[prost(int32, optional, tag = "14")]
    priority: Option<i32>,
    #[prost(string, optional, tag = "15")]
    lite_topic: Option<String>,
    /// When it is due, if it is delivered later; when it was taken otherwise.
    #[prost(uint64, tag = "16")]
    at: u64,
    #[prost(string, tag = "17")]
    md5: String,
    #[prost(string, repeated, tag = "18")]
    dead_letter_of: Vec<String>,
    #[prost(int64, optional, tag = "19")]
    recovery_seconds: Option<i64>,
    #[prost(uint32, tag = "20")]
    checks: u32,
    #[prost(uint32, tag = "21")]
    spent: u32,
}

/// The record of a fact: its key, and its value unless it is the key's end.
pub(super) fn encode(fact: &Fact) -> (Vec<u8>, Option<Vec<u8>>) {
    (encode_key(&fact.key), fact.value.as_ref().map(encode_value))
}

/// The fact of a record; none if it cannot be read.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<(Key, Value)> {
    let key = decode_key(key)?;
    let value = decode_value(&key, value)?;
    Some((key, value))
}

fn encode_key(key: &Key) -> Vec<u8> {
    let named = |tag: u8, name: &str| [&[tag], name.as_bytes(), &[END]].concat();
    let place = |mut bytes: Vec<u8>, place: &Place| {
        bytes.extend(place.queue.to_be_bytes());
        bytes.extend(place.offset.to_be_bytes());
        bytes
    };
    let of_cursor = |tag: u8, id: &CursorId| [&[tag], &id.0.to_be_bytes()[..]].concat();
    match key {
        Key::Topic(name) => named(TOPIC, name),
        Key::Group(name) => named(GROUP, name),
        Key::Log(topic, queue) => [named(LOG, topic), queue.to_be_bytes().to_vec()].concat(),
        Key::Message(topic, at) => place(named(MESSAGE, topic), at),
        Key::Delayed(id) => [&[DELAYED], &id.to_be_bytes()[..]].concat(),
        Key::Half(id) => [&[HALF], &id.to_be_bytes()[..]].concat(),
        Key::Cursor(id) => of_cursor(CURSOR, id),
        Key::Position(id, queue) => {
            [of_cursor(POSITION, id), queue.to_be_bytes().to_vec()].concat()
        }
        Key::Delivery(id, at) => place(of_cursor(DELIVERY, id), at),
    }
}

fn decode_key(bytes: &[u8]) -> Option<Key> {
    let (tag, mut rest) = bytes.split_first()?;
    let rest = &mut rest;
    let key = match *tag {
        TOPIC => Key::Topic(name(rest)?),
        GROUP => Key::Group(name(rest)?),
        LOG => Key::Log(name(rest)?, number(rest).map(u32::from_be_bytes)?),
        MESSAGE => Key::Message(name(rest)?, place(rest)?),
        DELAYED => Key::Delayed(number(rest).map(u64::from_be_bytes)?),
        HALF => Key::Half(number(rest).map(u64::from_be_bytes)?),
        CURSOR => Key::Cursor(cursor(rest)?),
        POSITION => Key::Position(cursor(rest)?, number(rest).map(u32::from_be_bytes)?),
        DELIVERY => Key::Delivery(cursor(rest)?, place(rest)?),
        _ => return None,
    };
    rest.is_empty().then_some(key)
}

fn name(rest: &mut &[u8]) -> Option<Arc<str>> {
    let end = rest.iter().position(|byte| *byte == END)?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 1..];
    Some(name.into())
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn cursor(rest: &mut &[u8]) -> Option<CursorId> {
    number(rest).map(u32::from_be_bytes).map(CursorId)
}

fn place(rest: &mut &[u8]) -> Option<Place> {
    Some(Place {
        queue: number(rest).map(u32::from_be_bytes)?,
        offset: number(rest).map(u64::from_be_bytes)?,
    })
}

fn encode_value(value: &Value) -> Vec<u8> {
    let number = |value| Number { value }.encode_to_vec();
    match value {
        Value::Topic { kind, queues } => TopicRecord {
            kind: kind.to_string(),
            queues: *queues,
        }
        .encode_to_vec(),
        Value::Group(config) => group(config).encode_to_vec(),
        Value::Log(first) => number(*first),
        Value::Message(stored) => MessageRecord {
            md5: stored.md5.clone(),
            dead_letter_of: stored
                .dead_letter_of
                .iter()
                .flat_map(|origin| [origin.topic.clone(), origin.id.clone()])
                .collect(),
            spent: stored.spent(),
            ..message(&stored.draft, stored.stored_at)
        }
        .encode_to_vec(),
        Value::Delayed(draft, at) => message(draft, *at).encode_to_vec(),
        Value::Half {
            draft,
            prepared_at,
            checks,
        } => MessageRecord {
            checks: *checks,
            ..message(draft, *prepared_at)
        }
        .encode_to_vec(),
        Value::Cursor { topic, group, fifo } => CursorRecord {
            topic: topic.to_string(),
            group: group.to_string(),
            fifo: *fifo,
        }
        .encode_to_vec(),
        Value::Position(position) => {
            let taken = |taken: &Taken| TakenRecord {
                offset: taken.offset,
                acked: taken.acked,
                delivered: taken.delivered,
            };
            PositionRecord {
                next: position.next,
                batch: position.batch.iter().map(taken).collect(),
            }
            .encode_to_vec()
        }
        Value::Delivery(attempts) => number(u64::from(*attempts)),
    }
}

fn decode_value(key: &Key, bytes: &[u8]) -> Option<Value> {
    let number = |bytes| Number::decode(bytes).ok().map(|number| number.value);
    Some(match key {
        Key::Topic(_) => {
            let record = TopicRecord::decode(bytes).ok()?;
            Value::Topic {
                kind: record.kind.parse().ok()?,
                queues: record.queues,
            }
        }
        Key::Group(_) => Value::Group(GroupRecord::decode(bytes).ok()?.into()),
        Key::Log(..) => Value::Log(number(bytes)?),
        Key::Message(_, place) => {
            let mut record = MessageRecord::decode(bytes).ok()?;
            let md5 = std::mem::take(&mut record.md5);
            let mut origin = std::mem::take(&mut record.dead_letter_of).into_iter();
            let origin = origin.next().zip(origin.next());
            let spent = record.spent;
            let dead_letter_of = origin.map(|(topic, id)| Origin { topic, id, spent });
            let stored_at = Timestamp::from_millis(record.at);
            let draft = Draft::from(record);
            let stored = Stored {
                kind: draft.kind(),
                draft,
                md5,
                queue: place.queue,
                offset: place.offset,
                stored_at,
                dead_letter_of: None,
            };
            Value::Message(Arc::new(stored.with_origin(dead_letter_of)))
        }
        Key::Delayed(_) => {
            let record = MessageRecord::decode(bytes).ok()?;
            let at = Timestamp::from_millis(record.at);
            Value::Delayed(Box::new(record.into()), at)
        }
        Key::Half(_) => {
            let record = MessageRecord::decode(bytes).ok()?;
            Value::Half {
                prepared_at: Timestamp::from_millis(record.at),
                checks: record.checks,
                draft: Box::new(record.into()),
            }
        }
        Key::Cursor(_) => {
            let record = CursorRecord::decode(bytes).ok()?;
            Value::Cursor {
                topic: record.topic.into(),
                group: record.group.into(),
                fifo: record.fifo,
            }
        }
        Key::Position(..) => {
            let record = PositionRecord::decode(bytes).ok()?;
            let taken = |taken: TakenRecord| Taken {
                offset: taken.offset,
                acked: taken.acked,
                delivered: taken.delivered,
            };
            Value::Position(Position {
                next: record.next,
                batch: record.batch.into_iter().map(taken).collect(),
            })
        }
        Key::Delivery(..) => Value::Delivery(u32::try_from(number(bytes)?).ok()?),
    })
}

fn message(draft: &Draft, at: Timestamp) -> MessageRecord {
    MessageRecord {
        topic: draft.topic.clone(),
        id: draft.id.clone(),
        tag: draft.tag.clone(),
        keys: draft.keys.clone(),
        properties: draft.properties.clone(),
        body: draft.body.clone(),
        encoding: draft.encoding.into(),
        declared: draft.declared.into(),
        born_at: draft.born_at.as_millis(),
        born_host: draft.born_host.clone(),
        message_group: draft.message_group.clone(),
        deliver_at: draft.deliver_at.map(Timestamp::as_millis),
        trace_context: draft.trace_context.clone(),
        priority: draft.priority,
        lite_topic: draft.lite_topic.clone(),
        at: at.as_millis(),
        md5: String::new(),
        dead_letter_of: Vec::new(),
        recovery_seconds: draft.recovery_seconds,
        checks: 0,
        spent: 0,
    }
}

impl From<MessageRecord> for Draft {
    fn from(record: MessageRecord) -> Self {
        Self {
            topic: record.topic,
            id: record.id,
            tag: record.tag,
            keys: record.keys,
            properties: record.properties,
            body: record.body,
            encoding: Encoding::try_from(record.encoding).unwrap_or_default(),
            declared: MessageType::try_from(record.declared).unwrap_or_default(),
            born_at: Timestamp::from_millis(record.born_at),
            born_host: record.born_host,
            message_group: record.message_group,
            deliver_at: record.deliver_at.map(Timestamp::from_millis),
            trace_context: record.trace_context,
            priority: record.priority,
            lite_topic: record.lite_topic,
            recovery_seconds: record.recovery_seconds,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn group(config: &GroupConfig) -> GroupRecord {
    let (customized_millis, exponential) = match &config.backoff {
        Backoff::Customized(next) => (next.iter().copied().map(millis).collect(), None),
        Backoff::Exponential {
            initial,
            max,
            multiplier,
        } => {
            let exponential = ExponentialRecord {
                initial_millis: millis(*initial),
                max_millis: millis(*max),
                multiplier: *multiplier,
            };
            (Vec::new(), Some(exponential))
        }
    };
    GroupRecord {
        fifo: config.fifo,
        retry_max_times: config.retry_max_times,
        customized_millis,
        exponential,
    }
}

impl From<GroupRecord> for GroupConfig {
    fn from(record: GroupRecord) -> Self {
        let customized = record.customized_millis.into_iter();
        let backoff = match record.exponential {
            None => Backoff::Customized(customized.map(Duration::from_millis).collect()),
            Some(exponential) => Backoff::Exponential {
                initial: Duration::from_millis(exponential.initial_millis),
                max: Duration::from_millis(exponential.max_millis),
                multiplier: exponential.multiplier,
            },
        };
        Self {
            fifo: record.fifo,
            retry_max_times: record.retry_max_times,
            backoff,
        }
    }
}
