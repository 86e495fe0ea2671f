//! What the crate promises, seen from outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(all(feature = "admin", feature = "config", feature = "telemetry"))]
mod admin;
#[cfg(all(feature = "http", feature = "grpc"))]
mod calls;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "config")]
mod config;
mod defects;
#[cfg(all(feature = "http", feature = "grpc"))]
mod grpc;
#[cfg(all(feature = "http", feature = "grpc"))]
mod http;
mod lifecycle;
mod process;
mod recorder;
mod reflection;
#[cfg(all(feature = "http", feature = "grpc"))]
mod servers;
#[cfg(all(feature = "http", feature = "grpc", feature = "telemetry"))]
mod spans;
mod support;
#[cfg(feature = "telemetry")]
mod telemetry;
#[cfg(all(feature = "http", feature = "grpc", feature = "tls"))]
mod tls;
