//! What went through a driver in a test.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    Delivery, Group, MessageId, RecallHandle, Settlement, Topic,
    driver::{Filter, GroupSpec, TopicSpec},
    tap::Lie,
};

/// What went through a driver in a test: everything that was published and delivered, and what
/// became of it. Clones are the same journal.
///
/// It also holds the faults that a test wants; they work on any broker, since the driver itself
/// does other than it says.
#[derive(Clone, Default)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    book: Mutex<Book>,
    changed: Notify,
}

#[derive(Default)]
struct Book {
    /// Publishes that are not answered yet.
    sending: usize,
    published: Vec<Delivery>,
    /// Members of groups, by number; those that have left are gone.
    members: BTreeMap<u64, Seated>,
    numbers: u64,
    /// What is published and not finished, by group.
    open: BTreeMap<(Group, MessageId), Open>,
    attempts: Vec<(Group, Delivery)>,
    consumed: Vec<(Group, Delivery)>,
    dead: Vec<(Group, Delivery)>,
    dropped_acks: usize,
    duplicates: usize,
    /// Attempts whose lease a test has taken away.
    expired: HashSet<(Group, MessageId, u32)>,
}

struct Seated {
    group: Group,
    topics: Vec<TopicSpec>,
}

/// A message that a group has not finished.
struct Open {
    topic: Topic,
    attempt: u32,
    /// A delayed message counts from then on.
    due: Instant,
    recall: Option<RecallHandle>,
    held: bool,
}

// === impl Journal ===

impl Journal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The messages to a topic that the broker has confirmed, in that order.
    #[must_use]
    pub fn published(&self, topic: &str) -> Vec<Delivery> {
        let of_topic = |delivery: &&Delivery| **delivery.topic() == *topic;
        self.book()
            .published
            .iter()
            .filter(of_topic)
            .cloned()
            .collect()
    }

    /// Every attempt of a group, in the order they were received.
    #[must_use]
    pub fn attempts(&self, group: &str) -> Vec<Delivery> {
        of_group(&self.book().attempts, group)
    }

    /// What a group has acknowledged, in the order it was confirmed.
    #[must_use]
    pub fn consumed(&self, group: &str) -> Vec<Delivery> {
        of_group(&self.book().consumed, group)
    }

    /// The dead letters of a group, oldest first, as they were at their last attempt.
    #[must_use]
    pub fn dead_letters(&self, group: &str) -> Vec<Delivery> {
        of_group(&self.book().dead, group)
    }

    /// The next `acks` acknowledgements are confirmed and forgotten: the messages come again when
    /// their invisible time is over.
    pub fn drop_acks(&self, acks: usize) {
        self.book().dropped_acks += acks;
    }

    /// The next message that is acknowledged is delivered once more, at once.
    pub fn duplicate(&self) {
        self.book().duplicates += 1;
    }

    /// The leases of all messages that are held now are out of date: the handlers are cancelled at
    /// the next extension, at the latest when half of the invisible time is over, their settlements
    /// refused; the messages come again.
    pub fn expire_lease(&self) {
        let mut book = self.book();
        let held = book.open.iter().filter(|(_, open)| open.held);
        let held = held.map(|((group, id), open)| (group.clone(), id.clone(), open.attempt));
        let held: Vec<_> = held.collect();
        book.expired.extend(held);
    }

    /// Whether nothing is on its way: every publish is answered, and every message that was
    /// published or received, and is due, is acknowledged or a dead letter for every group.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let now = Instant::now();
        let book = self.book();
        book.sending == 0 && book.open.values().all(|open| open.due > now && !open.held)
    }

    pub(super) fn changed(&self) -> &Notify {
        &self.inner.changed
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        let book = &self.inner.book;
        book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let changed = change(&mut self.book());
        self.inner.changed.notify_waiters();
        changed
    }
}

/// What drivers tell, through their [`Tap`](crate::driver::Tap).
impl Journal {
    pub(crate) fn sending(&self) {
        self.change(|book| book.sending += 1);
    }

    pub(crate) fn not_sent(&self) {
        self.change(|book| book.sending -= 1);
    }

    pub(crate) fn sent(&self, delivery: Delivery, due: Instant, recall: Option<&RecallHandle>) {
        self.change(|book| {
            book.sending -= 1;
            let wanted = |topic: &TopicSpec| {
                // What an expression of SQL wants only the broker knows: it counts once it comes.
                !matches!(topic.filter, Filter::Sql(_))
                    && topic.topic == *delivery.topic()
                    && topic.filter.accepts_tag(delivery.tag())
            };
            let members = book.members.values();
            let waiting = members.filter(|member| member.topics.iter().any(wanted));
            let groups: HashSet<_> = waiting.map(|member| member.group.clone()).collect();
            for group in groups {
                if book.has_finished(&group, delivery.id()) {
                    continue;
                }
                // It may have come before its publish was answered.
                let entry = book.open.entry((group, delivery.id().clone()));
                entry.or_insert_with(|| Open {
                    topic: delivery.topic().clone(),
                    attempt: 0,
                    due,
                    recall: recall.cloned(),
                    held: false,
                });
            }
            book.published.push(delivery);
        });
    }

    pub(crate) fn recalled(&self, handle: &RecallHandle) {
        self.change(|book| {
            book.open
                .retain(|_, open| open.held || open.recall.as_ref() != Some(handle));
        });
    }

    pub(crate) fn joined(&self, spec: &GroupSpec) -> u64 {
        self.change(|book| {
            book.numbers += 1;
            let number = book.numbers;
            let group = if spec.broadcast {
                // Each member gets all, and is a group of its own.
                Group::from(format!("{}#{number}", spec.group))
            } else {
                spec.group.clone()
            };
            let topics = spec.topics.clone();
            book.members.insert(number, Seated { group, topics });
            number
        })
    }

    pub(crate) fn left(&self, member: u64) {
        self.change(|book| {
            let Some(Seated { group, .. }) = book.members.remove(&member) else {
                return;
            };
            if book.members.values().all(|other| other.group != group) {
                // Nobody is left to finish them.
                book.open.retain(|(of, _), _| *of != group);
            }
        });
    }

    pub(crate) fn received(&self, member: u64, delivery: &Delivery) {
        self.change(|book| {
            let Some(group) = book.group(member) else {
                return;
            };
            let open = Open {
                topic: delivery.topic().clone(),
                attempt: delivery.attempt(),
                due: Instant::now(),
                recall: None,
                held: true,
            };
            book.open
                .insert((group.clone(), delivery.id().clone()), open);
            book.attempts.push((group, delivery.clone()));
        });
    }

    /// Whether a settlement is to be a lie.
    pub(crate) fn lie(&self, member: u64, delivery: &Delivery, how: Settlement) -> Option<Lie> {
        let mut book = self.book();
        let group = book.group(member)?;
        let attempt = (group, delivery.id().clone(), delivery.attempt());
        if book.expired.remove(&attempt) {
            return Some(Lie::Expired);
        }
        if how != Settlement::Ack {
            return None;
        }
        if book.dropped_acks > 0 {
            book.dropped_acks -= 1;
            return Some(Lie::DroppedAck);
        }
        if book.duplicates > 0 {
            book.duplicates -= 1;
            return Some(Lie::Duplicate);
        }
        None
    }

    pub(crate) fn is_expired(&self, member: u64, delivery: &Delivery) -> bool {
        let mut book = self.book();
        let Some(group) = book.group(member) else {
            return false;
        };
        let attempt = (group, delivery.id().clone(), delivery.attempt());
        book.expired.remove(&attempt)
    }

    pub(crate) fn settled(
        &self,
        member: u64,
        delivery: &Delivery,
        how: Settlement,
        lie: Option<Lie>,
    ) {
        self.change(|book| {
            let Some(group) = book.group(member) else {
                return;
            };
            let over = match how {
                Settlement::Ack => &mut book.consumed,
                Settlement::DeadLetter => &mut book.dead,
                Settlement::RetryAfter(_) | Settlement::HandBack => return,
            };
            over.push((group.clone(), delivery.clone()));
            if lie.is_none() {
                book.open.remove(&(group, delivery.id().clone()));
            }
        });
    }
}

impl Book {
    fn group(&self, member: u64) -> Option<Group> {
        self.members.get(&member).map(|member| member.group.clone())
    }

    fn has_finished(&self, group: &Group, id: &MessageId) -> bool {
        let is = |(of, delivery): &(Group, Delivery)| of == group && delivery.id() == id;
        // It is one of the last, if at all.
        self.consumed.iter().rev().any(is) || self.dead.iter().any(is)
    }
}

fn of_group(entries: &[(Group, Delivery)], group: &str) -> Vec<Delivery> {
    let of_group = entries.iter().filter(|(of, _)| **of == *group);
    of_group.map(|(_, delivery)| delivery.clone()).collect()
}

/// What is not settled, as a failed test prints it.
impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = self.book();
        write!(f, "{} publishes under way", book.sending)?;
        for ((group, id), open) in &book.open {
            let Open { topic, attempt, .. } = open;
            let what = match (open.held, attempt) {
                (true, _) => "is held",
                (false, 0) => "has not come",
                (false, _) => "waits to come again",
            };
            write!(
                f,
                "; message {id} of topic {topic} {what} in group {group}, attempt {attempt}"
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}
