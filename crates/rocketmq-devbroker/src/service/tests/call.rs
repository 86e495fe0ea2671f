//! Calls: a frame or several around what they ask, whole or not.

use bytes::Bytes;

use crate::service::tests::{
    dice::{CLIENTS, Dice},
    wire::{ALL_FRAMES, Call, Ending, Pieces},
};

/// Every method of the service; those that others build on more than once.
const METHODS: [&str; 29] = [
    "SendMessage",
    "Telemetry",
    "ReceiveMessage",
    "AckMessage",
    "SendMessage",
    "Telemetry",
    "ReceiveMessage",
    "AckMessage",
    "SendMessage",
    "ReceiveMessage",
    "SendMessage",
    "ReceiveMessage",
    "EndTransaction",
    "ChangeInvisibleDuration",
    "ForwardMessageToDeadLetterQueue",
    "RecallMessage",
    "AckMessage",
    "EndTransaction",
    "ChangeInvisibleDuration",
    "RecallMessage",
    "QueryRoute",
    "Heartbeat",
    "QueryAssignment",
    "NotifyClientTermination",
    "SyncLiteSubscription",
    "PullMessage",
    "UpdateOffset",
    "GetOffset",
    "QueryOffset",
];

impl Dice<'_> {
    /// Bytes changed, lost, doubled, or added.
    pub(super) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len().max(1)) * (1 + self.below(4)) % bytes.len().max(1);
            match self.below(4) {
                0 => bytes.insert(at, self.byte()),
                1 => bytes.truncate(at),
                2 => bytes.extend_from_within(at..),
                _ => bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|it| *it ^= self.byte()),
            }
        }
    }

    /// A frame, whose head may be a lie.
    fn frame(&mut self, method: &str) -> Vec<u8> {
        let mut message = self.request(method);
        if self.once_in(4) {
            self.mutate(&mut message);
        }
        let mut length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut compressed = 0;
        if self.once_in(16) {
            length = self.of(&[0, 1, u32::MAX, 1 << 31, 4 << 20, length + 1, length / 2]);
            compressed = self.of(&[0, 0, 1, 255]);
        }
        let mut frame = vec![compressed];
        frame.extend(length.to_be_bytes());
        frame.extend(message);
        frame
    }

    pub(super) fn call(&mut self) -> Call {
        let method = self.of(&METHODS);
        let streams = method == "Telemetry";
        let mut frames = self.frame(method);
        let more = if streams {
            self.below(3)
        } else {
            usize::from(self.once_in(32))
        };
        for _ in 0..more {
            frames.extend(self.frame(method));
        }
        let size = self
            .of(&[10_000, 10_000, 64, 7, 1])
            .max(frames.len() / 64)
            .max(1);
        let ending = match self.below(16) {
            0..3 if streams => Ending::Ended,
            14 => Ending::Open,
            15 => Ending::Broken,
            _ if streams => Ending::Open,
            _ => Ending::Ended,
        };
        let mut headers = vec![
            ("x-mq-client-id", self.name(&CLIENTS)),
            ("x-mq-language", self.name(&["RUST", "JAVA"])),
            ("x-mq-client-version", self.name(&["5.0.7"])),
            ("grpc-timeout", self.name(&["30S", "6S", "99999999H", "1n"])),
        ];
        headers.retain(|(_, value)| http::HeaderValue::try_from(value).is_ok());
        if self.once_in(20) {
            headers.swap_remove(self.below(4).min(headers.len() - 1));
        }
        let frames_read = match self.below(8) {
            7 => self.below(4),
            _ => ALL_FRAMES,
        };
        Call {
            method,
            group: self.asked.take(),
            headers,
            body: Pieces {
                rest: frames.chunks(size).map(Bytes::copy_from_slice).collect(),
                ending,
                late: self.once_in(2),
            },
            frames: frames_read,
            stays: ending == Ending::Open || (method == "ReceiveMessage" && self.once_in(3)),
        }
    }
}
