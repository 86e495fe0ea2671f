//! Against a real Apache RocketMQ 5: `ROCKETMQ_ENDPOINTS` names its proxy (127.0.0.1:8081 by
//! default), `ROCKETMQ_NAMESRV` the name server (127.0.0.1:9876 by default). Every test creates its own
//! topic and group.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod consume;
mod crash;
mod fifo;
mod offsets;
mod secure;
mod send;
mod server;
mod simple;
mod stop;
