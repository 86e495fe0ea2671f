//! Against a real Apache RocketMQ 5: `ROCKETMQ_ENDPOINTS` names its proxy (127.0.0.1:8081 by
//! default). Every test creates its own topic and group, through the broker's admin port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod consume;
mod secure;
mod server;
mod stop;
