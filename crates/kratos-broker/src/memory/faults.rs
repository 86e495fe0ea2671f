//! Faults on demand.

use super::Broker;
use crate::{Error, ErrorKind, Result};

/// What goes wrong from now on.
#[derive(Debug, Default)]
pub(super) struct Faults {
    disconnected: bool,
    publishes: u32,
    receives: u32,
    settlements: u32,
}

impl Broker {
    /// Fails the next `publishes` with a transient error; nothing is stored.
    pub fn fail_publishes(&self, publishes: u32) {
        self.lock().faults.publishes = publishes;
    }

    /// Fails the next `receives` with a transient error.
    pub fn fail_receives(&self, receives: u32) {
        self.lock().faults.receives = receives;
        self.shared.changed.notify_waiters();
    }

    /// Refuses the next `settlements` as out of date; the messages come again when their
    /// invisible time is over.
    pub fn refuse_settlements(&self, settlements: u32) {
        self.lock().faults.settlements = settlements;
    }

    /// Cuts the connection: publishes, receives and extensions fail, settlements stay unanswered.
    pub fn disconnect(&self) {
        self.lock().faults.disconnected = true;
        self.shared.changed.notify_waiters();
    }

    /// Mends the connection; settlements from before are done now.
    pub fn reconnect(&self) {
        self.lock().faults.disconnected = false;
        self.shared.changed.notify_waiters();
    }

    /// Ends the lease of a message that a group has received: it is visible to others at once, and
    /// the next extension or settlement of its holder is refused. Answers whether it was held.
    pub fn lose_lease(&self, group: &str, id: &str) -> bool {
        let lost = self.lock().store.lose(group, id);
        self.shared.changed.notify_waiters();
        lost
    }
}

impl Faults {
    pub(super) fn connected(&self) -> Result<()> {
        if self.disconnected {
            Err(transient("not connected"))
        } else {
            Ok(())
        }
    }

    pub(super) fn publish(&mut self) -> Result<()> {
        self.connected()?;
        if take(&mut self.publishes) {
            Err(transient("publish failed on demand"))
        } else {
            Ok(())
        }
    }

    pub(super) fn receive(&mut self) -> Result<()> {
        self.connected()?;
        if take(&mut self.receives) {
            Err(transient("receive failed on demand"))
        } else {
            Ok(())
        }
    }

    pub(super) fn settlement(&mut self) -> Result<()> {
        if take(&mut self.settlements) {
            return Err(Error::new(
                ErrorKind::LeaseLost,
                "settlement refused on demand",
            ));
        }
        Ok(())
    }
}

fn take(left: &mut u32) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

fn transient(message: &str) -> Error {
    Error::new(ErrorKind::Transient, format!("memory broker: {message}"))
}
