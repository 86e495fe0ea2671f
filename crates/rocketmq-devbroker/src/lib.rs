#![doc = include_str!("../README.md")]

mod access;
mod broker;
mod builder;
mod clock;
mod connector;
mod core;
mod error;
mod frost;
mod service;
mod serving;
mod state;
#[cfg(feature = "persist")]
mod store;
#[cfg(not(feature = "persist"))]
#[path = "store/absent.rs"]
mod store;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/absent.rs"]
mod tls;

pub use rocketmq_proto::v2::Code;

pub use self::{
    broker::DevBroker,
    builder::Builder,
    connector::Connector,
    error::Error,
    state::{
        Backoff, ConnectedClient, DEFAULT_RETRY_MAX_TIMES, DelayedMessage, GroupConfig,
        HalfMessage, InFlight, QueueLag, QueueOffsets, Rpc, StoredMessage, Subscription, Timestamp,
        TopicType, UnknownTopicType, dead_letter_topic,
    },
};
