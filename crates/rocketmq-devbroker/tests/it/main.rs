//! The broker over gRPC, with the raw generated client.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod consume;
mod produce;
