//! Takes reports over HTTP and gRPC and publishes them to RocketMQ.
//!
//! Both sides run the same code, [`Reports::post`]: success is answered only when the broker has
//! confirmed the message.

mod grpc;
mod http;
mod openapi;
mod reports;

/// What reflection tells of the gRPC service.
pub use report_proto::FILE_DESCRIPTOR_SET as DESCRIPTORS;

pub use self::{
    grpc::service,
    http::routes,
    openapi::openapi,
    reports::{PostError, Reports, TOPIC_EVENT, TOPIC_USER},
};
