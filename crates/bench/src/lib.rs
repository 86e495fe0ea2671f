//! What the engine costs per message: the workload, and a driver that costs nothing.
//!
//! The binary `count` counts instructions and allocations, and is the gate of CI; the benchmark
//! `dispatch` takes the time, beside a peer's.

mod engine;
mod latch;
mod null;
mod scenario;

pub use self::{
    engine::{Engine, drain},
    latch::Latch,
    null::Null,
    scenario::Scenario,
};

/// Messages of one round: few enough for a core's own cache, as messages are that just arrived.
pub const ROUND: usize = 1_000;

/// Keys of a keyed round, in turn.
pub const KEYS: usize = 64;

/// The body of every message: two numbers, so that to decode it allocates nothing.
pub const BODY: &[u8] = br#"{"id":1000000,"quantity":37}"#;

/// What the body says.
#[derive(Debug, serde::Deserialize)]
pub struct Order {
    /// One number.
    pub id: u64,
    /// Another.
    pub quantity: u32,
}
