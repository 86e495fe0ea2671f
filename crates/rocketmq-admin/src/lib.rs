#![doc = include_str!("../README.md")]

mod admin;
mod cluster;
mod code;
mod config;
mod connection;
mod error;
mod frame;
mod group;
mod json;
mod lag;
mod names;
mod pool;
mod sync;
mod topic;

pub use crate::{
    admin::{Admin, Position},
    cluster::{Broker, BrokerRoute, Route},
    config::Config,
    error::{Error, Result},
    group::{Backoff, Group, GroupSpec},
    lag::{Lag, Queue, QueueLag},
    topic::{MessageType, QueueStats, Topic, TopicDetail, TopicSpec},
};
