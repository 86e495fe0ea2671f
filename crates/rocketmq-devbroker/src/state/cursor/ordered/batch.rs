//! A queue of an ordered group, and its batch.

use std::sync::Arc;

use crate::state::{
    Timestamp,
    facts::{self, Position},
    timers::TimerKey,
};

#[derive(Debug)]
pub(super) struct Queue {
    /// Everything before this offset is settled.
    pub(super) committed: u64,
    pub(super) batch: Option<Batch>,
    /// What the journal was told last.
    pub(super) told: Option<Position>,
}

/// The messages of a queue that were handed out together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) generation: u64,
    pub(super) attempt_id: Option<String>,
    pub(super) client: Arc<str>,
    pub(super) members: Vec<Member>,
    pub(super) renew_until: Option<Timestamp>,
    pub(super) timer: TimerKey,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) offset: u64,
    pub(super) acked: bool,
    pub(super) visible_at: Timestamp,
    /// How often it was delivered, this time included.
    pub(super) delivered: u32,
    /// What the consumer was told.
    pub(super) attempt: u32,
}

impl Queue {
    /// Whether the message is of the batch.
    pub(super) fn knows(&self, offset: u64) -> bool {
        let members = self.batch.iter().flat_map(|batch| &batch.members);
        members.into_iter().any(|member| member.offset == offset)
    }

    pub(super) fn position(&self) -> Position {
        let members = self.batch.iter().flat_map(|batch| &batch.members);
        let taken = members.map(|member| facts::Taken {
            offset: member.offset,
            acked: member.acked,
            delivered: member.delivered,
        });
        Position {
            next: self.committed,
            batch: taken.collect(),
        }
    }
}

impl Batch {
    pub(super) fn blocks(&self, now: Timestamp) -> bool {
        self.members
            .iter()
            .any(|member| !member.acked && member.visible_at > now)
    }

    /// When the last unsettled member may be seen again.
    pub(super) fn free_at(&self) -> Timestamp {
        let unsettled = self.members.iter().filter(|member| !member.acked);
        unsettled
            .map(|member| member.visible_at)
            .max()
            .unwrap_or_default()
    }

    pub(super) fn member(&mut self, offset: u64) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.offset == offset)
    }
}
