//! Tests of the engine and the memory driver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance;
