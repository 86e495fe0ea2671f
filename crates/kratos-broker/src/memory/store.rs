//! Topics and groups.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::queue::GroupQueue;
use crate::{
    Delivery, DeliveryParts, Group, MessageId, MessageParts, Topic,
    clock::{after, from_now},
    driver::{Filter, GroupSpec, Leased, Room, Settlement},
};

/// How many messages a topic retains for groups to come.
const RETAINED: usize = 10_000;

/// Everything the broker knows.
pub(super) struct Store {
    pub(super) max_attempts: u32,
    pub(super) hand_back_spends_attempt: bool,
    topics: HashMap<Topic, VecDeque<Arc<Stored>>>,
    queues: HashMap<(Group, Topic), GroupQueue>,
    dead: HashMap<Group, Vec<Delivery>>,
    sequence: u64,
    handles: u64,
}

/// A message as it was published.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) parts: DeliveryParts,
    pub(super) visible_at: Instant,
}

/// What an operation on a handle found.
pub(super) enum Found {
    Current,
    OutOfDate,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            max_attempts: 17,
            hand_back_spends_attempt: false,
            topics: HashMap::new(),
            queues: HashMap::new(),
            dead: HashMap::new(),
            sequence: 0,
            handles: 0,
        }
    }
}

impl Store {
    pub(super) fn publish(&mut self, message: MessageParts) -> MessageId {
        self.sequence += 1;
        let now = SystemTime::now();
        let id = MessageId::from(format!("M{:08}", self.sequence));
        let delay = message
            .deliver_at
            .and_then(|at| at.duration_since(now).ok());
        let mut parts = DeliveryParts::new(id.clone(), message.topic.clone(), message.body);
        parts.headers = message.headers;
        parts.keys = message.keys;
        parts.tag = message.tag;
        parts.group = message.group;
        parts.born = Some(now);
        let visible_at = from_now(delay.unwrap_or_default());
        let stored = Arc::new(Stored {
            sequence: self.sequence,
            parts,
            visible_at,
        });
        for ((_, topic), queue) in &mut self.queues {
            if *topic == message.topic {
                queue.add(stored.clone());
            }
        }
        let log = self.topics.entry(message.topic).or_default();
        if log.len() == RETAINED {
            log.pop_front();
        }
        log.push_back(stored);
        id
    }

    pub(super) fn join(&mut self, spec: &GroupSpec) {
        for topic in &spec.topics {
            let log = self.topics.entry(topic.topic.clone()).or_default();
            let key = (spec.group.clone(), topic.topic.clone());
            self.queues.entry(key).or_insert_with(|| {
                let mut queue = GroupQueue::default();
                log.iter().for_each(|stored| queue.add(stored.clone()));
                queue
            });
        }
    }

    /// Takes what is visible, up to `room`; else says when to look again.
    pub(super) fn take(
        &mut self,
        group: &Group,
        topic: &Topic,
        filter: &Filter,
        room: Room,
        invisible: Duration,
    ) -> Result<Vec<Leased<u64>>, Option<Instant>> {
        let Some(queue) = self.queues.get_mut(&(group.clone(), topic.clone())) else {
            return Err(None);
        };
        let now = Instant::now();
        let dead = queue.lapse(now, self.max_attempts);
        self.dead.entry(group.clone()).or_default().extend(dead);
        let until = after(now, invisible);
        let handles = &mut self.handles;
        let taken = queue.take(now, filter, room, until, || {
            *handles += 1;
            *handles
        });
        if taken.is_empty() {
            return Err(queue.next_change());
        }
        let limit = self.max_attempts;
        let lease = |(handle, stored, attempt): (u64, Arc<Stored>, u32)| {
            let mut parts = stored.parts.clone();
            parts.attempt = attempt;
            parts.attempts_limit = Some(limit);
            Leased {
                delivery: Delivery::from(parts),
                lease: handle,
                expires_at: until,
            }
        };
        Ok(taken.into_iter().map(lease).collect())
    }

    /// Replaces the handle of a held message and extends it.
    pub(super) fn extend(&mut self, handle: u64, by: Duration) -> Option<(u64, Instant)> {
        self.handles += 1;
        let until = from_now(by);
        let new = self.handles;
        let extended = self
            .queues
            .values_mut()
            .any(|queue| queue.extend(handle, new, until));
        extended.then_some((new, until))
    }

    pub(super) fn settle(&mut self, group: &Group, handle: u64, how: Settlement) -> Found {
        let spends = self.hand_back_spends_attempt;
        let limit = self.max_attempts;
        let now = Instant::now();
        let queues = self.queues.iter_mut().filter(|((g, _), _)| g == group);
        for (_, queue) in queues {
            if let Some(dead) = queue.settle(handle, how, now, spends, limit) {
                self.dead.entry(group.clone()).or_default().extend(dead);
                return Found::Current;
            }
        }
        Found::OutOfDate
    }

    pub(super) fn lose(&mut self, group: &str, id: &str) -> bool {
        let mut queues = self.queues.iter_mut().filter(|((g, _), _)| g == group);
        queues.any(|(_, queue)| queue.lose(id))
    }

    pub(super) fn dead_letters(&self, group: &str) -> Vec<Delivery> {
        self.dead.get(group).cloned().unwrap_or_default()
    }

    pub(super) fn backlog(&self, topic: &str, group: &str) -> usize {
        self.queue(topic, group).map_or(0, GroupQueue::len)
    }

    pub(super) fn held(&self, topic: &str, group: &str) -> usize {
        self.queue(topic, group).map_or(0, GroupQueue::held)
    }

    fn queue(&self, topic: &str, group: &str) -> Option<&GroupQueue> {
        self.queues.get(&(Group::from(group), Topic::from(topic)))
    }
}
