//! The driver and the whole App on the dev broker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod errors;
mod laws;
mod shutdown;
mod site;
