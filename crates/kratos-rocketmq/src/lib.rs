//! RocketMQ for kratos: subscribers are typed async functions, registered by topic and group, and
//! consumed by a [`Server`] of the App.
//!
//! ```no_run
//! use kratos::App;
//! use kratos_broker::Json;
//! use kratos_rocketmq as rocketmq;
//!
//! async fn print(Json(order): Json<u64>) {
//!     println!("order {order}");
//! }
//!
//! # async fn run() -> kratos::Result<()> {
//! let config = rocketmq::Config { endpoints: Some("127.0.0.1:8081".to_owned()), ..Default::default() };
//! let client = rocketmq::Client::new(config)?;
//! App::new()
//!     .name("billing")
//!     .resource(client.clone())
//!     .server(rocketmq::Server::new(client).subscribe("orders", "billing", print))
//!     .run()
//!     .await
//! # }
//! ```
//!
//! Every subscription has the settings of [`Subscription`]; [`Router`]s are plain values that
//! [`Server::routes`](kratos_broker::Server::routes) takes. Two topics in one group are one
//! consumer; one topic in two groups is delivered to both.
//!
//! What this driver does on the wire: messages are leased for an explicit time (30 s by default)
//! and extended while they are worked on, so a crash costs at most that time; acknowledgements go
//! out in batches and are confirmed; a stop hands back what it could not finish, which spends one
//! of the message's attempts.

mod attributes;
mod broadcast;
mod check;
#[cfg(feature = "cli")]
pub mod cli;
mod client;
mod config;
mod consumer;
mod dead_letters;
#[cfg(feature = "asyncapi")]
mod document;
mod error;
mod headers;
#[cfg(any(feature = "admin", feature = "embedded"))]
mod lag;
mod publish;
#[cfg(feature = "test-util")]
pub mod testing;
mod tls;
mod transaction;

use tower_layer::Identity;

pub use kratos_broker::{Message, Router, Subscription};

pub use self::{
    client::Client,
    config::{Config, Credentials},
    consumer::Consumer,
    dead_letters::{dead_letter_topic, replay},
    tls::Tls,
};

/// The RocketMQ server of the App: [`kratos_broker::Server`] on this driver.
pub type Server<S = (), L = Identity> = kratos_broker::Server<Client, S, L>;

/// Publishes to RocketMQ: [`kratos_broker::Publisher`] on this driver.
pub type Publisher = kratos_broker::Publisher<Client>;

/// Publishes values of `T` to one topic: [`kratos_broker::TopicPublisher`] on this driver.
pub type TopicPublisher<T> = kratos_broker::TopicPublisher<Client, T>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
