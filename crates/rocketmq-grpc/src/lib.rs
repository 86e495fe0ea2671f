#![doc = include_str!("../README.md")]

mod backoff;
mod client;
mod config;
mod connect;
mod connection;
pub mod consumer;
mod convert;
mod credentials;
mod endpoints;
mod error;
mod filter;
mod hex;
mod identity;
mod instance;
mod interceptor;
mod lease;
mod message;
mod producer;
mod push_consumer;
mod route;
mod rpc;
mod session;
mod settings;
mod simple_consumer;
#[cfg(feature = "opentelemetry")]
mod spans;
#[cfg(not(feature = "opentelemetry"))]
#[path = "spans/off.rs"]
mod spans;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tls")]
pub use self::tls::Tls;
pub use self::{
    backoff::RetryDelays,
    client::Client,
    config::Config,
    connect::{BoxError, Connector},
    consumer::{Consumer, ConsumerConfig, ConsumerStats},
    credentials::{Credentials, CredentialsProvider},
    endpoints::Endpoints,
    error::{Error, Result},
    filter::Filter,
    interceptor::Interceptor,
    lease::{BatchId, BatchPlace, Lease, LeaseId, Settled, Settlement},
    message::{Message, MessageView},
    producer::{
        Producer, ProducerConfig, Resolution, SendReceipt, Transaction, TransactionReceipt,
    },
    push_consumer::{Abandoned, PushConsumer},
    settings::ServerSettings,
    simple_consumer::{SimpleConsumer, SimpleConsumerConfig},
};
