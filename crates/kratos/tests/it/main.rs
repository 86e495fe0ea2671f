//! What the crate promises, seen from outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "config")]
mod config;
#[cfg(feature = "telemetry")]
mod telemetry;
