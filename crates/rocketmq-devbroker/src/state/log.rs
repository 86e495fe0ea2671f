//! The messages of one queue, by offset.

use std::{collections::VecDeque, sync::Arc};

use crate::state::message::Stored;

/// Where a message lies in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) queue: u32,
    pub(crate) offset: u64,
}

/// An append-only log that forgets from the front.
#[derive(Debug, Default)]
pub(crate) struct Log {
    first: u64,
    messages: VecDeque<Arc<Stored>>,
}

impl Log {
    /// The offset of the oldest message kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The offset that the next message gets.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// Makes the first message that is pushed the one with this offset.
    #[cfg(feature = "persist")]
    pub(crate) fn begin_at(&mut self, first: u64) {
        self.first = first;
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn push(&mut self, message: Arc<Stored>) {
        self.messages.push_back(message);
    }

    pub(crate) fn at(&self, offset: u64) -> Option<&Arc<Stored>> {
        let index = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        self.messages.get(index)
    }

    pub(crate) fn forget_first(&mut self) -> Option<Arc<Stored>> {
        let message = self.messages.pop_front()?;
        self.first += 1;
        Some(message)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.messages.iter()
    }
}
