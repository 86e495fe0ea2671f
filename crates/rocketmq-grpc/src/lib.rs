#![doc = include_str!("../README.md")]

mod backoff;
mod client;
mod config;
mod connect;
mod connection;
pub mod consumer;
mod convert;
mod endpoints;
mod error;
mod filter;
mod identity;
mod instance;
mod lease;
mod message;
mod producer;
mod push_consumer;
mod route;
mod rpc;
mod session;
mod settings;

pub use self::{
    backoff::RetryDelays,
    client::Client,
    config::Config,
    connect::Connector,
    consumer::{Consumer, ConsumerConfig, ConsumerStats},
    endpoints::Endpoints,
    error::{Error, Result},
    filter::Filter,
    lease::{BatchId, BatchPlace, Lease, LeaseId, Settled, Settlement},
    message::{Message, MessageView},
    producer::{
        Producer, ProducerConfig, Resolution, SendReceipt, Transaction, TransactionReceipt,
    },
    push_consumer::PushConsumer,
    settings::ServerSettings,
};
