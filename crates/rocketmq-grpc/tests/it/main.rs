//! Behaviour, against a dev broker and a scripted server. All in memory, so the clock is paused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod consumer;
mod fake;
mod link;
mod producer;
mod session;
mod settlement;
mod stop;
