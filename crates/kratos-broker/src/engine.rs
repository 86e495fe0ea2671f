//! The consumer engine: lanes, order, leases, drain; the same for every broker.
//!
//! Per group there is one consumer with one lease table, one task that extends leases and one that
//! hears of settlements; per topic one task that receives; per subscription a queue and its lanes.
//! A lane sees a [`Delivery`](crate::Delivery) and a ticket, never a lease, so its code knows no
//! driver.

pub(crate) mod batch_lane;
pub(crate) mod burial;
pub(crate) mod cell;
pub(crate) mod control;
pub(crate) mod counters;
pub(crate) mod drain;
mod fatal;
pub(crate) mod health;
mod heart;
mod intake;
mod keeper;
pub(crate) mod lane;
mod lanes;
pub(crate) mod metrics;
mod queue;
pub(crate) mod running;
mod span;
mod switch;
mod table;
pub(crate) mod ticket;

pub(crate) use self::running::Running;
