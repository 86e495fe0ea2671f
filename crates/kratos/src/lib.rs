//! Run HTTP, gRPC and message servers under one lifecycle.

mod context;
mod description;
mod endpoint;
mod error;
mod health;
mod info;
mod resource;
mod server;
#[cfg(feature = "trace")]
pub mod trace;

pub use self::{
    context::{Shutdown, ShutdownTrigger, StartContext},
    description::Description,
    endpoint::Endpoint,
    error::{Error, Result},
    health::Health,
    info::AppInfo,
    resource::Resource,
    server::{BoundServer, Server},
};
