//! A state with a hand on its clock.

use std::time::Duration;

use bytes::Bytes;
use rocketmq_proto::v2::{ClientType, Code, Encoding, MessageType};

use crate::state::{
    Ask, Delivered, Draft, GroupConfig, Limits, Refusal, Role, State, Timestamp, TopicType,
};

pub(super) const LEASE: Duration = Duration::from_secs(10);

/// Topic `t` with one queue, group `g`, clients `a` and `b` of it.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Timestamp,
    topic: &'static str,
    group: &'static str,
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn draft(topic: &str, id: &str) -> Draft {
    Draft {
        topic: topic.to_owned(),
        id: id.to_owned(),
        tag: None,
        keys: Vec::new(),
        properties: [("k".to_owned(), "v".to_owned())].into(),
        body: Bytes::from_static(b"body"),
        encoding: Encoding::Identity,
        declared: MessageType::Normal,
        born_at: Timestamp::default(),
        born_host: String::new(),
        message_group: None,
        deliver_at: None,
        trace_context: None,
        priority: None,
        lite_topic: None,
        recovery_seconds: None,
    }
}

pub(super) fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Code {
    result.unwrap_err().code
}

pub(super) fn ids(delivered: &[Delivered]) -> Vec<&str> {
    delivered
        .iter()
        .map(|d| d.message.draft.id.as_str())
        .collect()
}

pub(super) fn attempts(delivered: &[Delivered]) -> Vec<u32> {
    delivered.iter().map(|d| d.attempt).collect()
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(GroupConfig::new(), TopicType::Mixed, Limits::default())
    }

    pub(super) fn retries(times: u32) -> Self {
        let config = GroupConfig::new().retry_max_times(times);
        Self::with(config, TopicType::Mixed, Limits::default())
    }

    pub(super) fn fifo() -> Self {
        let config = GroupConfig::new().fifo(true);
        Self::with(config, TopicType::Fifo, Limits::default())
    }

    pub(super) fn fifo_retries(times: u32) -> Self {
        let config = GroupConfig::new().fifo(true).retry_max_times(times);
        Self::with(config, TopicType::Fifo, Limits::default())
    }

    /// Goes on as another group, of which the defaults hold.
    pub(super) fn reader(&mut self, group: &'static str) {
        self.state.create_group(group, GroupConfig::new()).unwrap();
        self.group = group;
    }

    pub(super) fn with(config: GroupConfig, kind: TopicType, limits: Limits) -> Self {
        let mut state = State::new(true, limits);
        state.create_topic("t", kind, 1).unwrap();
        state.create_group("g", config).unwrap();
        let now = Timestamp::from_millis(1_000_000);
        for client in ["a", "b"] {
            let (group, subscriptions) = ("g".to_owned(), Vec::new());
            let role = Role::Consumer {
                kind: ClientType::PushConsumer,
                group,
                subscriptions,
            };
            state.register(now, client, role, true).unwrap();
        }
        Self {
            state,
            now,
            topic: "t",
            group: "g",
        }
    }

    /// The same state, seen from another topic.
    pub(super) fn on(&mut self, topic: &'static str) -> &mut Self {
        self.topic = topic;
        self
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.state.advance(self.now);
    }

    pub(super) fn put(&mut self, id: &str) {
        self.send(draft("t", id)).unwrap();
    }

    pub(super) fn put_all(&mut self, ids: &[&str]) {
        ids.iter().for_each(|id| self.put(id));
    }

    /// Puts messages whose group is what their id begins with, up to a dash.
    pub(super) fn put_ordered(&mut self, ids: &[&str]) {
        for id in ids {
            let group = id.split('-').next().map(str::to_owned);
            self.send(Draft {
                message_group: group,
                ..draft("t", id)
            })
            .unwrap();
        }
    }

    pub(super) fn send(&mut self, draft: Draft) -> Result<super::super::Sent, Refusal> {
        let mut sent = self.state.send(self.now, vec![draft])?;
        assert_eq!(sent.len(), 1);
        Ok(sent.remove(0))
    }

    pub(super) fn ask(&self, client: &str) -> Ask {
        Ask {
            client: client.to_owned(),
            group: self.group.to_owned(),
            topic: self.topic.to_owned(),
            batch: 32,
            invisible: Some(LEASE),
            remaining: Some(seconds(30)),
            ..Ask::default()
        }
    }

    pub(super) fn receive(&mut self, client: &str) -> Vec<Delivered> {
        self.receive_as(self.ask(client)).unwrap()
    }

    /// A receive of an ordered group: at most `batch` messages under an attempt id.
    pub(super) fn receive_ordered(
        &mut self,
        client: &str,
        attempt_id: &str,
        batch: i32,
    ) -> Vec<Delivered> {
        let attempt_id = Some(attempt_id.to_owned());
        self.receive_as(Ask {
            attempt_id,
            batch,
            ..self.ask(client)
        })
        .unwrap()
    }

    pub(super) fn receive_as(&mut self, ask: Ask) -> Result<Vec<Delivered>, Refusal> {
        let poll = self.state.open_poll(ask)?;
        Ok(self.state.receive(self.now, &poll))
    }

    pub(super) fn ack(&mut self, handle: &str) -> Result<(), Refusal> {
        self.state.ack(self.now, self.topic, self.group, handle)
    }

    pub(super) fn change(&mut self, handle: &str, to: Duration) -> Result<String, Refusal> {
        self.state
            .change_invisible(self.now, self.topic, self.group, handle, Some(to), false)
    }

    pub(super) fn forward(&mut self, handle: &str) -> Result<(), Refusal> {
        self.state
            .forward_to_dead_letters(self.now, self.topic, self.group, handle)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.state.in_flight(self.now, "g").len()
    }

    pub(super) fn dead_letters(&self) -> Vec<String> {
        self.state
            .dead_letters("g")
            .into_iter()
            .map(|message| message.id)
            .collect()
    }
}
