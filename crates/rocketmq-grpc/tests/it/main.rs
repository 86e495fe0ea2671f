//! Behaviour, against the dev broker, and against a scripted server for the faults that a broker
//! seldom shows. The scripted one is all in one runtime, so its clock is paused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod consumer;
mod credentials;
mod dev_broker;
mod dev_kinds;
mod fake;
mod fifo;
mod fuzz;
mod interceptor;
mod kinds;
mod link;
mod logs;
mod outage;
mod producer;
mod push;
mod session;
mod settlement;
mod several;
mod simple;
#[cfg(feature = "opentelemetry")]
mod spans;
mod stop;
#[cfg(feature = "tls")]
mod tls;
mod transaction;
