//! Receipt handles: who holds which delivery of which message, and until when.

use rocketmq_proto::v2::Code;

use crate::state::{Timestamp, cursor::CursorId, log::Place, refusal::Refusal};

/// One delivery of one message. Its text is opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) cursor: CursorId,
    pub(crate) place: Place,
    /// Counts deliveries and extensions of the cursor: only the newest of a message is current.
    pub(crate) generation: u64,
    /// When this handle lapses by itself, whatever became of the message.
    pub(crate) deadline: Timestamp,
}

impl Handle {
    pub(crate) fn encode(&self) -> String {
        format!(
            "{:x}-{:x}-{:x}-{:x}-{:x}",
            self.cursor.0,
            self.place.queue,
            self.place.offset,
            self.generation,
            self.deadline.as_millis()
        )
    }

    /// Reads a handle. What is none is an internal error, as on the real server.
    pub(crate) fn decode(text: &str) -> Result<Self, Refusal> {
        Self::parse(text).ok_or_else(|| {
            let message = "parse failed: this is no receipt handle of this broker";
            Refusal::new(Code::InternalServerError, message)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text
            .split('-')
            .map(|part| u64::from_str_radix(part, 16).ok());
        let mut next = || numbers.next().flatten();
        let handle = Self {
            cursor: CursorId(u32::try_from(next()?).ok()?),
            place: Place {
                queue: u32::try_from(next()?).ok()?,
                offset: next()?,
            },
            generation: next()?,
            deadline: Timestamp::from_millis(next()?),
        };
        numbers.next().is_none().then_some(handle)
    }
}
