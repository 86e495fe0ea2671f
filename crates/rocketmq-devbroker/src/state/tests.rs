//! The state machine alone: time is an argument, so nothing here waits.

mod bench;
mod concurrent;
mod dead_letter;
mod fifo;
mod filter;
mod fuzz;
mod receive;
#[cfg(feature = "persist")]
mod restore;
mod send;
mod strict;
mod transaction;
