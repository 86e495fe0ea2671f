//! Marks in memory: for one process, and for tests.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Begun, Store};
use crate::clock::from_now;

/// Messages that are remembered as done, unless said otherwise.
const CAPACITY: usize = 100_000;

/// Marks in flight above which those that have expired are looked for: nobody ended them.
const IN_FLIGHT_MAX: usize = 10_000;

/// A [`Store`] in this process: it knows nothing of other processes, nor of an earlier run. Clones
/// share the marks.
///
/// It remembers so many messages as done, 100,000 by default, and forgets the oldest for a new one.
/// Those in flight are as many as handlers run.
#[derive(Clone)]
pub struct MemoryStore {
    capacity: usize,
    marks: Arc<Mutex<Marks>>,
}

/// A mark in a [`MemoryStore`].
pub struct MemoryMark {
    id: Id,
    number: u64,
}

type Id = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Marks {
    by_id: HashMap<Id, Entry>,
    /// What is done, in the order it was; entries whose number is out of date are nobody's.
    done: VecDeque<(Id, u64)>,
    last: u64,
}

struct Entry {
    number: u64,
    done: bool,
    until: Instant,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// A store that remembers 100,000 messages as done.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// A store that remembers this many messages as done, at least one.
    #[must_use]
    pub fn with_capacity(messages: usize) -> Self {
        Self {
            capacity: messages.max(1),
            marks: Arc::default(),
        }
    }

    /// How many marks there are, of both kinds; what has expired may be among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks().by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    type Mark = MemoryMark;
    type Error = Infallible;

    async fn begin(
        &self,
        scope: &str,
        id: &str,
        hold: Duration,
    ) -> Result<Begun<MemoryMark>, Infallible> {
        let id: Id = (scope.into(), id.into());
        let now = Instant::now();
        let mut marks = self.marks();
        if let Some(entry) = marks.by_id.get(&id).filter(|entry| entry.until > now) {
            return Ok(if entry.done {
                Begun::Done
            } else {
                let left = entry.until.saturating_duration_since(now);
                Begun::InFlight { left }
            });
        }
        marks.sweep();
        marks.last += 1;
        let number = marks.last;
        let entry = Entry {
            number,
            done: false,
            until: from_now(hold),
        };
        marks.by_id.insert(id.clone(), entry);
        Ok(Begun::New(MemoryMark { id, number }))
    }

    async fn extend(&self, mark: &MemoryMark, hold: Duration) -> Result<bool, Infallible> {
        let mut marks = self.marks();
        let held = marks.held(mark);
        Ok(held.map(|entry| entry.until = from_now(hold)).is_some())
    }

    async fn done(&self, mark: MemoryMark, keep: Duration) -> Result<bool, Infallible> {
        let mut marks = self.marks();
        let Some(entry) = marks.held(&mark) else {
            return Ok(false);
        };
        entry.done = true;
        entry.until = from_now(keep);
        marks.done.push_back((mark.id, mark.number));
        marks.forget(self.capacity);
        Ok(true)
    }

    async fn clear(&self, mark: MemoryMark) -> Result<bool, Infallible> {
        let mut marks = self.marks();
        let held = marks.held(&mark).is_some();
        if held {
            marks.by_id.remove(&mark.id);
        }
        Ok(held)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("capacity", &self.capacity)
            .field("marks", &self.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryMark").field(&self.id).finish()
    }
}

// === impl Marks ===

impl Marks {
    /// The entry of a mark that is still its holder's.
    fn held(&mut self, mark: &MemoryMark) -> Option<&mut Entry> {
        let entry = self.by_id.get_mut(&mark.id)?;
        (entry.number == mark.number && !entry.done).then_some(entry)
    }

    /// Forgets marks in flight that nobody ended, when they are more than can be running.
    fn sweep(&mut self) {
        if self.by_id.len() > self.done.len() + IN_FLIGHT_MAX {
            let now = Instant::now();
            self.by_id.retain(|_, entry| entry.until > now);
        }
    }

    /// Forgets what is remembered no longer, and the oldest above the capacity.
    fn forget(&mut self, capacity: usize) {
        let now = Instant::now();
        while let Some((id, number)) = self.done.front() {
            let entry = self.by_id.get(id).filter(|entry| entry.number == *number);
            let kept = entry.is_some_and(|entry| entry.until > now);
            if kept && self.done.len() <= capacity {
                return;
            }
            let ours = entry.is_some();
            if let Some((id, _)) = self.done.pop_front()
                && ours
            {
                self.by_id.remove(&id);
            }
        }
    }
}
