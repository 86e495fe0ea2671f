//! Calls as bytes of a connection, some of them wrong.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{sleep, timeout},
};

use crate::{
    core::lock,
    service::tests::{
        World,
        dice::Dice,
        wire::{Call, Ending},
    },
    serving::Serving,
};

/// Connections that are kept open and silent.
const MAX_SILENT: usize = 16;
/// More than a case says, so that nobody has to read.
const PIPE_BYTES: usize = 1 << 20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A broker, and connections to it.
pub(super) struct Wires {
    pub(super) world: World,
    serving: Serving,
    silent: VecDeque<DuplexStream>,
}

impl Wires {
    pub(super) fn new() -> Self {
        let world = World::new();
        Self {
            serving: Serving::start(world.core.clone()),
            world,
            silent: VecDeque::new(),
        }
    }

    pub(super) async fn suffer(&mut self, bytes: &[u8]) {
        let said = {
            let seen = lock(&self.world.seen);
            let mut dice = Dice::new(bytes, &seen, self.world.now());
            let mut said = PREFACE.to_vec();
            said.extend(frame(SETTINGS, 0, 0, &[]));
            for stream in (1..).step_by(2).take(1 + dice.below(3)) {
                said.extend(stream_of(stream, &dice.call()));
            }
            if dice.once_in(3) {
                dice.mutate(&mut said);
            }
            said
        };
        let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
        self.serving.connection(far, None);
        let said = timeout(Duration::from_secs(1), near.write_all(&said)).await;
        // It may have hung up in the middle.
        drop(said.expect("nothing is read"));
        let mut answer = Vec::new();
        let reading = near.read_to_end(&mut answer);
        drop(timeout(Duration::from_millis(1), reading).await);
        assert!(!answer.is_empty(), "not even its settings");
        self.silent.push_back(near);
        if self.silent.len() > MAX_SILENT {
            self.silent.pop_front();
        }
    }

    /// Every connection ends, and with it all that ran on it.
    pub(super) async fn end(&mut self) {
        self.silent.clear();
        // They notice when they are polled next.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(self.serving.tasks(), 1, "more than what drives the state");
        self.world.end().await;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(content);
    frame
}

fn stream_of(stream: u32, call: &Call) -> Vec<u8> {
    let path = format!("/apache.rocketmq.v2.MessagingService/{}", call.method);
    let first = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "broker"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    let rest = call.headers.iter().map(|(name, value)| (*name, &**value));
    for (name, value) in first.into_iter().chain(rest) {
        // Literal, not indexed, not squeezed; of texts that are too long for it, the start.
        block.push(0);
        for text in [name, value] {
            let bytes = &text.as_bytes()[..text.len().min(126)];
            block.push(u8::try_from(bytes.len()).unwrap());
            block.extend(bytes);
        }
    }
    let mut said = frame(HEADERS, END_HEADERS, stream, &block);
    let pieces = call.body.rest.iter();
    said.extend(pieces.flat_map(|piece: &Bytes| frame(DATA, 0, stream, piece)));
    match call.body.ending {
        Ending::Ended => said.extend(frame(DATA, END_STREAM, stream, &[])),
        Ending::Broken => said.extend(frame(RESET, 0, stream, &[0, 0, 0, 8])),
        Ending::Open => {}
    }
    said
}
