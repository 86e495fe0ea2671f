//! The driver and the whole App on the dev broker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod batches;
mod config;
mod dead_letters;
mod documents;
mod errors;
mod kratos_transport;
mod lag;
mod laws;
mod logs;
mod metrics;
mod ordered;
mod outbox;
mod reports;
mod shutdown;
mod site;
mod stops;
mod telemetry;
