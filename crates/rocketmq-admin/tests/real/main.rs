//! Every command on a real Apache RocketMQ, whose name server `ROCKETMQ_NAMESRV` names
//! (`127.0.0.1:9876` by default). Topics and groups have names of their own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod groups;
mod offsets;
mod server;
mod topics;
