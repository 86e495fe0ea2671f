//! How a local transaction ended.

/// How the local transaction of a message ended, for the broker that holds the message.
///
/// It is an answer about facts. An error of a database's commit, a time-out above all, does not
/// say that nothing was committed: answer `Unknown` then, and the broker asks again later. Nor does
/// it say so that nothing is to be seen: another process may be about to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It is committed: the message is delivered.
    Commit,
    /// It is rolled back for certain, and nobody can commit it any more: the message is forgotten.
    Rollback,
    /// Nobody knows yet: the broker asks later.
    Unknown,
}

/// A transaction's message and what was told to the broker.
#[derive(Debug)]
#[non_exhaustive]
pub struct Transacted {
    /// The message; delivered under this id if the resolution is to commit.
    pub receipt: crate::Receipt,
    /// What `local` answered.
    pub resolution: Resolution,
    /// Why the broker could not be told, if it could not. It asks the checker then.
    pub unconfirmed: Option<crate::Error>,
}

// === impl Transacted ===

impl Transacted {
    /// For drivers.
    #[must_use]
    pub fn new(receipt: crate::Receipt, resolution: Resolution) -> Self {
        Self {
            receipt,
            resolution,
            unconfirmed: None,
        }
    }

    /// The broker could not be told: for drivers.
    #[must_use]
    pub fn unconfirmed(mut self, error: crate::Error) -> Self {
        self.unconfirmed = Some(error);
        self
    }
}
