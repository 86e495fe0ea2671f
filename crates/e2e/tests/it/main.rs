//! The two services as processes, a real Apache RocketMQ, and signals in the middle.
//!
//! Both scenarios use the topics and the group of the services, so they run one after the other.
//! `ROCKETMQ_ENDPOINTS` names the server; the binaries are those beside this test. `interop` is about
//! the official Python client, `outage` about our client while the server is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod interop;
mod outage;
mod poster;
mod rows;
mod scenario;
mod service;
mod site;
