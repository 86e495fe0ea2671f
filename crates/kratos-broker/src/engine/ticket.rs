//! The number of a message in the engine's lease table.

/// Names one received message to the engine; a driver carries it from
/// [`settle`](crate::driver::Consumer::settle) to [`settled`](crate::driver::Consumer::settled) and
/// does not look inside. Unique within a consumer as long as the message is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    /// A ticket of this number: for tests of a driver that drive a consumer by hand.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}
