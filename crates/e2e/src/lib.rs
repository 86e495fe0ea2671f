//! Runs services as processes against a broker, and harms them.
//!
//! `tests/it` runs the example services against a real Apache RocketMQ: `make e2e` starts the server
//! and calls them. [`chaos`] is `make chaos`.

pub mod chaos;
pub mod relay;
