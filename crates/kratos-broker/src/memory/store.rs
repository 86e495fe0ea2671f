//! Topics and groups.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    dead_letter_topic,
    queue::GroupQueue,
    units::{Unit, UnitQueue},
};
use crate::{
    Delivery, DeliveryParts, Error, Group, MessageId, MessageParts, Result, Topic,
    clock::{after, from_now},
    delivery::Received,
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
    /// What groups that consume in order see, if batches are units.
    units: HashMap<(Group, Topic), UnitQueue>,
    /// How many partitions a topic has whose batches are units; 0 if none are.
    pub(super) unit_partitions: usize,
    /// Which groups consume in order: their first member has decided.
    fifo: HashMap<Group, bool>,
    broadcasts: u64,
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
    /// It is settled when everything before it is; an error means that it comes again.
    Later(oneshot::Receiver<()>),
}

impl Default for Store {
    fn default() -> Self {
        Self {
            max_attempts: 17,
            hand_back_spends_attempt: false,
            topics: HashMap::new(),
            queues: HashMap::new(),
            units: HashMap::new(),
            unit_partitions: 0,
            fifo: HashMap::new(),
            broadcasts: 0,
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
        self.add(Stored {
            sequence: self.sequence,
            parts,
            visible_at,
        });
        id
    }

    /// Gives a message to every group of its topic, and to those to come.
    fn add(&mut self, stored: Stored) {
        let (to, stored) = (stored.parts.topic.clone(), Arc::new(stored));
        for ((_, topic), queue) in &mut self.queues {
            if *topic == to {
                queue.add(stored.clone());
            }
        }
        for ((_, topic), queue) in &mut self.units {
            if *topic == to {
                queue.add(stored.clone());
            }
        }
        let log = self.topics.entry(to).or_default();
        if log.len() == RETAINED {
            log.pop_front();
        }
        log.push_back(stored);
    }

    /// Keeps what a group has given up; as messages of a topic they keep their ids.
    fn bury(&mut self, group: &Group, dead: Vec<Delivery>) {
        for letter in &dead {
            self.sequence += 1;
            let mut parts = (*Received::from(letter.clone())).clone();
            parts.topic = dead_letter_topic(group);
            self.add(Stored {
                sequence: self.sequence,
                parts,
                visible_at: Instant::now(),
            });
        }
        self.dead.entry(group.clone()).or_default().extend(dead);
    }

    /// Takes back a message that is not visible yet; answers whether there was one.
    pub(super) fn recall(&mut self, topic: &str, id: &str) -> bool {
        let now = Instant::now();
        let Some(log) = self.topics.get_mut(topic) else {
            return false;
        };
        let before = log.len();
        log.retain(|stored| &*stored.parts.id != id || stored.visible_at <= now);
        let found = log.len() < before;
        for ((_, of), queue) in &mut self.queues {
            if found && **of == *topic {
                queue.recall(id);
            }
        }
        for ((_, of), queue) in &mut self.units {
            if found && **of == *topic {
                queue.recall(id);
            }
        }
        found
    }

    /// Makes the group known; answers its name, which is another for each member that wants all
    /// messages.
    pub(super) fn join(&mut self, spec: &GroupSpec) -> Result<Group> {
        let mut name = spec.group.clone();
        if spec.broadcast {
            self.broadcasts += 1;
            name = Group::from(format!("{name}#{}", self.broadcasts));
        }
        let fifo = *self.fifo.entry(name.clone()).or_insert(spec.fifo);
        if fifo != spec.fifo {
            let (is, help) = if fifo {
                ("in order", "subscribe with fifo()")
            } else {
                ("without order", "leave fifo() out, or use a new group")
            };
            return Err(Error::invalid(format!(
                "group {name} consumes {is}: {help}"
            )));
        }
        for topic in &spec.topics {
            let log = self.topics.entry(topic.topic.clone()).or_default();
            let old = log.iter().filter(|_| !spec.broadcast);
            let key = (name.clone(), topic.topic.clone());
            if spec.fifo && self.unit_partitions > 0 {
                self.units.entry(key).or_insert_with(|| {
                    let mut queue = UnitQueue::new(self.unit_partitions);
                    old.for_each(|stored| queue.add(stored.clone()));
                    queue
                });
            } else {
                self.queues.entry(key).or_insert_with(|| {
                    let mut queue = GroupQueue::default();
                    old.for_each(|stored| queue.add(stored.clone()));
                    queue
                });
            }
        }
        Ok(name)
    }

    /// Forgets a group.
    pub(super) fn remove(&mut self, group: &Group) {
        self.fifo.remove(group);
        self.queues.retain(|(name, _), _| name != group);
        self.units.retain(|(name, _), _| name != group);
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
        let key = (group.clone(), topic.clone());
        if self.units.contains_key(&key) {
            return self.take_unit(&key, filter, room, invisible);
        }
        let now = Instant::now();
        let Some(queue) = self.queues.get_mut(&key) else {
            return Err(None);
        };
        let dead = queue.lapse(now, self.max_attempts);
        self.bury(group, dead);
        let Some(queue) = self.queues.get_mut(&key) else {
            return Err(None);
        };
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
                place: None,
            }
        };
        Ok(taken.into_iter().map(lease).collect())
    }

    fn take_unit(
        &mut self,
        key: &(Group, Topic),
        filter: &Filter,
        room: Room,
        invisible: Duration,
    ) -> Result<Vec<Leased<u64>>, Option<Instant>> {
        let Some(queue) = self.units.get_mut(key) else {
            return Err(None);
        };
        let now = Instant::now();
        let until = after(now, invisible);
        let handles = &mut self.handles;
        let taken = queue.take(now, filter, room, until, || {
            *handles += 1;
            *handles
        });
        if taken.is_empty() {
            return Err(queue.next_change(now));
        }
        let leased = taken.into_iter().map(|taken| {
            let mut parts = taken.stored.parts.clone();
            parts.attempt = taken.attempt;
            parts.partition = Some(taken.partition.to_string());
            Leased {
                delivery: Delivery::from(parts),
                lease: taken.handle,
                expires_at: until,
                place: Some(taken.place),
            }
        });
        Ok(leased.collect())
    }

    /// Looks which batches are nobody's any more, and says when to look again.
    pub(super) fn release(&mut self, group: &Group) -> Option<Instant> {
        let now = Instant::now();
        let queues = self.units.iter_mut().filter(|((g, _), _)| g == group);
        let changes = queues.filter_map(|(_, queue)| {
            queue.release(now);
            queue.next_change(now)
        });
        changes.min()
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
        let extended = extended
            || self
                .units
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
                self.bury(group, dead.into_iter().collect());
                return Found::Current;
            }
        }
        let units = self.units.iter_mut().filter(|((g, _), _)| g == group);
        for (_, queue) in units {
            match queue.settle(handle, how, now) {
                Some(Unit::Settled) => return Found::Current,
                Some(Unit::Later(heard, dead)) => {
                    self.bury(group, dead.into_iter().collect());
                    return Found::Later(heard);
                }
                None => {}
            }
        }
        Found::OutOfDate
    }

    pub(super) fn lose(&mut self, group: &str, id: &str) -> bool {
        let mut queues = self.queues.iter_mut().filter(|((g, _), _)| g == group);
        let mut units = self.units.iter_mut().filter(|((g, _), _)| g == group);
        queues.any(|(_, queue)| queue.lose(id)) || units.any(|(_, queue)| queue.lose(id))
    }

    pub(super) fn dead_letters(&self, group: &str) -> Vec<Delivery> {
        self.dead.get(group).cloned().unwrap_or_default()
    }

    pub(super) fn backlog(&self, topic: &str, group: &str) -> usize {
        let key = (Group::from(group), Topic::from(topic));
        let units = self.units.get(&key).map_or(0, UnitQueue::len);
        units + self.queues.get(&key).map_or(0, GroupQueue::len)
    }

    pub(super) fn held(&self, topic: &str, group: &str) -> usize {
        let key = (Group::from(group), Topic::from(topic));
        let units = self.units.get(&key).map_or(0, UnitQueue::held);
        units + self.queues.get(&key).map_or(0, GroupQueue::held)
    }
}
