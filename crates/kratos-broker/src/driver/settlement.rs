//! What becomes of a message that was received.

use std::time::Duration;

use super::Ticket;
use crate::Error;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// It is done: the broker forgets it for this group.
    Ack,
    /// It failed: the broker delivers it again, not before this time has passed.
    RetryAfter(Duration),
    /// It failed for good: the broker moves it to the group's dead-letter queue, once.
    DeadLetter,
    /// It was not finished and did not fail: the broker delivers it again as soon as it can.
    HandBack,
}

impl Settlement {
    /// What it is called in telemetry.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::RetryAfter(_) => "nack",
            Self::DeadLetter => "dead_letter",
            Self::HandBack => "hand_back",
        }
    }

    /// Of these operations, from 0.
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Ack => 0,
            Self::RetryAfter(_) => 1,
            Self::DeadLetter => 2,
            Self::HandBack => 3,
        }
    }
}

/// How a settlement went.
#[derive(Debug)]
pub struct Settled {
    /// The ticket that came with the settlement.
    pub ticket: Ticket,
    /// Confirmed by the broker, or given up and why. With
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) the message comes (or has come) again.
    pub result: Result<(), Error>,
}
