//! Run HTTP, gRPC and message servers under one lifecycle.
//!
//! One [`App`] starts every server, registers the service only when all of them serve, and on
//! SIGTERM drains them all within one deadline. [`main`] gives it a runtime and an exit code.
//!
//! A [`Server`] is anything that can be bound and then served; a [`Resource`] anything that servers
//! use and that must outlive them. This crate brings the servers [`http`] and [`grpc`], and [`admin`]
//! to look after them all; it knows no message broker: those implement [`Server`] in crates of their
//! own.
//!
//! # Features
//!
//! `http`, `grpc`, `tls`, `config`, `telemetry`, `admin`, `cli` (all default), `trace`, and
//! `test-util` for tests of services; the lifecycle needs none.

#[cfg(feature = "admin")]
pub mod admin;
mod app;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
mod context;
mod description;
mod endpoint;
mod entry;
mod error;
mod error_chain;
#[cfg(feature = "grpc")]
pub mod grpc;
mod health;
#[cfg(feature = "http")]
pub mod http;
mod info;
mod live;
#[cfg(feature = "trace")]
pub mod metrics;
#[cfg(feature = "net")]
mod net;
mod process;
pub mod registry;
mod resource;
mod retry;
mod server;
mod signal;
#[cfg(feature = "telemetry")]
pub mod telemetry;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "trace")]
pub mod trace;

#[cfg(feature = "cli")]
pub use self::description::{Command, CommandContext};
pub use self::{
    app::{App, AppDescription, Handle, HookContext, Outcome, Phase, ServerState, ServerStatus},
    config::Config,
    context::{Shutdown, ShutdownTrigger, StartContext},
    description::{Check, Description, Document, Entry, Finding},
    endpoint::Endpoint,
    entry::main,
    error::{Error, Result},
    error_chain::error_chain,
    health::Health,
    info::AppInfo,
    live::{
        Action, Answer, HeldMessage, LastError, Live, Pulse, Refusal, SubscriptionKind,
        SubscriptionState, SubscriptionStatus,
    },
    registry::{Instance, Registrar},
    resource::Resource,
    server::{BoundServer, Server},
    signal::{SignalSender, Signals},
};
