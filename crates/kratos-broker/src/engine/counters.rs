//! What a server has done, in numbers.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::dead_letter::Reason;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $how:ident;)*) => {
        /// What a consumer server has done since it was made: a snapshot.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        struct Cells {
            $($name: AtomicU64,)*
        }

        impl Counters {
            $(count! { $how $name })*

            /// The numbers now.
            #[must_use]
            pub fn stats(&self) -> Stats {
                let mut stats = Stats { $($name: self.cells.$name.load(Ordering::Relaxed),)* };
                for part in self.parts().iter() {
                    $(stats.$name += part.$name.load(Ordering::Relaxed);)*
                }
                stats
            }
        }
    };
}

impl Counters {
    /// Counters of one subscription: what they count is counted here too.
    pub(crate) fn part(&self) -> Self {
        let part = Self::default();
        self.parts().push(part.cells.clone());
        part
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Arc<Cells>>> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was given up.
    pub(crate) fn given_up(&self, reason: Reason) {
        self.dead_lettered();
        if reason == Reason::Poison {
            self.poisoned();
        }
    }
}

/// What is counted message by message, or many at once.
macro_rules! count {
    (each $name:ident) => {
        pub(crate) fn $name(&self) {
            self.cells.$name.fetch_add(1, Ordering::Relaxed);
        }
    };
    (many $name:ident) => {
        pub(crate) fn $name(&self, messages: usize) {
            self.cells
                .$name
                .fetch_add(messages as u64, Ordering::Relaxed);
        }
    };
}

/// The counters of a server, live. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    cells: Arc<Cells>,
    /// The cells of subscriptions, which are not counted in those above.
    parts: Arc<Mutex<Vec<Arc<Cells>>>>,
}

counters! {
    /// Messages that were received, once per delivery.
    received: many;
    /// Attempts that succeeded.
    handled: each;
    /// Attempts that failed: errors, rejections, panics, time limits.
    failed: each;
    /// Failed attempts after which the message is tried again.
    retried: each;
    /// Failed attempts that do not count, because the kill switch is open: the message stays here.
    kept: each;
    /// Messages that were given up: moved by the broker, or published to the dead-letter topic.
    dead_lettered: each;
    /// Of these, the ones no attempt of which could succeed: poison, bodies that do not decode. The
    /// others had used up their attempts.
    poisoned: each;
    /// Publishes to a dead-letter topic that failed, to be tried again.
    dead_letter_failed: each;
    /// How often a kill switch opened.
    switch_opened: each;
    /// Messages that were given back unfinished.
    handed_back: each;
    /// Messages that were done and come again all the same: an earlier one of their unit was handed
    /// back or lost (only where a broker's batch is one unit), or an earlier one of their key failed
    /// in the same [`Batch`](crate::Batch). Only where order is kept.
    repeated: each;
    /// Messages whose lease was lost while they waited, ran, or were about to be settled.
    leases_lost: each;
    /// Leases that were extended, each time.
    leases_extended: each;
    /// Settlements that the broker has confirmed.
    confirmed: many;
    /// Settlements that the broker refused or never confirmed: the message may come again.
    refused: each;
    /// Received messages that no subscription wants, acknowledged unseen.
    unrouted: each;
    /// Receives that failed.
    receive_failed: each;
}
