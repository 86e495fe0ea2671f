//! Taking messages in.

use std::sync::Arc;

use rocketmq_proto::v2::{Code, MessageType};

use crate::state::{
    State, Timestamp,
    facts::{Key, Value},
    message::{Draft, Origin},
    refusal::Refusal,
};

/// What begins the names of topics that the server makes for a group: they have no type before.
const INNER_PREFIXES: [&str; 2] = ["%DLQ%", "%RETRY%"];

/// What the producer learns about a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) message_id: String,
    pub(crate) transaction_id: String,
    pub(crate) offset: u64,
    /// Empty unless the message is delayed.
    pub(crate) recall_handle: String,
}

impl State {
    /// Stores all messages of one request, or none. Several messages are one batch and get **one**
    /// answer, as the real server does it, unless it is told otherwise.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Sent>, Refusal> {
        let sent = self.store(now, drafts)?;
        if let Some(code) = self.faults.fail_send_after_storing() {
            return Err(Refusal::new(code, "injected fault: the message is stored"));
        }
        Ok(sent)
    }

    fn store(&mut self, now: Timestamp, mut drafts: Vec<Draft>) -> Result<Vec<Sent>, Refusal> {
        let corrupted = |message| Refusal::new(Code::MessageCorrupted, message);
        let first = drafts
            .first()
            .ok_or_else(|| corrupted("no message to send"))?;
        let topic = first.topic.clone();
        if drafts.iter().any(|draft| draft.topic != topic) {
            return Err(corrupted("topic in message is not same"));
        }
        for draft in &drafts {
            draft.check(&self.limits, now)?;
        }
        self.check_types(&topic, &drafts)?;
        self.make_room(&drafts)?;
        if drafts.len() > 1 {
            self.check_batch(&mut drafts)?;
        }
        let mut sent: Vec<Sent> = drafts
            .into_iter()
            .map(|draft| self.store_one(now, draft))
            .collect();
        let entry_per_message = self.faults.entry_per_message || !self.limits.one_entry_batch;
        if let [first, _, ..] = sent.as_mut_slice()
            && !entry_per_message
        {
            self.batches += 1;
            first.message_id = format!("BATCH{:027X}", self.batches);
            sent.truncate(1);
        }
        Ok(sent)
    }

    /// What the broker says to several messages at once. Types are looked at in the first only; it
    /// decides on the encoding of all, too.
    fn check_batch(&self, drafts: &mut [Draft]) -> Result<(), Refusal> {
        let refuse = |message: &str| Err(Refusal::new(Code::InternalServerError, message));
        if drafts.iter().any(|draft| draft.deliver_at.is_some()) {
            return refuse("delayed messages are not supported for batching");
        }
        if drafts
            .iter()
            .any(|draft| draft.kind() == MessageType::Transaction)
        {
            return refuse("the message is illegal: a transaction has one message");
        }
        let bytes: usize = drafts.iter().map(|draft| draft.body.len()).sum();
        if bytes > self.limits.max_body_bytes {
            return refuse("message body size exceeded");
        }
        if let [first, rest @ ..] = drafts {
            rest.iter_mut()
                .for_each(|draft| draft.encoding = first.encoding);
        }
        Ok(())
    }

    fn store_one(&mut self, now: Timestamp, draft: Draft) -> Sent {
        let mut sent = Sent {
            message_id: draft.id.clone(),
            transaction_id: draft.id.clone(),
            offset: 0,
            recall_handle: String::new(),
        };
        if draft.kind() == MessageType::Transaction {
            sent.offset = self.prepare(now, draft);
            return sent;
        }
        match draft.deliver_at {
            Some(at) if at > now => sent.recall_handle = self.delay(draft, at),
            _ => sent.offset = self.append(draft, now, None),
        }
        sent
    }

    /// Puts a message in its queue and wakes whoever waits for it. The topic exists.
    pub(crate) fn append(
        &mut self,
        draft: Draft,
        now: Timestamp,
        dead_letter_of: Option<Origin>,
    ) -> u64 {
        let Some(topic) = self.topics.get_mut(draft.topic.as_str()) else {
            return 0;
        };
        let queue = topic.choose_queue(&draft);
        let stored = topic.append(draft, queue, now, dead_letter_of);
        // Not before: some of a draft is not stored.
        self.stored_bytes += stored.draft.size();
        let name = Arc::clone(&topic.name);
        self.journal.set(
            || Key::Message(Arc::clone(&name), stored.place()),
            || Value::Message(Arc::clone(&stored)),
        );
        self.forget_settled(&name, queue, self.limits.retained_messages);
        self.ready.insert(name);
        stored.offset
    }

    fn check_types(&mut self, topic: &str, drafts: &[Draft]) -> Result<(), Refusal> {
        let conflict = |expected: &str, actual: MessageType| {
            let actual = actual.as_str_name();
            let message = format!(
                "TopicMessageType validate failed, the expected type is {expected}, but actual \
                 type is {actual}"
            );
            Refusal::new(Code::MessagePropertyConflictWithType, message)
        };
        let actual = drafts.first().map(Draft::kind).unwrap_or_default();
        if INNER_PREFIXES
            .iter()
            .any(|prefix| topic.starts_with(prefix))
            && !self.topics.contains_key(topic)
        {
            let message = format!("topic {topic} is not there yet");
            return Err(Refusal::new(Code::InternalServerError, message));
        }
        // A topic that is not there has no type: this is what the real server says then.
        let Ok(topic) = self.open_topic(topic) else {
            return Err(conflict("UNSPECIFIED", actual));
        };
        let kind = topic.kind;
        if !kind.takes(actual) {
            return Err(conflict(&kind.to_string(), actual));
        }
        Ok(())
    }
}
