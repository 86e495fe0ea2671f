//! Broker-neutral messaging: typed handlers, router, consumer engine, memory driver.

mod delivery;
pub mod driver;
mod engine;
mod error;
mod extensions;
mod headers;
mod message;
mod names;
mod publisher;

pub use self::{
    delivery::{Delivery, DeliveryParts},
    driver::{Driver, Settlement},
    error::{Error, ErrorKind, Result},
    headers::Headers,
    message::{Message, MessageParts, Receipt},
    names::{Group, MessageId, Topic},
    publisher::Publisher,
};
