//! What the crate promises, seen from outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "config")]
mod config;
mod defects;
mod lifecycle;
mod support;
#[cfg(feature = "telemetry")]
mod telemetry;
