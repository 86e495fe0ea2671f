//! Tests of the engine and the memory driver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batch;
mod bind;
mod conformance;
mod drain;
mod failures;
mod faults;
mod fifo;
mod lanes;
mod layers;
mod leases;
mod odd;
mod stop;
mod support;
mod ui;
