//! Tests of the engine and the memory driver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batch;
mod batch_storm;
mod bind;
mod conformance;
mod controls;
mod dead_letters;
mod drain;
mod drip;
mod failures;
mod faults;
mod fifo;
mod idempotent;
mod kill_switch;
mod lanes;
mod layers;
mod leases;
mod odd;
mod publishers;
mod replay;
mod retries;
mod stop;
mod support;
mod table;
mod test_app;
mod ui;
