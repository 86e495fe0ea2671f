//! Broker-neutral messaging: typed handlers, router, consumer engine, memory driver.
//!
//! * To send: a [`Message`] through a [`Publisher`], typed values through a [`TopicPublisher`].
//! * To receive: handlers, plain async functions of [extractors](FromDelivery), in a [`Server`] that
//!   the App runs, or in a [`Router`] that a server takes.
//!   Handlers of several messages at once take a [`Batch`].
//!   What is wrong with one that does not fit is named by the attribute `debug_handler` (feature
//!   `macros`).
//! * To bring a broker: [`driver`], tested by the conformance kit `testing` (feature `test-util`).
//! * To test an application: [`memory`], and `testing::TestApp` (feature `test-util`).
//!
//! This crate names no broker. It does no I/O of its own and reads no environment.

#[cfg(feature = "asyncapi")]
pub mod asyncapi;
mod batch;
mod clock;
mod codec;
mod dead_letter;
mod delivery;
pub mod driver;
mod engine;
mod error;
mod extensions;
mod extract;
mod handler;
mod headers;
pub mod idempotent;
mod kill_switch;
pub mod memory;
mod message;
mod names;
mod policy;
mod publisher;
mod rate_limit;
mod replay;
mod router;
mod server;
mod subscription;
#[cfg(feature = "test-util")]
mod tap;
#[cfg(not(feature = "test-util"))]
#[path = "tap/absent.rs"]
mod tap;
#[cfg(feature = "test-util")]
pub mod testing;
mod topic_publisher;
mod transaction;

pub use bytes::Bytes;
#[cfg(feature = "macros")]
pub use kratos_broker_macros::debug_handler;

#[cfg(feature = "json")]
pub use self::extract::Json;
#[cfg(feature = "protobuf")]
pub use self::extract::Protobuf;
pub use self::{
    batch::{
        Batch, BatchFuture, BatchHandler, BatchItem, BatchOutcome, BatchReturn, BatchSettings,
        Deliveries, FromBatch, Outcomes,
    },
    codec::{CONTENT_TYPE, Encode},
    dead_letter::DeadLetter,
    delivery::{Delivery, DeliveryParts},
    driver::{Consumer, Driver, Settlement},
    engine::{
        control::Controls,
        counters::{Counters, Stats},
    },
    error::{Error, ErrorKind, Result},
    extract::{
        Attempt, BodyType, Cancelled, Deadline, Extension, FromDelivery, FromRef, Key, Rejection,
        State, Tag,
    },
    handler::{
        AnyError, Disposition, Failure, Handler, HandlerError, HandlerFuture, HandlerReturn,
        HandlerService,
    },
    headers::Headers,
    kill_switch::KillSwitch,
    message::{Message, MessageParts, RecallHandle, Receipt},
    names::{Group, MessageId, Topic},
    policy::{Backoff, Policy},
    publisher::Publisher,
    rate_limit::RateLimit,
    replay::{DeadLetterView, REPLAYED_ID, Replay, ReplayEnded, ReplayReport},
    router::{IntoBatchRoute, IntoRoute, Router},
    server::{Bound, Server},
    subscription::{Order, Subscription},
    topic_publisher::TopicPublisher,
    transaction::{Resolution, Transacted},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
