//! Without the feature `test-util` nobody listens.

use crate::{
    Delivery, Message, RecallHandle, Receipt, Result,
    driver::{GroupSpec, Settled, Settlement, Ticket},
};

/// Where tests listen in on a driver; without the feature `test-util` nothing does.
#[derive(Clone, Debug, Default)]
pub struct Tap(());

/// A message on its way to the broker.
#[derive(Debug)]
#[must_use]
pub struct Sending(());

/// A member of a group, as a test sees it.
#[derive(Debug, Default)]
pub struct Member(());

#[expect(
    missing_docs,
    reason = "as with the feature, where they are documented"
)]
impl Tap {
    pub fn sending(&self, _message: &Message) -> Sending {
        Sending(())
    }

    pub fn recalled(&self, _handle: &RecallHandle) {}

    pub fn member(&self, _spec: &GroupSpec) -> Member {
        Member(())
    }
}

#[expect(missing_docs, reason = "as above")]
impl Sending {
    pub fn sent(self, _receipt: &Receipt) {}
}

#[expect(missing_docs, reason = "as above")]
impl Member {
    pub fn received(&self, _lease: u64, _delivery: &Delivery) {}

    #[must_use]
    pub fn settle(&self, _lease: u64, _ticket: Ticket, how: Settlement) -> Settlement {
        how
    }

    pub fn settled(&self, _settled: &mut Settled) {}

    pub fn extend(&self, _lease: u64) -> Result<()> {
        Ok(())
    }
}
