//! Sizes, durations and names that the server accepts, with its codes.

use std::time::Duration;

use rocketmq_proto::v2::{Code, MessageType};

use crate::state::{Timestamp, message::Draft, refusal::Refusal, transaction::CheckTimes};

/// Largest number of messages in one receive.
pub(crate) const MAX_BATCH: usize = 32;
const MAX_NAME_BYTES: usize = 127;
const MAX_GROUP_NAME_BYTES: usize = 120;
const MAX_PROPERTIES: usize = 128;
const MAX_PROPERTIES_BYTES: usize = 16 << 10;
/// A message group must be shorter than this.
const MESSAGE_GROUP_BYTES: usize = 64;
/// Bytes of the longest name of a lite topic.
pub(crate) const MAX_LITE_TOPIC_BYTES: usize = 64;
const MAX_DELAY: Duration = Duration::from_secs(24 * 3600);
/// The longest time that a transaction may ask to be left alone.
const MAX_RECOVERY_SECONDS: i64 = 3600;
const MAX_INVISIBLE: Duration = Duration::from_secs(12 * 3600);

/// What the builder may set; the rest is fixed as in the real server.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_body_bytes: usize,
    pub(crate) min_receive_invisible: Duration,
    pub(crate) min_long_poll: Duration,
    pub(crate) max_long_poll: Duration,
    /// Messages that a queue keeps although every group has settled them.
    pub(crate) retained_messages: usize,
    pub(crate) max_stored_bytes: usize,
    pub(crate) checks: CheckTimes,
    /// Several messages in one request are answered with one entry.
    pub(crate) one_entry_batch: bool,
    /// A receive is answered with time of delivery, messages, status.
    pub(crate) status_last: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            min_receive_invisible: Duration::from_secs(10),
            min_long_poll: Duration::from_secs(5),
            max_long_poll: Duration::from_secs(20),
            retained_messages: 10_000,
            max_stored_bytes: 1 << 30,
            checks: CheckTimes::default(),
            one_entry_batch: true,
            status_last: false,
        }
    }
}

impl Limits {
    pub(crate) fn check_draft(&self, draft: &Draft, now: Timestamp) -> Result<(), Refusal> {
        check_topic(&draft.topic)?;
        if draft.id.trim().is_empty() {
            return Err(Refusal::new(
                Code::IllegalMessageId,
                "message id cannot be empty",
            ));
        }
        if draft.body.is_empty() {
            return Err(Refusal::new(
                Code::MessageBodyEmpty,
                "message body cannot be empty",
            ));
        }
        if draft.body.len() > self.max_body_bytes {
            let message = format!("message body cannot exceed the max {}", self.max_body_bytes);
            return Err(Refusal::new(Code::MessageBodyTooLarge, message));
        }
        check_tag(draft)?;
        check_keys(draft)?;
        check_properties(draft)?;
        check_message_group(draft)?;
        check_lite_topic(draft)?;
        if draft.priority.is_some_and(|priority| priority < 0) {
            let message = "the priority must be greater than or equal to 0";
            return Err(Refusal::new(Code::InternalServerError, message));
        }
        if draft.deliver_at.is_some_and(|at| at.since(now) > MAX_DELAY) {
            let max = MAX_DELAY.as_millis();
            let message = format!("the max delay time of message is too large, max is {max}");
            return Err(Refusal::new(Code::IllegalDeliveryTime, message));
        }
        check_recovery(draft)
    }

    pub(crate) fn check_receive_invisible(&self, invisible: Duration) -> Result<(), Refusal> {
        if invisible < self.min_receive_invisible {
            let min = self.min_receive_invisible.as_millis();
            let message = format!("the invisibleTime is too small. min is {min}");
            return Err(Refusal::new(Code::IllegalInvisibleTime, message));
        }
        check_invisible(invisible)
    }

    /// How long a receive waits for messages: what was asked, within the server's bounds and the
    /// time that the call has left.
    pub(crate) fn long_poll(
        &self,
        asked: Option<Duration>,
        remaining: Option<Duration>,
    ) -> Result<Duration, Refusal> {
        let asked = asked.unwrap_or(self.max_long_poll);
        let wait = asked.clamp(
            self.min_long_poll,
            self.max_long_poll.max(self.min_long_poll),
        );
        match remaining {
            Some(remaining) if remaining < self.min_long_poll => Err(Refusal::new(
                Code::IllegalPollingTime,
                "the deadline time remaining is not enough for polling, please check network \
                 condition",
            )),
            Some(remaining) => Ok(wait.min(remaining)),
            None => Ok(wait),
        }
    }
}

pub(crate) fn check_invisible(invisible: Duration) -> Result<(), Refusal> {
    if invisible > MAX_INVISIBLE {
        let max = MAX_INVISIBLE.as_millis();
        let message = format!("the invisibleTime is too large. max is {max}");
        return Err(Refusal::new(Code::IllegalInvisibleTime, message));
    }
    Ok(())
}

/// Names that the real server uses itself, and those of its cluster.
const SYSTEM_TOPICS: [&str; 11] = [
    "TBW102",
    "SCHEDULE_TOPIC_XXXX",
    "BenchmarkTest",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "DefaultCluster",
    "DefaultCluster_REPLY_TOPIC",
];
const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";
/// Groups of the server's own that nobody can create.
const INNER_GROUPS: [&str; 3] = ["DEFAULT_CONSUMER", "DEFAULT_PRODUCER", "TOOLS_CONSUMER"];

pub(crate) fn check_topic(topic: &str) -> Result<(), Refusal> {
    let illegal = |message: String| Err(Refusal::new(Code::IllegalTopic, message));
    if topic.trim().is_empty() {
        return illegal("the specified topic is blank".to_owned());
    }
    if !is_name(topic) {
        return illegal(format!("the specified topic[{topic}] {ILLEGAL_CHARACTERS}"));
    }
    if topic.len() > MAX_NAME_BYTES {
        return illegal(format!(
            "the specified topic is longer than topic max length {MAX_NAME_BYTES}"
        ));
    }
    if topic.starts_with(SYSTEM_TOPIC_PREFIX) || SYSTEM_TOPICS.contains(&topic) {
        return illegal("cannot access system topic".to_owned());
    }
    Ok(())
}

pub(crate) fn check_group(group: &str) -> Result<(), Refusal> {
    let illegal = |message: String| Err(Refusal::new(Code::IllegalConsumerGroup, message));
    if group.trim().is_empty() {
        return illegal("the specified group is blank".to_owned());
    }
    if !is_name(group) {
        return illegal(format!("the specified group[{group}] {ILLEGAL_CHARACTERS}"));
    }
    if group.len() > MAX_GROUP_NAME_BYTES {
        return illegal(format!(
            "the specified group is longer than group max length {MAX_GROUP_NAME_BYTES}"
        ));
    }
    if group.starts_with(SYSTEM_GROUP_PREFIX) {
        return illegal("cannot use system consumer group".to_owned());
    }
    Ok(())
}

/// A group that is to be created.
pub(crate) fn check_new_group(group: &str) -> Result<(), Refusal> {
    if INNER_GROUPS.contains(&group) {
        let message = "cannot use system consumer group";
        return Err(Refusal::new(Code::IllegalConsumerGroup, message));
    }
    check_group(group)
}

const ILLEGAL_CHARACTERS: &str = "contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$";

fn is_name(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-'))
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn is_blank(text: &str) -> bool {
    !text.is_empty() && text.trim().is_empty()
}

fn check_tag(draft: &Draft) -> Result<(), Refusal> {
    let Some(tag) = &draft.tag else { return Ok(()) };
    let illegal = |message| Err(Refusal::new(Code::IllegalMessageTag, message));
    if is_blank(tag) {
        return illegal("tag cannot be the char sequence of whitespace");
    }
    if tag.contains('|') {
        return illegal("tag cannot contain '|'");
    }
    if has_control(tag) {
        return illegal("tag cannot contain control character");
    }
    Ok(())
}

fn check_keys(draft: &Draft) -> Result<(), Refusal> {
    let illegal = |message| Err(Refusal::new(Code::IllegalMessageKey, message));
    if draft.keys.iter().any(|key| is_blank(key)) {
        return illegal("key cannot be the char sequence of whitespace");
    }
    if draft.keys.iter().any(|key| has_control(key)) {
        return illegal("key cannot contain control character");
    }
    Ok(())
}

fn check_properties(draft: &Draft) -> Result<(), Refusal> {
    let illegal = |message: String| Err(Refusal::new(Code::IllegalMessagePropertyKey, message));
    let too_large = |message| Err(Refusal::new(Code::MessagePropertiesTooLarge, message));
    if draft.properties.len() > MAX_PROPERTIES {
        return too_large(format!("too many user properties, max is {MAX_PROPERTIES}"));
    }
    let mut bytes = draft.tag.as_ref().map_or(0, String::len);
    bytes += draft.keys.iter().map(String::len).sum::<usize>();
    for (key, value) in &draft.properties {
        if RESERVED_PROPERTIES.contains(&key.as_str()) {
            return illegal(format!("property is used by system: {key}"));
        }
        if has_control(key) {
            return illegal("the key of property cannot contain control character".to_owned());
        }
        if has_control(value) {
            return illegal("the value of property cannot contain control character".to_owned());
        }
        bytes += key.len() + value.len();
    }
    if draft.properties.contains_key(BROKEN_PROPERTY) {
        let message = format!("the message is illegal: property {BROKEN_PROPERTY}");
        return Err(Refusal::new(Code::InternalServerError, message));
    }
    if bytes > MAX_PROPERTIES_BYTES {
        return too_large(format!(
            "the total size of user property is too large, max is {MAX_PROPERTIES_BYTES}"
        ));
    }
    Ok(())
}

fn check_message_group(draft: &Draft) -> Result<(), Refusal> {
    let Some(group) = &draft.message_group else {
        return Ok(());
    };
    let illegal = |message: String| Err(Refusal::new(Code::IllegalMessageGroup, message));
    if is_blank(group) {
        return illegal("message group cannot be the char sequence of whitespace".to_owned());
    }
    if group.len() >= MESSAGE_GROUP_BYTES {
        return illegal(format!(
            "message group exceed the max size {MESSAGE_GROUP_BYTES}"
        ));
    }
    if has_control(group) {
        return illegal("message group cannot contain control character".to_owned());
    }
    Ok(())
}

fn check_lite_topic(draft: &Draft) -> Result<(), Refusal> {
    draft.lite_topic.as_deref().map_or(Ok(()), check_lite_name)
}

/// Whether a lite topic may have this name.
pub(crate) fn check_lite_name(name: &str) -> Result<(), Refusal> {
    let illegal = |message: String| Err(Refusal::new(Code::IllegalLiteTopic, message));
    if name.len() > MAX_LITE_TOPIC_BYTES {
        return illegal(format!(
            "lite topic exceed the max size {MAX_LITE_TOPIC_BYTES}"
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.chars().all(allowed) {
        let message = "lite topic can only contain alphanumeric characters, hyphens(-), and \
                       underscores(_)";
        return illegal(message.to_owned());
    }
    Ok(())
}

fn check_recovery(draft: &Draft) -> Result<(), Refusal> {
    if draft.kind() != MessageType::Transaction {
        return Ok(());
    }
    if draft
        .recovery_seconds
        .is_some_and(|seconds| seconds > MAX_RECOVERY_SECONDS)
    {
        let message = format!(
            "the max transaction recovery time of message is too large, max is \
             {MAX_RECOVERY_SECONDS}"
        );
        return Err(Refusal::new(Code::BadRequest, message));
    }
    Ok(())
}

/// A name that the real server uses for itself and forgets to refuse: it fails later.
const BROKEN_PROPERTY: &str = "INNER_NUM";

/// Names that the server uses for itself.
const RESERVED_PROPERTIES: [&str; 53] = [
    "TRACE_ON",
    "MSG_REGION",
    "KEYS",
    "TAGS",
    "WAIT",
    "DELAY",
    "RETRY_TOPIC",
    "REAL_TOPIC",
    "REAL_QID",
    "TRAN_MSG",
    "PGROUP",
    "MIN_OFFSET",
    "MAX_OFFSET",
    "BUYER_ID",
    "ORIGIN_MESSAGE_ID",
    "TRANSFER_FLAG",
    "CORRECTION_FLAG",
    "MQ2_FLAG",
    "RECONSUME_TIME",
    "UNIQ_KEY",
    "MAX_RECONSUME_TIMES",
    "CONSUME_START_TIME",
    "POP_CK",
    "POP_CK_OFFSET",
    "1ST_POP_TIME",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "INSTANCE_ID",
    "CORRELATION_ID",
    "REPLY_TO_CLIENT",
    "TTL",
    "ARRIVE_TIME",
    "PUSH_REPLY_TIME",
    "CLUSTER",
    "MSG_TYPE",
    "INNER_MULTI_QUEUE_OFFSET",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_DEQUEUE_MS",
    "TIMER_ROLL_TIMES",
    "TIMER_OUT_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DELAY_LEVEL",
    "__BORNHOST",
    "BORN_TIMESTAMP",
    "DLQ_ORIGIN_TOPIC",
    "DLQ_ORIGIN_MESSAGE_ID",
    "__CRC32#",
    "_SYS_MSG_PRIORITY_",
    "__LITE_TOPIC",
];
