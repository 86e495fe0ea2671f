//! The client against servers that answer what a test tells them, or nothing, or rubbish.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod brokers;
mod connections;
mod fake;
mod program;
