//! What one group has done with one topic.
//!
//! A group without order hands out message by message ([`Concurrent`]); an ordered group hands out
//! a queue's next batch as one unit ([`Ordered`]). Both give out leases that lapse.

mod concurrent;
mod ordered;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub(crate) use self::{concurrent::Concurrent, ordered::Ordered};
use crate::state::{
    Timestamp,
    facts::{Journal, Key, Value},
    filter::Filter,
    handle::Handle,
    log::Place,
    message::{Delivered, Stored},
    refusal::Refusal,
    timers::Timers,
    topic::Topic,
};

/// Names a cursor for as long as the broker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CursorId(pub(crate) u32);

/// How long a delivered message stays invisible to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invisible {
    For(Duration),
    /// As long as the client that holds it is connected.
    AutoRenew,
}

/// The first and every further step of a lease that the broker renews.
pub(crate) const AUTO_RENEW_STEP: Duration = Duration::from_secs(60);
/// The longest that a lease is renewed.
pub(crate) const AUTO_RENEW_MAX: Duration = Duration::from_secs(3 * 3600);

impl Invisible {
    pub(crate) fn first_step(self) -> Duration {
        match self {
            Self::For(duration) => duration,
            Self::AutoRenew => AUTO_RENEW_STEP,
        }
    }

    /// When the handle lapses by itself.
    pub(crate) fn handle_deadline(self, now: Timestamp) -> Timestamp {
        now.plus(match self {
            Self::For(duration) => duration,
            Self::AutoRenew => AUTO_RENEW_MAX,
        })
    }

    /// Until when the broker may renew the lease, if it does.
    pub(crate) fn renew_until(self, now: Timestamp) -> Option<Timestamp> {
        (self == Self::AutoRenew).then(|| now.plus(AUTO_RENEW_MAX))
    }
}

/// One receive, as a cursor sees it.
#[derive(Clone, Debug)]
pub(crate) struct Take<'a> {
    pub(crate) filter: &'a Filter,
    pub(crate) batch: usize,
    pub(crate) invisible: Invisible,
    pub(crate) client: &'a Arc<str>,
    /// Names a receive on an ordered group, so that the same one may ask again.
    pub(crate) attempt_id: Option<&'a str>,
    pub(crate) max_attempts: u32,
}

/// What a take yields: messages for the consumer, and messages that are given up.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) exhausted: Vec<Arc<Stored>>,
}

/// What became of a lease whose time has come.
#[derive(Debug)]
pub(crate) enum Lapsed {
    /// The event was out of date, or the lease goes on.
    Nothing,
    /// The message waits for its next attempt.
    Ready,
    /// No attempt is left after so many: it becomes a dead letter.
    Exhausted(Place, u32),
}

/// A message that a consumer holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) attempt: u32,
    pub(crate) deadline: Timestamp,
    pub(crate) client: Arc<str>,
}

/// The state of one group on one topic.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) topic: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) mode: Mode,
    /// The journal does not know of it yet.
    fresh: bool,
}

#[derive(Debug)]
pub(crate) enum Mode {
    Concurrent(Concurrent),
    Ordered(Ordered),
}

impl Cursor {
    /// A new group starts at the end of an old queue, and at the start of a young one: one whose
    /// first message is still in memory.
    pub(crate) fn new(
        id: CursorId,
        generation: u64,
        topic: &Topic,
        group: &Arc<str>,
        fifo: bool,
    ) -> Self {
        let start = |log: &crate::state::log::Log| if log.first() == 0 { 0 } else { log.end() };
        let starts: Vec<u64> = topic.queues.iter().map(start).collect();
        let mode = if fifo {
            Mode::Ordered(Ordered::new(id, generation, starts))
        } else {
            Mode::Concurrent(Concurrent::new(id, generation, starts))
        };
        Self {
            topic: Arc::clone(&topic.name),
            group: Arc::clone(group),
            mode,
            fresh: true,
        }
    }

    /// Leaves the facts that are new since the last call.
    fn journal(&mut self, id: CursorId, journal: &mut Journal) {
        if std::mem::take(&mut self.fresh) {
            let fifo = self.is_ordered();
            let value = || Value::Cursor {
                topic: Arc::clone(&self.topic),
                group: Arc::clone(&self.group),
                fifo,
            };
            journal.set(|| Key::Cursor(id), value);
        }
        match &mut self.mode {
            Mode::Concurrent(mode) => mode.journal(journal),
            Mode::Ordered(mode) => mode.journal(journal),
        }
    }

    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self.mode, Mode::Ordered(_))
    }

    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        take: &Take<'_>,
        topic: &Topic,
        timers: &mut Timers,
    ) -> Taken {
        match &mut self.mode {
            Mode::Concurrent(mode) => mode.take(now, take, topic, timers),
            Mode::Ordered(mode) => mode.take(now, take, topic, timers),
        }
    }

    /// Settles a delivery. Settling it again is fine while the handle has not lapsed.
    pub(crate) fn ack(
        &mut self,
        now: Timestamp,
        handle: &Handle,
        timers: &mut Timers,
    ) -> Result<(), Refusal> {
        match &mut self.mode {
            Mode::Concurrent(mode) => mode.ack(now, handle, timers),
            Mode::Ordered(mode) => mode.ack(now, handle, timers),
        }
    }

    /// Sets a new end of the lease, `invisible` from now, and returns the new handle.
    pub(crate) fn change_invisible(
        &mut self,
        now: Timestamp,
        handle: &Handle,
        invisible: Duration,
        suspend: bool,
        timers: &mut Timers,
    ) -> Result<Handle, Refusal> {
        match &mut self.mode {
            Mode::Concurrent(mode) => {
                mode.change_invisible(now, handle, invisible, suspend, timers)
            }
            Mode::Ordered(mode) => mode.change_invisible(now, handle, invisible, timers),
        }
    }

    /// Whether `handle` is the newest of a message that is still held.
    pub(crate) fn check(&self, now: Timestamp, handle: &Handle) -> Result<(), Refusal> {
        match &self.mode {
            Mode::Concurrent(mode) => mode.check(now, handle),
            Mode::Ordered(mode) => mode.check(now, handle),
        }
    }

    /// Lets a delivered message come once more. An ordered group knows no such thing.
    pub(crate) fn duplicate(&mut self, place: Place) {
        if let Mode::Concurrent(mode) = &mut self.mode {
            mode.duplicate(place);
        }
    }

    /// The attempts that are spent with the delivery of a handle, if they are counted message by
    /// message.
    pub(crate) fn spent(&self, handle: &Handle) -> Option<u32> {
        match &self.mode {
            Mode::Concurrent(mode) => mode.attempts(handle.place),
            Mode::Ordered(_) => None,
        }
    }

    /// Takes back deliveries that never reached the client: no attempt is spent.
    pub(crate) fn hand_back(&mut self, now: Timestamp, handles: &[Handle], timers: &mut Timers) {
        match &mut self.mode {
            Mode::Concurrent(mode) => mode.hand_back(handles, timers),
            Mode::Ordered(mode) => mode.hand_back(now, handles, timers),
        }
    }

    /// Ends every lease, or those that the broker renews for `renewed_for`, at `at`.
    pub(crate) fn end_leases(
        &mut self,
        at: Timestamp,
        renewed_for: Option<&str>,
        timers: &mut Timers,
    ) {
        match &mut self.mode {
            Mode::Concurrent(mode) => mode.end_leases(at, renewed_for, timers),
            Mode::Ordered(mode) => mode.end_leases(at, renewed_for, timers),
        }
    }

    /// The oldest message of each queue that this cursor still needs.
    pub(crate) fn floor(&self, queue: u32) -> u64 {
        match &self.mode {
            Mode::Concurrent(mode) => mode.floor(queue),
            Mode::Ordered(mode) => mode.floor(queue),
        }
    }

    pub(crate) fn held(&self) -> Vec<Held> {
        match &self.mode {
            Mode::Concurrent(mode) => mode.held(),
            Mode::Ordered(mode) => mode.held(),
        }
    }

    /// Messages that wait to be delivered, for the first time or again, by queue.
    pub(crate) fn waiting(&self, now: Timestamp, topic: &Topic) -> Vec<u64> {
        match &self.mode {
            Mode::Concurrent(mode) => mode.waiting(topic),
            Mode::Ordered(mode) => mode.waiting(now, topic),
        }
    }
}

#[cfg(feature = "persist")]
impl Cursor {
    pub(crate) fn restore_position(
        &mut self,
        queue: u32,
        position: crate::state::facts::Position,
        timers: &mut Timers,
    ) -> Option<()> {
        match &mut self.mode {
            Mode::Concurrent(mode) => mode.restore_position(queue, &position),
            Mode::Ordered(mode) => mode.restore_position(queue, position, timers),
        }
    }

    /// A message that was handed out before waits for its next attempt.
    pub(crate) fn restore_delivery(&mut self, place: Place, attempts: u32) -> Option<()> {
        match &mut self.mode {
            Mode::Concurrent(mode) => mode.restore_delivery(place, attempts),
            Mode::Ordered(_) => return None,
        }
        Some(())
    }
}

impl Cursor {
    fn generation(&self) -> u64 {
        match &self.mode {
            Mode::Concurrent(mode) => mode.generation(),
            Mode::Ordered(mode) => mode.generation(),
        }
    }

    /// Tells the journal that nothing is left.
    fn end(&self, id: CursorId, journal: &mut Journal) {
        journal.end(|| Key::Cursor(id));
        let (queues, places) = match &self.mode {
            Mode::Concurrent(mode) => (mode.queues(), mode.places()),
            Mode::Ordered(mode) => (mode.queues(), Vec::new()),
        };
        (0..queues).for_each(|queue| journal.end(|| Key::Position(id, queue)));
        for place in places {
            journal.end(|| Key::Delivery(id, place));
        }
    }
}

/// Cursors by topic and group, and by id.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    all: Vec<Cursor>,
    ids: BTreeMap<(Arc<str>, Arc<str>), CursorId>,
    /// Those that may have changed since the journal was last told.
    touched: BTreeSet<CursorId>,
    /// Where the handles of a new cursor begin to count.
    generation: u64,
}

impl Cursors {
    /// Loses them all. No handle that they gave out is ever current again.
    pub(crate) fn clear(&mut self, journal: &mut Journal) {
        for (id, cursor) in (0..).map(CursorId).zip(&self.all) {
            cursor.end(id, journal);
            self.generation = self.generation.max(cursor.generation());
        }
        self.all.clear();
        self.ids.clear();
        self.touched.clear();
    }

    pub(crate) fn find(&self, topic: &Arc<str>, group: &Arc<str>) -> Option<&Cursor> {
        let id = self.ids.get(&(Arc::clone(topic), Arc::clone(group)))?;
        self.all.get(id.0 as usize)
    }

    pub(crate) fn get_mut(&mut self, id: CursorId) -> Option<&mut Cursor> {
        self.touched.insert(id);
        self.all.get_mut(id.0 as usize)
    }

    /// The cursor of `group` on `topic`, made on first use.
    pub(crate) fn open(&mut self, topic: &Topic, group: &Arc<str>, fifo: bool) -> &mut Cursor {
        let next = CursorId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        let key = (Arc::clone(&topic.name), Arc::clone(group));
        let id = *self.ids.entry(key).or_insert(next);
        if id == next {
            self.all
                .push(Cursor::new(id, self.generation, topic, group, fifo));
        }
        self.touched.insert(id);
        &mut self.all[id.0 as usize]
    }

    pub(crate) fn of_topic(&self, topic: &str) -> impl Iterator<Item = &Cursor> {
        self.all
            .iter()
            .filter(move |cursor| &*cursor.topic == topic)
    }

    pub(crate) fn of_group(&self, group: &str) -> impl Iterator<Item = &Cursor> {
        self.all
            .iter()
            .filter(move |cursor| &*cursor.group == group)
    }

    /// Leaves the facts that are new since the last call.
    pub(crate) fn journal(&mut self, journal: &mut Journal) {
        while let Some(id) = self.touched.pop_first() {
            if let Some(cursor) = self.all.get_mut(id.0 as usize) {
                cursor.journal(id, journal);
            }
        }
    }

    /// For what changes leases only, which the journal does not know of.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Cursor> {
        self.all.iter_mut()
    }
}

#[cfg(feature = "persist")]
impl Cursors {
    /// Handles count from here on, so that none from before the state was restored is current.
    pub(crate) fn begin_at(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// Brings a cursor back. Ids come in order, without a gap.
    pub(crate) fn restore(
        &mut self,
        id: CursorId,
        topic: &Topic,
        group: &Arc<str>,
        fifo: bool,
    ) -> Option<()> {
        if id.0 as usize != self.all.len() {
            return None;
        }
        self.open(topic, group, fifo).fresh = false;
        Some(())
    }
}
