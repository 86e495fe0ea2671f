//! The broker over gRPC, with the raw generated client.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod binary;
mod client;
mod consume;
#[cfg(feature = "persist")]
mod damage;
mod faults;
mod injected;
mod inspect;
mod matches_real_server;
#[cfg(feature = "persist")]
mod persist;
mod produce;
mod settings;
mod settle;
mod signatures;
#[cfg(feature = "tls")]
mod tls;
mod transaction;

use std::time::Duration;

/// Waits for a condition, at most five seconds.
async fn eventually(mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come true within 5 s");
}
