//! Stores the reports that come over RocketMQ and lists them over HTTP.
//!
//! Two topics in one consumer group, one handler each. A report is acknowledged after its row is
//! committed, and a row is keyed by message id, so a message that is delivered twice is stored
//! once: at least once by the broker, exactly once in the table.

mod handlers;
mod list;
mod openapi;
mod store;

pub use self::{
    handlers::{GROUP, SaveError, TOPIC_EVENT, TOPIC_USER, save_event, save_status},
    list::routes,
    openapi::openapi,
    store::{Config, Kind, Report, Store},
};
