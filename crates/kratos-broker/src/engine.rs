//! The consumer engine: lanes, order, leases, drain; the same for every broker.

pub(crate) mod cell;
pub(crate) mod ticket;
